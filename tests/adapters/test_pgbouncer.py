"""Through PgBouncer in transaction mode: no transaction relies on what another one left in a session."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import DBAPIError
from tests.adapters.test_row_security import OTHERS_BUCKET
from tests.servers.pgbouncer import PgBouncer, pgbouncer
from tests.servers.postgres import PostgresServer, RunningServer

from textllm_adapters.postgres.engine import PostgresEngine, open_engine
from textllm_adapters.postgres.lanes import Statement
from textllm_adapters.settings import load_settings
from textllm_adapters.sql import migrations
from textllm_adapters.sql.database import SETTING, Database
from textllm_adapters.sql.health_probe import SqlHealthProbe
from textllm_adapters.sql.tables import rate_buckets
from textllm_adapters.testing.books import reservation, settlement
from textllm_adapters.wiring import open_administration
from textllm_adapters.wiring.storage import ledger_of
from textllm_core.errors import StorageUnavailableError

pytestmark = pytest.mark.pgbouncer
TENANTS = ("one", "two", "it's \\ \0", "*")
SHOWN = Statement(f"SELECT current_setting('{SETTING}'), current_setting('lock_timeout'), :user::text")
OWNERS = Statement("SELECT array_agg(tenant_id ORDER BY tenant_id), :user::text FROM rate_buckets")
DIVIDE = Statement("SELECT 12 / :by::integer, :user::text")


@pytest.fixture(scope="module")
def one_session(postgres_server: RunningServer) -> Iterator[PgBouncer]:
    """A pooler with one session for all, so that each transaction has the one before it in its session."""
    if pgbouncer() is None:
        pytest.skip("needs PgBouncer 1.21 or newer in the PATH")
    with PgBouncer(postgres_server.url, sessions=1) as pooler:
        yield pooler


@pytest.fixture
async def engine(one_session: PgBouncer, postgres_url: str) -> AsyncIterator[PostgresEngine]:
    engine = open_engine(one_session.before(postgres_url))
    yield engine
    await engine.dispose()


async def test_tenants_in_one_session_see_and_write_their_own_rows_alone(engine: PostgresEngine) -> None:
    database, chance = Database(engine), random.Random(7)
    for tenant in ("one", "two"):
        row = {"tenant_id": tenant, "user_id": "user", "level": 0, "admitted": True, "updated_at": 0}
        async with database.transaction(tenant) as connection:
            await connection.execute(insert(rate_buckets), row)

    async def by_lane(tenant: str) -> list[str]:
        return list((await engine.lanes.ask(OWNERS, tenant, {"user": str(chance.random())}))[0])

    async def by_pool(tenant: str) -> list[str]:
        connecting = chance.choice([database.single, database.transaction])
        async with connecting(tenant) as connection:
            return sorted((await connection.execute(select(rate_buckets.c.tenant_id))).scalars())

    asked = [(chance.choice(["one", "two"]), chance.choice([by_lane, by_pool])) for _ in range(200)]
    found = await asyncio.gather(*[way(tenant) for tenant, way in asked])
    assert found == [[tenant] for tenant, _ in asked]
    assert await by_lane("*") == await by_pool("*") == ["one", "two"]
    with pytest.raises(DBAPIError, match="row-level security"):
        await engine.lanes.ask(OTHERS_BUCKET, "one", {"user": "user"})


async def test_nothing_of_a_transaction_stays_in_its_session(engine: PostgresEngine) -> None:
    for tenant in TENANTS:
        row = await engine.lanes.ask(SHOWN, tenant, {"user": "user"})
        assert tuple(row)[:2] == (tenant.replace("\0", "\ufffd"), "250ms")
        async with engine.connect() as connection:
            left = await connection.execute(
                text(f"SELECT current_setting('{SETTING}', true), current_setting('lock_timeout')")
            )
            assert tuple(left.one()) in {(None, "0"), ("", "0")}


async def test_what_fails_takes_nothing_with_it_and_leaves_no_transaction_open(engine: PostgresEngine) -> None:
    asked = [engine.lanes.ask(DIVIDE, "tenant", {"by": by, "user": str(by)}) for by in (0, 1, 2, 0, 3)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [answer[0] if not isinstance(answer, BaseException) else type(answer) for answer in answers] == [
        DBAPIError,
        12,
        6,
        DBAPIError,
        4,
    ]
    assert await SqlHealthProbe(engine).check() is None


async def test_the_tables_are_made_and_altered_through_it(
    pgbouncer_server: PgBouncer, empty_postgres_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = pgbouncer_server.before(empty_postgres_url)
    engine = open_engine(url)
    await asyncio.gather(*[migrations.upgrade(engine) for _ in range(3)])
    await migrations.downgrade(engine, "0005")
    await migrations.upgrade(engine)
    await engine.dispose()
    assert await _warnings_at_the_start(url, tmp_path, caplog) == []


async def test_a_pooler_that_keeps_no_prepared_statements_is_warned_of_at_the_start(
    postgres_server: RunningServer, postgres_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with PgBouncer(postgres_server.url, sessions=1, prepared=0) as pooler:
        (warning,) = await _warnings_at_the_start(pooler.before(postgres_url), tmp_path, caplog)
    assert "max_prepared_statements" in warning


async def test_a_server_that_went_down_behind_it_and_came_back_is_used_again() -> None:
    with PostgresServer() as server, PgBouncer(server.url, sessions=2) as pooler:
        engine = open_engine(pooler.before(server.create_database()), command_timeout_s=1)
        await migrations.upgrade(engine)
        ledger, probe = ledger_of(engine), SqlHealthProbe(engine)
        holds = await asyncio.gather(*[ledger.reserve(reservation(user_id=f"user {n}")) for n in range(5)])
        await asyncio.to_thread(server.stop_now)
        for _ in range(2):
            with pytest.raises(StorageUnavailableError):
                await ledger.settle(holds[0], settlement())
            with pytest.raises(StorageUnavailableError):
                await ledger.entries("tenant", "user 0")
            assert await probe.check() is not None
        await asyncio.to_thread(server.start)
        while await probe.check():  # noqa: ASYNC110 - the pooler is waited for
            await asyncio.sleep(0.1)
        assert None not in await asyncio.gather(*[ledger.settle(hold, settlement()) for hold in holds])
        await engine.dispose()


async def _warnings_at_the_start(url: str, folder: Path, caplog: pytest.LogCaptureFixture) -> list[str]:
    settings = load_settings(environ={"TEXTLLM_DATA_DIR": str(folder), "DATABASE_URL": url}, cwd=folder)
    async with open_administration(settings):
        return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
