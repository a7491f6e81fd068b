"""Each constant of time says why it is as long as it is."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "src"
OF_TIME = re.compile(r"_?[A-Z_]*(?:_S|_MS|_US|_HOURS|LEASE|WATCH|PAUSE)")


def is_number(value: ast.expr) -> bool:
    """A number, several, or what is computed from some."""
    match value:
        case ast.Constant(value=int() | float() | bytes()) | ast.Name():
            return True
        case ast.BinOp(left=left, right=right):
            return is_number(left) and is_number(right)
        case ast.Tuple(elts=parts):
            return all(map(is_number, parts))
        case ast.Call(func=ast.Name(id="timedelta"), keywords=given):
            return all(is_number(each.value) for each in given)
    return False


def constants_of_time() -> Iterator[tuple[str, bool]]:
    """Each, and whether a comment stands beside it, or right above."""
    for path in sorted(SOURCES.rglob("*.py")):
        lines = path.read_text().splitlines()
        for node in ast.parse("\n".join(lines)).body:
            match node:
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    pass
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    pass
                case _:
                    continue
            if OF_TIME.fullmatch(name) and is_number(value):
                above, beside = lines[node.lineno - 2], lines[node.lineno - 1 : node.end_lineno]
                has_reason = above.startswith("#") or any(" # " in line for line in beside)
                yield f"{path.relative_to(SOURCES)}: {name}", has_reason


def test_each_says_why_it_is_as_long_as_it_is() -> None:
    found = dict(constants_of_time())
    assert len(found) > 40
    assert [name for name, has_reason in found.items() if not has_reason] == []
