"""Whichever of the hosts in DATABASE_URL takes writes is used, and no other; connections that are old are renewed."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError
from tests.servers.postgres import PostgresServer, Standby

from textllm_adapters.postgres import connections
from textllm_adapters.postgres.engine import PostgresEngine, open_engine
from textllm_adapters.postgres.hosts import hosts_of, wanted_of
from textllm_adapters.postgres.lanes import LANES, Statement
from textllm_adapters.settings import load_settings
from textllm_adapters.sql import migrations
from textllm_adapters.sql.health_probe import SqlHealthProbe
from textllm_adapters.testing.books import reservation, settlement
from textllm_adapters.wiring import database_revision, upgrade_database
from textllm_adapters.wiring.storage import ledger_of
from textllm_core.errors import ConfigurationError, StorageUnavailableError

BACKEND = Statement("SELECT pg_backend_pid(), :user::text")
SLEEP = Statement("SELECT pg_sleep(60)::text, :user::text")
ASLEEP = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
ITS_END = Statement("SELECT pg_terminate_backend(pg_backend_pid()), :user::text")


@pytest.fixture
def pair() -> Iterator[tuple[PostgresServer, Standby]]:
    """A server, and the standby that each of its commits waits for."""
    with ExitStack() as stack:
        primary = stack.enter_context(PostgresServer(settings={"synchronous_standby_names": "standby"}))
        yield primary, stack.enter_context(Standby(primary))


async def test_after_a_failover_the_other_host_is_used_and_has_all_that_was_promised(
    pair: tuple[PostgresServer, Standby], tmp_path: Path
) -> None:
    primary, standby = pair
    name = make_url(primary.create_database()).database
    url = f"postgresql://textllm@/{name}?host={standby.folder},{primary.folder}"  # the standby first
    settings = load_settings(environ={"DATABASE_URL": url}, cwd=tmp_path)
    await upgrade_database(settings)
    assert await database_revision(settings) == (migrations.head_revision(), migrations.head_revision())
    engine = open_engine(settings.database)
    ledger, probe = ledger_of(engine), SqlHealthProbe(engine)
    holds = await asyncio.gather(*[ledger.reserve(reservation(user_id=f"user {n}")) for n in range(20)])
    assert await probe.check() is None

    await asyncio.to_thread(primary.stop_now)
    for _ in range(2):
        with pytest.raises(StorageUnavailableError):
            await ledger.settle(holds[0], settlement())
        assert "25006" in (await probe.check() or "")

    await asyncio.to_thread(standby.promote)
    assert None not in await asyncio.gather(*[ledger.settle(hold, settlement()) for hold in holds])
    assert [await ledger.entry("tenant", hold.response_id) is None for hold in holds] == [False] * len(holds)
    assert await probe.check() is None
    await engine.dispose()


async def test_a_host_that_is_silent_keeps_nobody_from_the_next(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_TIMEOUT_OF_ONE_S", 0.2)
    url = make_url(postgres_url)
    engine = open_engine(f"postgresql://textllm@/{url.database}?host={tmp_path},{url.query['host']}")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / ".s.PGSQL.5432"))
        silent.listen()
        await ledger_of(engine).reserve(reservation())
        assert await SqlHealthProbe(engine).check() is None
    await engine.dispose()


async def test_a_lost_connection_takes_all_that_were_opened_before_it_with_it(postgres_engine: PostgresEngine) -> None:
    before = await _backends(postgres_engine)
    with pytest.raises(StorageUnavailableError):
        await postgres_engine.lanes.ask(ITS_END, "tenant", {"user": "any"})
    by_lane = await _backends(postgres_engine)
    assert not set(before) & set(by_lane)
    async with postgres_engine.connect() as connection:
        with pytest.raises(DBAPIError):
            await connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    assert not set(by_lane) & set(await _backends(postgres_engine))


async def test_what_is_not_answered_in_time_is_ended_at_the_server(
    postgres_engine: PostgresEngine, postgres_url: str
) -> None:
    impatient = open_engine(postgres_url, command_timeout_s=0.2)
    with pytest.raises(StorageUnavailableError):
        await impatient.lanes.ask(SLEEP, "tenant", {"user": "any"})
    await impatient.lanes.ask(BACKEND, "tenant", {"user": "any"})  # by the same lane, which has another connection now
    async with postgres_engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        async with asyncio.timeout(30):
            while (await connection.execute(text(ASLEEP))).scalar_one():  # noqa: ASYNC110 - the server is waited for
                await asyncio.sleep(0.01)
    await impatient.dispose()


async def _backends(engine: PostgresEngine) -> list[int]:
    """Who carries out what is asked now: one for each lane, and for one connection of the pool."""
    asked = [engine.lanes.ask(BACKEND, f"tenant {n}", {"user": "any"}) for n in range(LANES)]
    async with engine.connect() as connection:
        own = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
    return [own, *[row[0] for row in await asyncio.gather(*asked)]]


@pytest.fixture
async def short_lived_engine(postgres_url: str) -> AsyncIterator[PostgresEngine]:
    engine = open_engine(postgres_url, lifetime_s=0)
    yield engine
    await engine.dispose()


async def test_a_connection_is_renewed_once_it_is_old_enough(
    postgres_engine: PostgresEngine, short_lived_engine: PostgresEngine
) -> None:
    for engine, is_kept in ((postgres_engine, True), (short_lived_engine, False)):
        first, second = sorted(await _backends(engine)), sorted(await _backends(engine))
        assert (first == second) is is_kept
        assert bool(set(first) & set(second)) is is_kept


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://u:p@one/d", [{}]),
        ("postgresql:///d?host=/run/one", [{}]),
        ("postgresql:///d", [{}]),
        ("postgresql://u:p@one,two:5433/d", [{"host": "one", "port": 5432}, {"host": "two", "port": 5433}]),
        ("postgresql://[::1]:5433,[::2]/d", [{"host": "::1", "port": 5433}, {"host": "::2", "port": 5432}]),
        ("postgresql://%2Frun,two/d", [{"host": "/run", "port": 5432}, {"host": "two", "port": 5432}]),
        ("postgresql:///d?host=/run,two&port=5433", [{"host": "/run", "port": 5433}, {"host": "two", "port": 5433}]),
        ("postgresql:///d?host=one,two&port=1,2", [{"host": "one", "port": 1}, {"host": "two", "port": 2}]),
    ],
)
def test_the_hosts_of_a_url_are_those_that_libpq_reads(url: str, hosts: list[object]) -> None:
    assert hosts_of(url) == hosts


def test_a_server_must_take_writes_unless_the_url_says_otherwise() -> None:
    assert wanted_of("postgresql://one,two/d") == "read-write"
    assert wanted_of("postgresql://one,two/d?target_session_attrs=primary") == "primary"


async def test_hosts_and_ports_that_do_not_fit_together_are_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        await migrations.current_revision(open_engine("postgresql:///d?host=a,b,c&port=1,2"))
