"""The public API of the core: every record, port, use case and error that a user meets, each under its own name."""

import ast
import inspect
import pkgutil
import re
import sys
from dataclasses import fields
from functools import cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

import textllm_core
from textllm_adapters import settings, testing, wiring
from textllm_core import errors, ports, records
from textllm_core.application import Administration, Conversations, Files, TextLLM

STUB = Path(textllm_core.__file__).with_suffix(".pyi")
# What passes between the parts of an exchange, and never reaches whoever uses or adapts them.
INNER = {"ConversationAccount", "SessionAccount", "WholeCharacters"}


def test_type_checkers_see_what_is_there() -> None:
    tree = ast.parse(STUB.read_text())
    imported = {
        (node.module, alias.name) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    homes: dict[str, str] = vars(textllm_core)["_HOMES"]
    assert imported == {(f"textllm_core.{module}", name) for name, module in homes.items()}
    [listed] = [node.value for node in tree.body if isinstance(node, ast.Assign)]
    assert sorted(ast.literal_eval(listed)) == textllm_core.__all__ == dir(textllm_core) == sorted(homes)


@pytest.mark.parametrize("name", textllm_core.__all__)
def test_each_name_is_there(name: str) -> None:
    value = getattr(textllm_core, name)
    assert not inspect.isclass(value) or value.__name__ == name


def modules_of(package: ModuleType) -> list[ModuleType]:
    return [import_module(f"{package.__name__}.{found.name}") for found in pkgutil.iter_modules(package.__path__)]


@pytest.mark.parametrize("module", [*modules_of(records), *modules_of(ports), *modules_of(errors)], ids=str)
def test_every_record_port_and_error_is_exported(module: ModuleType) -> None:
    own = {
        name
        for name, kind in vars(module).items()
        if inspect.isclass(kind) and kind.__module__ == module.__name__ and not name.startswith("_")
    }
    assert own - INNER <= set(textllm_core.__all__)


def test_every_use_case_is_exported() -> None:
    use_cases = {field.type for part in (Administration, Conversations, Files, TextLLM) for field in fields(part)}
    assert {getattr(kind, "__name__", kind) for kind in use_cases} <= set(textllm_core.__all__)


def docstring_of(module: ModuleType, name: str) -> str:
    """Its own: not an inherited one, and not what a dataclass says of itself."""
    value = getattr(module, name)
    if inspect.isclass(value):
        told = vars(value).get("__doc__") or ""
        return "" if told.startswith(f"{name}(") else told
    if inspect.isroutine(value):
        return value.__doc__ or ""
    homes = [home for key, home in [*sys.modules.items()] if key.startswith("textllm_") and name in vars(home)]
    return next(filter(None, (_told_below_names(home).get(name) for home in homes)), "")


@cache
def _told_below_names(module: ModuleType) -> dict[str, str]:
    """What texts below `NAME = …` say in the source of a module."""
    told = {}
    for made, below in pairwise(ast.parse(inspect.getsource(module)).body):
        targets = made.targets if isinstance(made, ast.Assign) else [getattr(made, "target", None)]
        if isinstance(below, ast.Expr) and isinstance(targets[0], ast.Name):
            told[targets[0].id] = str(ast.literal_eval(below.value))
    return told


@pytest.mark.parametrize("module", [textllm_core, wiring, settings, testing], ids=lambda module: module.__name__)
def test_every_exported_name_says_what_it_is(module: ModuleType) -> None:
    assert [name for name in module.__all__ if not docstring_of(module, name).strip()] == []


def test_no_other_name_is() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = textllm_core.Nothing  # type: ignore[attr-defined]


def test_pages_name_what_is_there() -> None:
    pages = "".join(page.read_text() for page in (Path(__file__).parents[2] / "docs").glob("*.md"))
    named = set(re.findall(r"`textllm_core\.(\w+)`", pages))
    assert named
    assert named <= {*textllm_core.__all__, *(found.name for found in pkgutil.iter_modules(textllm_core.__path__))}
