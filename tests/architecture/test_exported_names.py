"""The public API of the core is what `__all__` says, sorted, and each name is there."""

import ast
from pathlib import Path

import pytest

import textllm_core


def test_all_is_sorted_and_says_what_type_checkers_see() -> None:
    tree = ast.parse(Path(textllm_core.__file__).read_text())
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("textllm_core")
        for alias in node.names
    }
    assert textllm_core.__all__ == sorted(textllm_core.__all__)
    assert set(textllm_core.__all__) == imported == set(dir(textllm_core))


@pytest.mark.parametrize("name", textllm_core.__all__)
def test_each_name_is_there(name: str) -> None:
    value = getattr(textllm_core, name)
    assert getattr(value, "__name__", name) == name


def test_no_other_name_is() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = textllm_core.Nothing  # type: ignore[attr-defined]
