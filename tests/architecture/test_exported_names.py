"""The public API of the core: every record, port, use case and error that a user meets, each under its own name."""

import ast
import inspect
import pkgutil
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import textllm_core
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


def test_no_other_name_is() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = textllm_core.Nothing  # type: ignore[attr-defined]
