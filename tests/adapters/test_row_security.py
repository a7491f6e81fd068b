"""PostgreSQL shows a connection the rows of its tenant alone, also to a statement that forgets to name the tenant."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import MetaData, Table, delete, func, insert, make_url, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.servers.postgres import PostgresServer

from textllm_adapters.postgres.engine import PostgresEngine, open_engine
from textllm_adapters.postgres.lanes import Statement
from textllm_adapters.postgres.ledger_upkeep import PostgresLedgerUpkeep
from textllm_adapters.settings import load_settings
from textllm_adapters.sql import (
    file_tables,  # noqa: F401 - which are some of the tables
    migrations,
    response_table,  # noqa: F401 - another one
)
from textllm_adapters.sql.database import EVERYONE, SETTING, Database, shared_tenant
from textllm_adapters.sql.tables import conversations, holds, ledger, metadata
from textllm_adapters.testing.books import NOON, PRICE, TODAY, reservation
from textllm_adapters.wiring import open_administration
from textllm_core.money import ZERO

BINDING = "row-level security"
OF_TYPE: dict[str, object] = {
    **dict.fromkeys(("Id", "Name", "PlainText", "String", "Words"), "x"),
    **dict.fromkeys(("BigInteger", "Integer"), 1),
    "Boolean": False,
    "Content": (),
    "Date": TODAY,
    "Labels": {},
    "Money": ZERO,
    "Tags": (),
    "UtcDateTime": NOON,
}
HOLD = reservation().granted(ZERO, session_id="x")
OF_RECORD: dict[str, object] = {
    "response_id": "resp_1",
    "events": [],
    "price": PRICE,
    "hold": HOLD,
    "message_ids": (),
    "said_before": (),
}

OTHERS_BUCKET = Statement(  # in which "ours" writes for "theirs"
    """
    WITH added AS (
        INSERT INTO rate_buckets (tenant_id, user_id, level, admitted, updated_at) VALUES ('theirs', :user, 0, true, 0)
        RETURNING 1
    )
    SELECT count(*) FROM added
    """
)

# These are about the service, and say nothing of any tenant.
TABLES = [table for table in metadata.sorted_tables if table.name not in ("jobs", "horizons")]
tables = pytest.mark.parametrize("table", TABLES, ids=str)


def row(table: Table, tenant_id: str) -> dict[str, object]:
    """A row with a value wherever there must be one."""
    own = {"tenant_id": tenant_id, "digest": tenant_id.encode()} | OF_RECORD
    needed = [column for column in table.c if not column.nullable]
    return {
        column.name: own[column.name] if column.name in own else OF_TYPE[type(column.type).__name__]
        for column in needed
    }


@pytest.fixture
async def database(postgres_engine: AsyncEngine) -> Database:
    """With a row of `ours` and one of `theirs` in each table."""
    database = Database(postgres_engine)
    for tenant_id in ("ours", "theirs"):
        async with database.transaction(tenant_id) as connection:
            for table in TABLES:
                await connection.execute(insert(table), row(table, tenant_id))
    return database


async def seen(database: Database, tenant_id: str, table: Table = conversations) -> list[str]:
    """Whose rows a statement finds that names nobody."""
    async with database.single(tenant_id) as connection:
        return sorted((await connection.execute(select(table.c.tenant_id))).scalars())


@tables
async def test_a_statement_that_names_no_tenant_finds_the_rows_of_its_own(database: Database, table: Table) -> None:
    assert await seen(database, "ours", table) == ["ours"]
    assert await seen(database, "theirs", table) == ["theirs"]
    assert await seen(database, "other", table) == []
    async with database.transaction("ours") as connection:
        assert (await connection.execute(update(table).values(tenant_id=table.c.tenant_id))).rowcount == 1
    for dependent in reversed(TABLES):
        async with database.transaction("ours") as connection:
            await connection.execute(delete(dependent))
    assert await seen(database, EVERYONE, table) == ["theirs"]


@tables
async def test_a_job_for_everyone_finds_all_rows(database: Database, table: Table) -> None:
    assert await seen(database, EVERYONE, table) == ["ours", "theirs"]


@tables
async def test_no_row_can_be_written_for_another_tenant(database: Database, table: Table) -> None:
    with pytest.raises(DBAPIError, match=BINDING):
        async with database.transaction("ours") as connection:
            await connection.execute(insert(table), row(table, "other"))
    with pytest.raises(DBAPIError, match=BINDING):
        async with database.transaction("ours") as connection:
            await connection.execute(update(table).values(tenant_id="other"))
    assert await seen(database, EVERYONE, table) == ["ours", "theirs"]


async def test_a_statement_that_writes_for_another_tenant_is_a_defect_of_ours_and_no_right_that_the_role_lacks(
    postgres_engine: PostgresEngine,
) -> None:
    with pytest.raises(DBAPIError, match=BINDING):
        await postgres_engine.lanes.ask(OTHERS_BUCKET, "ours", {"user": "user"})


@tables
async def test_a_connection_that_was_not_told_whose_rows_to_show_shows_and_takes_none(
    database: Database, postgres_url: str, table: Table
) -> None:
    stranger = open_engine(postgres_url)
    try:
        for settled in (None, ""):
            async with stranger.connect() as connection:
                if settled is not None:
                    await connection.execute(select(func.set_config(SETTING, settled, False)))
                assert (await connection.execute(select(table))).all() == []
                with pytest.raises(DBAPIError, match=BINDING):
                    await connection.execute(insert(table), row(table, "ours"))
    finally:
        await stranger.dispose()


async def test_a_part_of_the_ledger_that_is_asked_by_its_own_name_is_bound_as_well(
    database: Database, postgres_engine: PostgresEngine
) -> None:
    await PostgresLedgerUpkeep(postgres_engine).prepare(at=datetime.now(UTC) + timedelta(days=100))
    async with database.transaction(EVERYONE) as connection:
        of_ledger = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'ledger'::regclass"
        names = (await connection.execute(text(of_ledger))).scalars().all()
    assert len(names) > 5
    for name in names:
        async with database.transaction("ours") as connection:
            whose = (await connection.execute(text(f"SELECT tenant_id FROM {name}"))).scalars().all()
            assert set(whose) <= {"ours"}
        with pytest.raises(DBAPIError, match=BINDING):
            async with database.transaction("ours") as connection:
                await connection.execute(insert(ledger.to_metadata(MetaData(), name=name)), row(ledger, "theirs"))


async def _fails(database: Database) -> None:
    async def work() -> None:
        async with database.transaction("theirs") as connection:
            await connection.execute(select(conversations.c.id))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await work()


async def _is_refused(database: Database) -> None:
    with pytest.raises(DBAPIError):
        async with database.transaction("theirs") as connection:
            await connection.execute(text("SELECT 1 / 0"))


async def _hides_a_refusal(database: Database) -> None:
    async with database.transaction("theirs") as connection:
        with pytest.raises(DBAPIError):
            await connection.execute(text("SELECT 1 / 0"))


async def _is_cancelled(database: Database) -> None:
    async def work() -> None:
        async with database.transaction("theirs") as connection:
            await connection.execute(text("SELECT pg_sleep(60)"))

    for delay_s in (0, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.02):
        working = asyncio.create_task(work())
        await asyncio.sleep(delay_s)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert await seen(database, "ours") == ["ours"]


@pytest.mark.parametrize("ends", [_fails, _is_refused, _hides_a_refusal, _is_cancelled])
async def test_a_connection_shows_what_it_is_asked_to_however_its_last_transaction_ended(
    database: Database, ends: Callable[[Database], Awaitable[None]]
) -> None:
    for before in ("ours", "theirs", EVERYONE):
        await seen(database, before)
        await ends(database)
        assert await seen(database, "theirs") == ["theirs"]
        assert await seen(database, "ours") == ["ours"]


async def test_tenants_that_share_few_connections_see_only_their_own_whatever_fails(database: Database) -> None:
    async def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(10):
            tenant_id, fate = chance.choice(["ours", "theirs"]), chance.random()
            connecting = database.single if fate < 0.3 else database.transaction
            try:
                async with asyncio.timeout(chance.random() * 0.02 if fate > 0.8 else None):
                    async with connecting(tenant_id) as connection:
                        found = await connection.execute(select(holds.c.tenant_id))
                        assert found.scalars().all() == [tenant_id]
                        if 0.5 < fate < 0.7:
                            await connection.execute(text("SELECT 1 / 0"))
                        elif fate > 0.9:
                            await connection.execute(text("SELECT pg_sleep(60)"))
            except (DBAPIError, TimeoutError):
                pass  # as it was to be

    await asyncio.gather(*[work(seed) for seed in range(40)])


async def test_the_step_locks_rows_that_are_there_and_can_be_taken_back(
    database: Database, postgres_engine: AsyncEngine
) -> None:
    await migrations.downgrade(postgres_engine, "0005")
    assert await seen(database, "ours") == ["ours", "theirs"]
    await migrations.upgrade(postgres_engine)
    assert await seen(database, "ours") == ["ours"]


def test_what_concerns_several_tenants_is_for_everyone() -> None:
    assert shared_tenant(["one", "one"]) == "one"
    assert shared_tenant(["one", "two"]) == EVERYONE
    assert shared_tenant([]) == EVERYONE


@pytest.fixture
async def as_superuser_and_owner() -> AsyncIterator[tuple[str, str]]:
    """URLs of one database for two roles."""
    with PostgresServer() as server:
        owner = server.create_database()
        engine = open_engine(owner)
        await migrations.upgrade(engine)
        await engine.dispose()
        superuser = make_url(server.superuser_url).set(database=make_url(owner).database)
        yield superuser.render_as_string(), owner


async def test_a_role_that_no_policy_binds_is_warned_of_at_the_start(
    as_superuser_and_owner: tuple[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for url, warnings in zip(as_superuser_and_owner, (1, 0), strict=True):
        caplog.clear()
        settings = load_settings(environ={"TEXTLLM_DATA_DIR": str(tmp_path), "DATABASE_URL": url}, cwd=tmp_path)
        async with open_administration(settings):
            told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert [BINDING in line for line in told] == [True] * warnings
