"""A database that does not answer is StorageUnavailableError, and soon; one that is back is used again."""

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import stat
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from tests.conftest import run_migrations
from tests.servers.postgres import PostgresServer

from textllm_adapters.postgres.engine import PostgresEngine
from textllm_adapters.postgres.engine import open_engine as open_postgres_engine
from textllm_adapters.postgres.lanes import LANES, Statement
from textllm_adapters.postgres.rate_limiter import PostgresRateLimiter
from textllm_adapters.sql import migrations
from textllm_adapters.sql.conversation_repository import SqlConversationRepository
from textllm_adapters.sql.health_probe import SqlHealthProbe
from textllm_adapters.sqlite.engine import open_engine as open_sqlite_engine
from textllm_adapters.testing.books import empty_conversation, reservation, settlement
from textllm_adapters.wiring.storage import ledger_of
from textllm_core.errors import ConfigurationError, StorageUnavailableError


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[PostgresServer, str]]:
    """A server of these tests alone, and a database with all tables, to be copied."""
    with PostgresServer() as server:
        run_migrations(open_postgres_engine(tables := server.create_database()))
        yield server, tables


@pytest.fixture
def own_server(cluster: tuple[PostgresServer, str]) -> Iterator[PostgresServer]:
    """It, to be stopped at will."""
    yield cluster[0]
    cluster[0].start()


@pytest.fixture
async def own_engine(own_server: PostgresServer, cluster: tuple[PostgresServer, str]) -> AsyncIterator[PostgresEngine]:
    database = own_server.create_database(template=cluster[1])
    engine = open_postgres_engine(database, command_timeout_s=1, pool_timeout_s=2)
    yield engine
    await engine.dispose()


async def test_a_postgres_that_went_down_and_came_back_is_used_again(
    own_server: PostgresServer, own_engine: PostgresEngine
) -> None:
    ledger = ledger_of(own_engine)
    holds = await asyncio.gather(*[ledger.reserve(reservation()) for _ in range(5)])  # five connections in the pool
    await asyncio.to_thread(own_server.stop_now)
    with pytest.raises(StorageUnavailableError):
        await ledger.settle(holds[0], settlement())
    with pytest.raises(StorageUnavailableError):
        await ledger.entries("tenant", "user")
    with pytest.raises(StorageUnavailableError):
        await PostgresRateLimiter(own_engine).take("tenant", "user", per_minute=1)
    with pytest.raises(StorageUnavailableError):
        await migrations.current_revision(own_engine)
    await asyncio.to_thread(own_server.start)
    settled = await asyncio.gather(*[ledger.settle(hold, settlement()) for hold in holds])
    assert None not in settled


async def test_a_restart_between_two_calls_goes_unnoticed(
    own_server: PostgresServer, own_engine: PostgresEngine
) -> None:
    ledger = ledger_of(own_engine)
    hold = await ledger.reserve(reservation())
    await asyncio.to_thread(own_server.stop)
    await asyncio.to_thread(own_server.start)
    assert await ledger.settle(hold, settlement()) is not None


async def test_a_postgres_that_is_silent_is_given_up(own_engine: PostgresEngine) -> None:
    ledger = ledger_of(own_engine)
    hold = await ledger.reserve(reservation())
    async with own_engine.connect() as connection:
        backends = (
            await connection.execute(text("SELECT pid FROM pg_stat_activity WHERE datname = current_database()"))
        ).scalars()
    pids = list(backends)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(StorageUnavailableError):
            async with asyncio.timeout(30):
                await ledger.settle(hold, settlement())
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    assert await ledger.entry("tenant", hold.response_id) is None
    assert await ledger.settle(hold, settlement()) is not None


async def test_a_connection_that_is_killed_at_work_is_an_outage_and_nothing_happened(
    own_engine: PostgresEngine,
) -> None:
    ledger = ledger_of(own_engine)
    hold = await ledger.reserve(reservation())
    kill_waiting = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    async with own_engine.begin() as blocker:
        await blocker.execute(text("LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE"))
        settling = asyncio.create_task(ledger.settle(hold, settlement()))
        async with own_engine.execution_options(isolation_level="AUTOCOMMIT").connect() as killer:
            while not settling.done():
                await killer.execute(kill_waiting)
                await asyncio.sleep(0.01)
        with pytest.raises(StorageUnavailableError):
            await settling
    assert await ledger.settle(hold, settlement()) is not None


async def test_sessions_that_became_read_only_are_left_after_one_refusal(
    postgres_engine: PostgresEngine, caplog: pytest.LogCaptureFixture
) -> None:
    ledger, probe = ledger_of(postgres_engine), SqlHealthProbe(postgres_engine)
    await _make_read_only(postgres_engine, sessions=5)
    with pytest.raises(StorageUnavailableError, match="database"):
        await ledger.reserve(reservation())
    assert "SQLSTATE 25006" in caplog.text
    await asyncio.gather(*[ledger.reserve(reservation()) for _ in range(5)])  # by new sessions, all of them
    assert await probe.check() is None


async def test_readiness_sees_that_nothing_can_be_written_and_finds_the_way_back(
    postgres_engine: PostgresEngine,
) -> None:
    probe = SqlHealthProbe(postgres_engine)
    await _make_read_only(postgres_engine, sessions=5)
    assert "25006" in (await probe.check() or "")
    assert await probe.check() is None
    await ledger_of(postgres_engine).reserve(reservation())


async def test_a_postgres_that_stays_read_only_stays_an_outage_and_never_a_defect(
    postgres_engine: PostgresEngine, postgres_url: str
) -> None:
    probe, ledger = SqlHealthProbe(postgres_engine), ledger_of(postgres_engine)
    await _set_for_new_sessions(postgres_url, "default_transaction_read_only = on")
    for _ in range(2):
        assert "25006" in (await probe.check() or "")
        with pytest.raises(StorageUnavailableError):
            await ledger.reserve(reservation())
    await _set_for_new_sessions(postgres_url, "default_transaction_read_only = off")
    await ledger.reserve(reservation())


async def test_a_postgres_that_takes_no_more_connections_is_an_outage(
    postgres_engine: PostgresEngine, postgres_url: str
) -> None:
    name = make_url(postgres_url).database
    async with _outside(postgres_engine) as connection:
        await connection.execute(text(f'ALTER DATABASE "{name}" CONNECTION LIMIT 0'))
        other = open_postgres_engine(postgres_url)
        with pytest.raises(StorageUnavailableError):
            await ledger_of(other).reserve(reservation())
        await connection.execute(text(f'ALTER DATABASE "{name}" CONNECTION LIMIT -1'))
    await ledger_of(other).reserve(reservation())
    await other.dispose()


def _outside(engine: AsyncEngine) -> AsyncConnection:
    return engine.execution_options(isolation_level="AUTOCOMMIT").connect()


READ_ONLY = "SET default_transaction_read_only = on"
READ_ONLY_LANE = Statement("SELECT set_config('default_transaction_read_only', 'on', false) WHERE :user::text <> ''")


async def _make_read_only(engine: PostgresEngine, *, sessions: int) -> None:
    """As a failover behind the address does: the open sessions refuse to write from now on, new ones do not."""
    await asyncio.gather(*[engine.lanes.ask(READ_ONLY_LANE, f"tenant {n}", {"user": "any"}) for n in range(LANES)])
    async with AsyncExitStack() as stack:
        for connection in [await stack.enter_async_context(_outside(engine)) for _ in range(sessions)]:
            await connection.execute(text(READ_ONLY))


async def _set_for_new_sessions(url: str, setting: str) -> None:
    engine = open_postgres_engine(f"{url}&target_session_attrs=any")
    async with _outside(engine) as connection:
        await connection.execute(text("SET default_transaction_read_only = off"))
        await connection.execute(text(f'ALTER DATABASE "{make_url(url).database}" SET {setting}'))
    await engine.dispose()


async def test_a_full_pool_is_an_outage(own_engine: PostgresEngine) -> None:
    ledger = ledger_of(own_engine)
    connections = [await own_engine.connect() for _ in range(20 - LANES)]
    with pytest.raises(StorageUnavailableError):
        await ledger.entries("tenant", "user")
    await ledger.reserve(reservation())  # what every turn asks has its own
    for connection in connections:
        await connection.close()
    assert await ledger.entries("tenant", "user") == []


async def test_a_sqlite_file_that_another_process_writes_for_too_long_is_an_outage(
    sqlite_engine: AsyncEngine, sqlite_url: str
) -> None:
    engine = open_sqlite_engine(sqlite_url, busy_timeout_s=0.01)
    ledger, repository = ledger_of(engine), SqlConversationRepository(engine)
    async with sqlite_engine.begin():
        with pytest.raises(StorageUnavailableError):
            await ledger.reserve(reservation())
        with pytest.raises(StorageUnavailableError):
            await repository.add("tenant", empty_conversation("Hello"), keeps_messages=True)
    await ledger.reserve(reservation())
    await engine.dispose()


def test_work_on_sqlite_that_was_cancelled_outlives_neither_its_engine_nor_the_loop(sqlite_url: str) -> None:
    async def cancelled(work: str, other: sqlite3.Connection) -> None:
        engine = open_sqlite_engine(sqlite_url, busy_timeout_s=0.2)
        if work == "writing":
            async with engine.connect():
                pass
            other.execute("BEGIN IMMEDIATE")
        begun = asyncio.create_task(_begin(engine))
        await asyncio.sleep(0.05 if work == "writing" else 0)
        begun.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await begun
        asyncio.get_running_loop().call_later(0.3, other.rollback)
        await engine.dispose()

    with contextlib.closing(sqlite3.connect(sqlite_url.partition("///")[2])) as other:
        for work in ("writing", "connecting"):
            before = threading.active_count()
            asyncio.run(cancelled(work, other))  # a thread that complains fails the test
            assert threading.active_count() == before


async def _begin(engine: AsyncEngine) -> None:
    async with engine.begin():
        pass


async def test_an_error_shows_no_parameters(sqlite_engine: AsyncEngine, postgres_engine: PostgresEngine) -> None:
    for engine in (sqlite_engine, postgres_engine):
        async with engine.connect() as connection:
            with pytest.raises(DBAPIError) as failure:
                await connection.execute(text("SELECT * FROM nothing WHERE x = :x"), {"x": "canary"})
        assert "canary" not in str(failure.value)


def test_a_sqlite_file_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    open_sqlite_engine(f"sqlite:///{tmp_path}/new/folder/textllm.db")
    path = tmp_path / "new" / "folder" / "textllm.db"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_folder_is_no_sqlite_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is a directory"):
        open_sqlite_engine(f"sqlite:///{tmp_path}")


async def test_what_is_no_sqlite_file_is_an_outage_that_the_log_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await asyncio.to_thread((tmp_path / "textllm.db").write_bytes, b"no database" * 500)
    engine = open_sqlite_engine(f"sqlite:///{tmp_path}/textllm.db")
    with pytest.raises(StorageUnavailableError):
        await migrations.upgrade(engine)
    await engine.dispose()
    assert "SQLITE_NOTADB" in caplog.text


async def test_a_second_engine_takes_no_locks_away_from_the_first(sqlite_engine: AsyncEngine, sqlite_url: str) -> None:
    ledger, file = ledger_of(sqlite_engine), sqlite_url.partition("///")[2]
    await ledger.reserve(reservation())
    await open_sqlite_engine(sqlite_url).dispose()
    for count in (1, 2):  # who closes last removes the log: if it thinks so wrongly, what is written next is lost
        command = f"import sqlite3; print(*sqlite3.connect({file!r}).execute('SELECT count(*) FROM holds').fetchone())"
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", command, stdout=asyncio.subprocess.PIPE)
        assert (await process.communicate())[0].split() == [str(count).encode()]
        await ledger.reserve(reservation())


async def test_a_sqlite_file_that_is_damaged_under_way_is_an_outage(
    sqlite_engine: AsyncEngine, sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = ledger_of(sqlite_engine)
    await ledger.reserve(reservation())
    for suffix in ("", "-wal"):
        await asyncio.to_thread(_damage, Path(sqlite_url.partition("///")[2] + suffix))
    with pytest.raises(StorageUnavailableError):
        await ledger.entries("tenant", "user")
    assert "SQLITE_NOTADB" in caplog.text or "SQLITE_CORRUPT" in caplog.text


def _damage(file: Path) -> None:
    file.write_bytes(b"x" * file.stat().st_size)


@pytest.mark.parametrize("instead", ["nothing", "an older copy"])
async def test_a_sqlite_file_that_is_moved_under_way_is_an_outage_until_it_is_back(
    sqlite_engine: AsyncEngine, sqlite_url: str, caplog: pytest.LogCaptureFixture, instead: str
) -> None:
    ledger, probe, file = ledger_of(sqlite_engine), SqlHealthProbe(sqlite_engine), sqlite_url.partition("///")[2]
    hold = await ledger.reserve(reservation())
    older = await asyncio.to_thread(shutil.copy, file, f"{file}.older")
    await asyncio.to_thread(os.rename, file, f"{file}.moved")
    if instead != "nothing":
        await asyncio.to_thread(os.rename, older, file)
    for work in (ledger.settle(hold, settlement()), ledger.entries("tenant", "user")):
        with pytest.raises(StorageUnavailableError):
            await work
    assert "moved" in (await probe.check() or "")
    assert "SQLITE_READONLY_DBMOVED" in caplog.text
    assert await asyncio.to_thread(os.path.exists, file) == (instead != "nothing")  # no empty one was made
    await asyncio.to_thread(os.replace, f"{file}.moved", file)
    assert await probe.check() is None
    assert await ledger.settle(hold, settlement()) is not None


async def test_a_full_disk_under_sqlite_is_no_health(
    sqlite_engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = SqlHealthProbe(sqlite_engine)
    assert await probe.check() is None
    full = shutil.disk_usage("/")._replace(free=1024)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    assert "full" in (await probe.check() or "")


def test_a_sqlite_file_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"textllm\.db"):
        open_sqlite_engine(f"sqlite:///{tmp_path}/file/textllm.db")


@pytest.mark.parametrize(
    "change", [("/test_", "/nothing_"), ("textllm@", "stranger@"), ("?host=", "?sslmode=canary&host=")]
)
async def test_a_url_that_postgres_refuses_is_a_configuration_error(postgres_url: str, change: tuple[str, str]) -> None:
    engine = open_postgres_engine(postgres_url.replace(*change))
    with pytest.raises(ConfigurationError) as refusal:
        await migrations.current_revision(engine)
    assert "canary" not in str(refusal.value)
    await engine.dispose()
