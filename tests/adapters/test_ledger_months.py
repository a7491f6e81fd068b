"""The months of the ledger in PostgreSQL: made ahead, dropped as a whole, and in nobody's way."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime

import pytest
from msgspec.structs import replace
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.contracts.conftest import sql_storage
from tests.servers.postgres import PostgresServer

from textllm_adapters.postgres.engine import PostgresEngine, open_engine
from textllm_adapters.postgres.ledger_upkeep import PostgresLedgerUpkeep
from textllm_adapters.sql import migrations
from textllm_adapters.sql.audit import SqlAudit
from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.testing.books import NOON, reservation, settlement
from textllm_core.ids import first_response_id, new_id, new_response_id
from textllm_core.records.sessions import day_of

JANUARY, FEBRUARY, MAY = (datetime(2101, month, 1, tzinfo=UTC) for month in (1, 2, 5))


async def turn(engine: AsyncEngine, at: datetime, response_id: str | None = None) -> str:
    """A settled turn of that moment; its id."""
    ledger, asked = sql_storage(engine).ledger, reservation(at=at, limit="1000000")
    asked = replace(asked, response_id=response_id or asked.response_id)
    await ledger.settle(await ledger.reserve(asked), settlement(at=at))
    return asked.response_id


async def asked(engine: AsyncEngine, question: str) -> list[str]:
    async with Database(engine).transaction(EVERYONE) as connection:
        return list((await connection.execute(text(question))).scalars())


async def places(engine: AsyncEngine) -> list[str]:
    """The tables of all entries."""
    return await asked(engine, "SELECT tableoid::regclass::text FROM ledger ORDER BY created_at, 1")


async def months(engine: AsyncEngine) -> list[str]:
    of_ledger = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'ledger'::regclass ORDER BY 1"
    return [name for name in await asked(engine, of_ledger) if name.startswith("ledger_21")]


async def test_months_are_ready_before_they_begin_and_each_entry_is_in_its_own(postgres_engine: PostgresEngine) -> None:
    upkeep = PostgresLedgerUpkeep(postgres_engine)
    await upkeep.prepare(at=JANUARY)
    assert await months(postgres_engine) == ["ledger_2101_01", "ledger_2101_02", "ledger_2101_03", "ledger_2101_04"]
    await upkeep.prepare(at=FEBRUARY)
    assert (await months(postgres_engine))[-2:] == ["ledger_2101_04", "ledger_2101_05"]
    for at in (JANUARY, FEBRUARY, MAY):
        await turn(postgres_engine, at)
    assert await places(postgres_engine) == ["ledger_2101_01", "ledger_2101_02", "ledger_2101_05"]
    assert await upkeep.forget_entries(before=day_of(FEBRUARY), limit=1) == 1
    assert (await months(postgres_engine))[0] == "ledger_2101_02"


async def test_no_turn_fails_in_a_month_that_nobody_has_prepared_and_it_stays_where_it_is(
    postgres_engine: PostgresEngine,
) -> None:
    upkeep = PostgresLedgerUpkeep(postgres_engine)
    early = await turn(postgres_engine, JANUARY)
    await upkeep.prepare(at=JANUARY)
    assert await months(postgres_engine) == ["ledger_2101_02", "ledger_2101_03", "ledger_2101_04"]
    await turn(postgres_engine, FEBRUARY)
    assert await places(postgres_engine) == ["ledger_default", "ledger_2101_02"]
    assert await sql_storage(postgres_engine).ledger.entry("tenant", early) is not None
    assert await upkeep.forget_entries(before=day_of(FEBRUARY), limit=9) == 1


async def test_whoever_reads_the_ledger_for_long_keeps_its_months_and_no_turn_waits_for_that(
    postgres_engine: PostgresEngine,
) -> None:
    upkeep = PostgresLedgerUpkeep(postgres_engine)
    await upkeep.prepare(at=JANUARY)
    await turn(postgres_engine, JANUARY)
    turns = 0
    async with postgres_engine.connect() as reading:
        await reading.execute(text("SELECT count(*) FROM ledger"))
        forgetting = asyncio.create_task(upkeep.forget_entries(before=day_of(FEBRUARY), limit=9))
        while not forgetting.done():  # which gives up, and does not stand in the way until the reader is done
            await turn(postgres_engine, FEBRUARY)
            turns += 1
        assert await forgetting == 0
        await reading.rollback()
    assert turns > 1
    assert await upkeep.forget_entries(before=day_of(FEBRUARY), limit=9) == 1


async def test_what_is_there_becomes_the_part_before_all_months_also_what_newer_versions_had_written(
    postgres_engine: PostgresEngine,
) -> None:
    made = (NOON, new_id("resp")), (FEBRUARY, None), (JANUARY, None)
    ids = [await turn(postgres_engine, at, id_) for at, id_ in made]
    engine = postgres_engine
    await migrations.downgrade(engine, "0023")
    assert await places(engine) == ["ledger"] * 3
    await migrations.upgrade(engine)
    assert await places(engine) == ["ledger_before"] * 3
    assert (await months(engine))[0] == "ledger_2101_03"
    late = datetime(2101, 3, 1, tzinfo=UTC)
    for at, response_id in ((late, None), (late, f"resp_{'f' * 24}")):  # workers of the version before make such ids
        ids.append(await turn(engine, at, response_id))
    assert await places(engine) == ["ledger_before"] * 3 + ["ledger_2101_03", "ledger_before"]
    assert {entry.response_id for entry in await sql_storage(engine).ledger.entries("tenant", "user")} == set(ids)
    for before, left in ((date(2101, 3, 1), 5), (date(2101, 4, 1), 0)):
        await PostgresLedgerUpkeep(engine).forget_entries(before=before, limit=9)
        assert len(await places(engine)) == left  # that part goes once all of it is old
    assert [drift async for drift in SqlAudit(engine).drifts()] == []


async def test_an_upgrade_that_was_cut_short_begins_anew(postgres_engine: PostgresEngine) -> None:
    await turn(postgres_engine, NOON)
    await migrations.downgrade(postgres_engine, "0023")
    async with postgres_engine.begin() as connection:
        await connection.execute(text("ALTER TABLE ledger ADD CONSTRAINT ck_ledger_before CHECK (response_id < 'x')"))
    await migrations.upgrade(postgres_engine)
    assert await places(postgres_engine) == ["ledger_before"]


@pytest.fixture
async def readers() -> AsyncIterator[tuple[PostgresEngine, PostgresEngine]]:
    """Engines of one database: for the role that owns it, and for one that may read and write."""
    with PostgresServer() as server:
        url = server.create_database()
        superuser = open_engine(make_url(server.superuser_url).set(database=make_url(url).database).render_as_string())
        owner = open_engine(url)
        await migrations.upgrade(owner, "0023")
        async with superuser.begin() as connection:
            await connection.execute(text("CREATE ROLE writer LOGIN PASSWORD 'secret'"))
        async with owner.begin() as connection:
            await connection.execute(text("GRANT ALL ON ALL TABLES IN SCHEMA public TO writer"))
        await migrations.upgrade(owner)
        writer = open_engine(make_url(url).set(username="writer", password="secret").render_as_string(False))
        yield owner, writer
        for engine in (superuser, owner, writer):
            await engine.dispose()


async def test_a_role_that_does_not_own_the_ledger_goes_on_writing_and_is_told_who_shall_make_months(
    readers: tuple[PostgresEngine, PostgresEngine], caplog: pytest.LogCaptureFixture
) -> None:
    owner, writer = readers
    await PostgresLedgerUpkeep(writer).prepare(at=JANUARY)
    assert "run `textllm jobs run` each day as the role that does" in caplog.text
    await turn(writer, JANUARY)
    assert await places(writer) == ["ledger_default"]
    assert await PostgresLedgerUpkeep(writer).forget_entries(before=day_of(FEBRUARY), limit=9) == 0
    await PostgresLedgerUpkeep(owner).forget_entries(before=day_of(FEBRUARY), limit=9)
    assert await places(owner) == []


def test_ids_are_in_the_order_of_time_and_after_all_that_say_none() -> None:
    ids = [f"resp_{'f' * 24}", first_response_id(date(2026, 1, 1)), *map(new_response_id, (JANUARY, FEBRUARY, MAY))]
    assert ids == sorted(ids)
    assert first_response_id(day_of(MAY)) <= ids[-1] < first_response_id(date(2101, 5, 2))
