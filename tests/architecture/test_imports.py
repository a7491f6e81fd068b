"""The hexagon holds: what may import what is checked by import-linter, what loads by a fresh interpreter."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def modules_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after `statement`."""
    program = f"import sys; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    return {name.partition(".")[0] for name in loaded.split()}


def test_every_import_contract_is_kept() -> None:
    result = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stdout


def test_the_core_loads_the_standard_library_and_msgspec_alone() -> None:
    # msgspec itself loads typing_extensions where that is installed.
    foreign = modules_after("from textllm_core import *") - sys.stdlib_module_names - modules_after("import msgspec")
    assert foreign == {"textllm_core"}


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        (
            "import textllm_adapters.wiring",
            {"openai", "sqlalchemy", "litestar", "xllamacpp", "genai_prices", "aioboto3"},
        ),
        (
            "import textllm_cli.main",
            {"openai", "sqlalchemy", "litestar", "xllamacpp", "genai_prices", "granian", "aioboto3"},
        ),
        ("import textllm_adapters.sql.migrations", {"alembic"}),  # a database is nearly always at its head
        ("import textllm_adapters.memory.ledger", {"openai", "sqlalchemy", "litestar"}),
        ("import textllm_http.asgi", {"openai", "sqlalchemy", "opentelemetry"}),
    ],
)
def test_no_one_pays_for_an_adapter_that_was_not_chosen(statement: str, unwanted: set[str]) -> None:
    assert modules_after(statement) & unwanted == set()
