"""What docs/backup.md says makes whole backups, also while turns are settled, and the restored books balance."""

import asyncio
import os
import re
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.contracts.conftest import sql_storage
from tests.servers.postgres import PostgresServer, as_unprivileged, find_binaries, hand_over, runnable_binaries

from textllm_adapters.postgres.engine import PostgresEngine
from textllm_adapters.postgres.engine import open_engine as open_postgres_engine
from textllm_adapters.sql import migrations
from textllm_adapters.sql.audit import SqlAudit
from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sql.health_probe import SqlHealthProbe
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


@pytest.mark.slow
async def test_a_server_that_is_taken_back_to_a_moment_has_all_that_was_there_then() -> None:
    with tempfile.TemporaryDirectory(prefix="textllm-backup-", dir="/tmp") as name:
        folder = Path(name)
        (folder / "archive").mkdir()
        hand_over(folder)
        hand_over(folder / "archive")
        archiving = _settings(("archive_mode", "archive_command", "archive_timeout"), folder)
        with PostgresServer(settings=archiving) as server:
            engine = open_postgres_engine(url := server.create_database(), command_timeout_s=None)
            await migrations.upgrade(engine)
            async with busy(engine) as known:
                await asyncio.to_thread(_copy, server, folder)
                known.append(await _turn(sql_storage(engine)))
            kept = (await SqlAudit(engine).size()).entries
            async with Database(engine).transaction(EVERYONE) as connection:
                moment = (await connection.execute(text("SELECT clock_timestamp()"))).scalar_one()
            async with Database(engine).transaction(EVERYONE) as connection:
                await connection.execute(text("DELETE FROM ledger"))  # somebody forgot a WHERE
            await engine.dispose()
        going_back = _settings(("restore_command", "recovery_target_time", "recovery_target_action"), folder)
        with _Restored(folder / "base", going_back | {"recovery_target_time": str(moment)}) as server:
            place = make_url(url).update_query_dict({"host": str(server.folder)})
            restored = open_postgres_engine(place.render_as_string())
            while await SqlHealthProbe(restored).check() is not None:  # noqa: ASYNC110 - it is the server that is asked
                await asyncio.sleep(0.1)
            assert (await SqlAudit(restored).size()).entries == kept
            await assert_whole(restored, known)


def _settings(names: Sequence[str], folder: Path) -> dict[str, str]:
    """What the page sets these to, with the folder in the place of its own."""
    page = {name: re.search(rf"^{name} = '?(.+?)'?(?: +#.*)?$", PAGE, re.MULTILINE) for name in names}
    return {name: found[1].replace("/archive", f"{folder}/archive") for name, found in page.items() if found}


def _copy(server: PostgresServer, folder: Path) -> None:
    [command] = re.findall(r"^pg_basebackup .*$", PAGE, re.MULTILINE)
    command = command.replace("/backup/", f"{folder}/") + f" --host={server.folder} --no-sync"
    environment = {"PATH": f"{runnable_binaries(find_binaries(), folder)}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-c", command], check=True, cwd="/", env=environment, **as_unprivileged())


class _Restored(PostgresServer):
    """A server that begins with a copy of another's data, and goes on to where its settings say."""

    def __init__(self, copy: Path, settings: Mapping[str, str]) -> None:
        super().__init__(settings=settings)
        self._copy = copy

    def _make_data(self) -> None:
        self._run("/bin/sh", "-c", f"cp -R {self._copy}/. {self._data} && touch {self._data}/recovery.signal")
        self._run("/bin/chmod", "700", str(self._data))


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
