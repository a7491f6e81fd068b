"""A database that is not as it should be is an outage that names the database, and the log says what to do."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from tests.servers.postgres import RunningServer

from textllm_adapters.postgres.engine import PostgresEngine, open_engine
from textllm_adapters.postgres.ledger import PostgresLedger
from textllm_adapters.sql import migrations
from textllm_adapters.sql.conversation_repository import SqlConversationRepository
from textllm_adapters.sql.health_probe import SqlHealthProbe
from textllm_adapters.testing.books import empty_conversation, reservation, settlement
from textllm_adapters.wiring.storage import ledger_of
from textllm_core.errors import ConfigurationError, StorageUnavailableError
from textllm_core.problem_details import problem_of_error

# What is done to it, what the log then says to do, and what readiness says; None: it cannot know.
STATES: dict[str, tuple[str, str, str | None]] = {
    "no right to insert": (
        "REVOKE INSERT ON holds FROM CURRENT_USER",
        "(SQLSTATE 42501): the role in DATABASE_URL has not every right",
        "denies the role in DATABASE_URL a right on the table holds",
    ),
    "no right to delete": (
        "REVOKE DELETE ON conversations FROM CURRENT_USER",
        "",
        "denies the role in DATABASE_URL a right on the table conversations",
    ),
    "no table": (
        "DROP TABLE holds",
        "(SQLSTATE 42P01): its tables are not those of this version: see `textllm db check`",
        "lacks the table holds",
    ),
    "no column": (
        "ALTER TABLE holds DROP COLUMN cancel_asked",
        "(SQLSTATE 42703): its tables are not those of this version",
        "lacks a column of the table holds",
    ),
    "no unique index": (
        "ALTER TABLE rate_buckets DROP CONSTRAINT pk_rate_buckets",
        "(SQLSTATE 42P10): its tables are not those of this version",
        None,
    ),
}
# What a server says, as it says it.
SAID: dict[str, str] = {
    "53100": "its disk is full",
    "53200": "it has no memory left",
    "53300": "raise max_connections",
    "53400": "it has run out of something",
    "54000": "VACUUM",
    "55000": "pg_stat_activity",
    "57014": "told to end what took too long",
    "58030": "it cannot read or write its files",
    "0A000": "its tables were changed under way",
    "P0001": "a trigger or a function in the database",
    "XX001": "is damaged",
}
RAISING = """
    CREATE FUNCTION ail() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'canary' USING ERRCODE = '{}'; END $$
"""


@pytest.fixture
def own_url(postgres_server: RunningServer, migrated_postgres_url: str) -> Iterator[str]:
    """A database of this test alone, to be spoilt."""
    url = postgres_server.create_database(template=migrated_postgres_url)
    yield url
    postgres_server.drop_database(url)


@pytest.fixture
async def own_engine(own_url: str) -> AsyncIterator[PostgresEngine]:
    engine = open_engine(own_url)
    yield engine
    await engine.dispose()


async def outage(engine: PostgresEngine) -> StorageUnavailableError:
    """What a turn is told, its user's rate limit first; also where others come at the same moment."""
    ledger = PostgresLedger(engine)
    turns = [ledger.admit(reservation(), per_minute=9) for _ in range(3)]
    errors = await asyncio.gather(*turns, return_exceptions=True)
    assert [type(error) for error in errors] == [StorageUnavailableError] * 3
    error = errors[0]
    assert isinstance(error, StorageUnavailableError)
    assert len({id(error) for error in errors}) == 3
    assert "database" in str(error)
    return error


@pytest.mark.parametrize("state", STATES)
async def test_a_state_that_only_its_operator_can_mend_is_an_outage_and_no_defect(
    own_engine: PostgresEngine, caplog: pytest.LogCaptureFixture, state: str
) -> None:
    done, advice, unready = STATES[state]
    probe = SqlHealthProbe(own_engine)
    assert await probe.check() is None
    async with own_engine.begin() as connection:
        await connection.execute(text(done))
    if advice:
        error = await outage(own_engine)
        assert advice in caplog.text
        assert advice.partition(": ")[2] in str(problem_of_error(error)["detail"])  # at the command line
    said = await probe.check()
    assert (said or "").startswith("The database ") if unready else said is None
    assert (unready or "") in (said or "")


@pytest.mark.parametrize("sqlstate", SAID)
async def test_what_the_server_cannot_do_now_is_told_with_what_to_do(
    own_engine: PostgresEngine, caplog: pytest.LogCaptureFixture, sqlstate: str
) -> None:
    async with own_engine.begin() as connection:
        await connection.execute(text(RAISING.format(sqlstate)))
        await connection.execute(text("CREATE TRIGGER ail BEFORE INSERT ON holds EXECUTE FUNCTION ail()"))
    error = await outage(own_engine)
    assert f"(SQLSTATE {sqlstate}): " in caplog.text
    assert SAID[sqlstate] in caplog.text
    assert "canary" not in caplog.text + str(problem_of_error(error))


async def test_readiness_says_what_the_server_cannot_do_now(own_engine: PostgresEngine) -> None:
    async with own_engine.begin() as connection:
        await connection.execute(text(RAISING.format("53100")))
        await connection.execute(text("CREATE TRIGGER ail BEFORE UPDATE ON sessions EXECUTE FUNCTION ail()"))
    said = await SqlHealthProbe(own_engine).check()
    assert "SQLSTATE 53100" in (said or "")
    assert "its disk is full" in (said or "")


async def test_a_statement_that_is_wrong_stays_a_defect_of_ours(own_engine: PostgresEngine) -> None:
    async with own_engine.begin() as connection:
        await connection.execute(text("ALTER TABLE ledger ADD CONSTRAINT never CHECK (cost < 0)"))
    ledger = ledger_of(own_engine)
    hold = await ledger.reserve(reservation())
    with pytest.raises(DBAPIError, match="never"):
        await ledger.settle(hold, settlement())


def _outside(engine: AsyncEngine) -> AsyncConnection:
    return engine.execution_options(isolation_level="AUTOCOMMIT").connect()


async def test_a_database_that_goes_while_the_service_runs_is_an_outage_and_no_wrong_setting(
    own_engine: PostgresEngine, own_url: str, postgres_engine: PostgresEngine, caplog: pytest.LogCaptureFixture
) -> None:
    ledger, name = ledger_of(own_engine), make_url(own_url).database
    await ledger.reserve(reservation())
    await own_engine.dispose()
    async with _outside(postgres_engine) as elsewhere:
        await elsewhere.execute(text(f'ALTER DATABASE "{name}" RENAME TO "{name}_moved"'))
        await outage(own_engine)
        assert "(SQLSTATE 3D000): the database that DATABASE_URL names is there no more" in caplog.text
        fresh = open_engine(own_url)
        with pytest.raises(ConfigurationError, match="create it first"):
            await ledger_of(fresh).reserve(reservation())
        await elsewhere.execute(text(f'ALTER DATABASE "{name}_moved" RENAME TO "{name}"'))
    await ledger.reserve(reservation())
    await fresh.dispose()


async def test_a_database_that_does_not_keep_every_character_is_refused_at_the_start(
    postgres_engine: PostgresEngine, postgres_url: str
) -> None:
    name = f"{make_url(postgres_url).database}_latin1"
    url = make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
    engine = open_engine(url)
    async with _outside(postgres_engine) as connection:
        await connection.execute(
            text(f"CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
        )
        with pytest.raises(ConfigurationError, match=r"LATIN1 alone.*ENCODING 'UTF8'"):
            await migrations.current_revision(engine)
        await engine.dispose()
        await connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.mark.parametrize("done", ["DROP TABLE ledger", "ALTER TABLE ledger DROP COLUMN price_source"])
async def test_a_sqlite_file_without_a_table_or_a_column_is_an_outage(
    sqlite_engine: AsyncEngine, caplog: pytest.LogCaptureFixture, done: str
) -> None:
    ledger = ledger_of(sqlite_engine)
    hold = await ledger.reserve(reservation())
    async with sqlite_engine.begin() as connection:
        await connection.execute(text(done))
    with pytest.raises(StorageUnavailableError, match="database"):
        await ledger.entries("tenant", "user")
    with pytest.raises(StorageUnavailableError, match="database"):
        await ledger.settle(hold, settlement())
    assert caplog.text.count("a table or a column is missing") == 2
    await SqlConversationRepository(sqlite_engine).add("tenant", empty_conversation("Hi"), keeps_messages=True)


@pytest.fixture(autouse=True)
def heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="textllm")
