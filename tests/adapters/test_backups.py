"""What docs/backup.md says makes whole backups, also while turns are settled, and the restored books balance."""

import asyncio
import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.contracts.conftest import sql_storage
from tests.servers.postgres import find_binaries

from textllm_adapters.postgres.engine import PostgresEngine
from textllm_adapters.postgres.engine import open_engine as open_postgres_engine
from textllm_adapters.sql import migrations
from textllm_adapters.sql.audit import SqlAudit
from textllm_adapters.sqlite.engine import SqliteEngine
from textllm_adapters.sqlite.engine import open_engine as open_sqlite_engine
from textllm_adapters.testing.books import exchange, reservation, settlement
from textllm_adapters.testing.storage import Storage
from textllm_core.records.conversations import ConversationFilter

PAGE = (Path(__file__).parents[2] / "docs" / "backup.md").read_text()


@asynccontextmanager
async def busy(engine: AsyncEngine) -> AsyncIterator[list[str]]:
    """Books in which turns are settled while the block runs; the conversations that were there before it."""
    storage = sql_storage(engine)
    known = [await _turn(storage) for _ in range(3)]
    await _search(storage)  # the index of words is a part of it, too
    await storage.ledger.reserve(reservation())  # of a turn that is running

    async def go_on() -> None:
        while True:
            await _turn(storage)

    going = asyncio.create_task(go_on())
    yield known
    going.cancel()
    with suppress(asyncio.CancelledError):
        await going


async def _turn(storage: Storage) -> str:
    hold = await storage.ledger.reserve(reservation(cost="0.25", limit="1000000"))
    await storage.ledger.settle(hold, settlement(messages=exchange("A heron", "It flies")))
    return hold.conversation_id


async def _search(storage: Storage) -> set[str]:
    found, _ = await storage.conversations.list("tenant", ConversationFilter(search="heron"), limit=10_000, offset=0)
    return {one.id for one in found}


async def assert_whole(engine: AsyncEngine, known: list[str]) -> None:
    assert await migrations.current_revision(engine) == migrations.head_revision()
    assert [drift async for drift in SqlAudit(engine).drifts()] == []
    size = await SqlAudit(engine).size()
    assert size.holds >= 1
    assert size.entries >= len(known)
    assert await _search(sql_storage(engine)) >= set(known)
    await _turn(sql_storage(engine))  # and it goes on
    await engine.dispose()


async def test_a_dump_of_a_busy_postgres_is_restored_whole(
    postgres_engine: PostgresEngine, postgres_url: str, empty_postgres_url: str, tmp_path: Path
) -> None:
    async with busy(postgres_engine) as known:
        await asyncio.to_thread(_run, "pg_dump", postgres_url, tmp_path)
    await asyncio.to_thread(_run, "pg_restore", empty_postgres_url, tmp_path)
    await assert_whole(open_postgres_engine(empty_postgres_url), known)


def _run(program: str, url: str, folder: Path) -> None:
    """Do what the page says, by that program."""
    [command] = re.findall(rf"^PGOPTIONS=.* {program} .*$", PAGE, re.MULTILINE)
    try:
        binaries = find_binaries()
    except RuntimeError:
        pytest.skip(f"needs {program} of the server's version")
    environment = {"PATH": f"{binaries}:{os.environ['PATH']}", "DATABASE_URL": url.replace("+asyncpg", "", 1)}
    done = subprocess.run(["sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("way", ["vacuum", "backup"])
async def test_a_backup_of_a_busy_sqlite_is_restored_whole(
    sqlite_engine: SqliteEngine, sqlite_url: str, tmp_path: Path, way: str
) -> None:
    source = tmp_path / "textllm.db"
    assert sqlite_url.endswith(str(source))
    async with busy(sqlite_engine) as known:
        await asyncio.to_thread(_back_up, source, tmp_path / "backup.db", way)
    await sqlite_engine.dispose()
    for beside in ("-wal", "-shm"):
        (tmp_path / f"textllm.db{beside}").unlink(missing_ok=True)
    shutil.move(tmp_path / "backup.db", source)
    await assert_whole(open_sqlite_engine(sqlite_url), known)


def _back_up(source: Path, target: Path, way: str) -> None:
    """What sqlite3 does by the page's commands, which not every machine has as a program."""
    connection = sqlite3.connect(source)
    if way == "vacuum":
        assert "\"VACUUM INTO 'backup.db'\"" in PAGE
        connection.execute("VACUUM INTO ?", [str(target)])
    else:
        assert '".backup backup.db"' in PAGE
        copy = sqlite3.connect(target)
        connection.backup(copy)
        copy.close()
    connection.close()
