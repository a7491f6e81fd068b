"""Fenced blocks of Markdown."""

import re
from typing import Final

# CommonMark 0.31.2, 4.5: three or more backticks or tildes, indented by three spaces at most; the end is at least as
# long. Where there is no end, the block runs to the end of the text.
_OPENING: Final = re.compile(r"^(?P<indent> {0,3})(?P<fence>`{3,}(?=[^`]*$)|~{3,})")


def first_fenced_block(text: str) -> str | None:
    """What stands in the first fenced block of a text, without its fences; None where there is none."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        opening = _OPENING.match(line)
        if opening is None:
            continue
        fence, indent = opening["fence"], len(opening["indent"])
        closing = re.compile(rf" {{0,3}}{re.escape(fence[0])}{{{len(fence)},}}[ \t]*")
        content = []
        for inner in lines[number + 1 :]:
            if closing.fullmatch(inner):
                break
            content.append(inner[min(indent, len(inner) - len(inner.lstrip(" "))) :])
        return "".join(f"{inner}\n" for inner in content)
    return None
