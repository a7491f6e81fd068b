"""The hexagon holds: what may import what is checked by import-linter, what loads by a fresh interpreter."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.servers.openai import OpenAIStandIn, Reply

ROOT = Path(__file__).parents[2]
# What a turn of text on SQLite needs none of.
RARE = {
    "aioboto3",
    "aiohttp",
    "alembic",
    "asyncpg",
    "botocore",
    "chardet",
    "docx",
    "openai",
    "pypdf",
    "pypdfium2",
    "sqlalchemy.dialects.postgresql",
    "xllamacpp",
}
TURN = """
import asyncio
from contextlib import suppress
from textllm_core import Caller, TextLLMError, TextTurn
from textllm_adapters.wiring import load_settings, open_textllm

async def ask(address, database, folder):
    environment = {
        "OPENAI_API_KEY": "x", "OPENAI_BASE_URL": address, "DATABASE_URL": database, "TEXTLLM_DATA_DIR": folder
    }
    async with open_textllm(load_settings(environ=environment)) as textllm:
        await textllm.send_message(Caller(), TextTurn("Hello"))
        with suppress(TextLLMError):  # of this one is asked what it came to
            await textllm.send_message(Caller(), TextTurn("Hello again"))

asyncio.run(ask(*sys.argv[1:]))
"""  # a whole turn of a new conversation, and one that breaks off
WORKER = """
import asyncio, os

for name, value in zip(("DATABASE_URL", "TEXTLLM_DATA_DIR"), sys.argv[1:], strict=True):
    os.environ[name] = value
os.environ |= {"OPENAI_API_KEY": "x", "TEXTLLM_AUTH": "disabled"}
import textllm_http.worker

async def start():
    app, _ = textllm_http.worker.create()
    async with app.lifespan():
        pass

asyncio.run(start())
"""  # what a worker does before it serves
TRY_OUT = """
import asyncio
from textllm_adapters.wiring import load_settings, try_out

async def start(database, folder):
    environment = {"OPENAI_API_KEY": "x", "DATABASE_URL": database, "TEXTLLM_DATA_DIR": folder}
    async with try_out(load_settings(environ=environment)):
        pass

asyncio.run(start(*sys.argv[1:]))
"""  # what the parent of the workers does


def modules_after(statement: str, *arguments: str) -> set[str]:
    """Packages, and folders of SQLAlchemy's dialects, that a fresh interpreter has loaded after `statement`."""
    program = f"import sys; before = set(sys.modules)\n{statement}\nprint(*(set(sys.modules) - before))"
    loaded = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    ).stdout
    names = loaded.split()
    dialects = {name for name in names if name.startswith("sqlalchemy.dialects.") and name.count(".") == 2}
    return dialects | {name.partition(".")[0] for name in names}


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
        (TRY_OUT, {"openai", "alembic", "litestar"}),
        (WORKER, RARE | {"typer", "rich"}),
        ("import textllm_adapters.memory.ledger", {"openai", "sqlalchemy", "litestar"}),
        ("import textllm_http.supervisor", {"litestar", "prometheus_client", "sqlalchemy", "typer", "yaml"}),
        ("import textllm_http.asgi", {"openai", "sqlalchemy", "opentelemetry"}),
    ],
)
def test_no_one_pays_for_an_adapter_that_was_not_chosen(
    statement: str, unwanted: set[str], sqlite_url: str, tmp_path: Path
) -> None:
    assert modules_after(statement, sqlite_url, str(tmp_path)) & unwanted == set()


def test_a_turn_waits_for_no_import_that_it_does_not_need(sqlite_url: str, tmp_path: Path) -> None:
    with OpenAIStandIn(api_key="x") as provider:
        provider.script(Reply(), Reply(deltas=("a", "b", "c"), end="cut", end_after=2))
        loaded = modules_after(TURN, provider.base_url, sqlite_url, str(tmp_path))
        assert any(request.method == "GET" for request in provider.requests)
    assert "httptools" in loaded
    assert not loaded & (RARE | {"litestar", "prometheus_client"})
