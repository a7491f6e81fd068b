"""Alembic's steps lead to exactly the tables that the adapters use, and back."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from msgspec.structs import replace
from sqlalchemy import (
    ARRAY,
    JSON,
    Boolean,
    Connection,
    Date,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    inspect,
    text,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.types import TypeEngine
from tests.contracts.conftest import sql_storage

from textllm_adapters.postgres.engine import open_engine as open_postgres_engine
from textllm_adapters.sql import (
    file_tables,  # noqa: F401 - which are some of the tables
    horizons,  # noqa: F401 - which is one of them
    migrations,
    partial_indexes,  # noqa: F401 - which makes them
    response_table,  # noqa: F401 - another one
)
from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sql.tables import metadata
from textllm_adapters.sqlite.engine import open_engine as open_sqlite_engine
from textllm_adapters.testing.books import TODAY, exchange, reservation, settlement, usd
from textllm_adapters.testing.storage import Storage
from textllm_core.errors import ConfigurationError, StorageUnavailableError
from textllm_core.records.conversations import ConversationFilter


@pytest.fixture(params=["sqlite", "postgres"])
async def empty(request: pytest.FixtureRequest) -> AsyncIterator[AsyncEngine]:
    """An engine of a database without tables."""
    engine: AsyncEngine = request.getfixturevalue(f"empty_{request.param}")
    yield engine
    await engine.dispose()


@pytest.fixture
def empty_sqlite(tmp_path: Path) -> AsyncEngine:
    return open_sqlite_engine(f"sqlite:///{tmp_path}/new.db")


@pytest.fixture
def empty_postgres(empty_postgres_url: str) -> AsyncEngine:
    return open_postgres_engine(empty_postgres_url, command_timeout_s=None)


STEPS = list(ScriptDirectory(str(migrations.migrations_path())).walk_revisions())[::-1]
OF_ONE = {"ix_message_words_words", "ix_message_words_place", "ix_ledger_day"}  # each for one of the two databases


def differences(connection: Connection) -> list[object]:
    opts = {"compare_type": True, "include_name": lambda name, *_: not is_part(name) and name not in OF_ONE}
    return list(compare_metadata(MigrationContext.configure(connection, opts=opts), metadata))


def is_part(table: str | None) -> bool:
    """SQLite keeps an index of words as some tables, PostgreSQL the months of the ledger."""
    return (table or "").startswith(("message_index", "ledger_"))


def table_names(connection: Connection) -> list[str]:
    return [name for name in inspect(connection).get_table_names() if not is_part(name)]


async def test_the_upgraded_database_has_exactly_the_tables_of_the_adapters(empty: AsyncEngine) -> None:
    await migrations.upgrade(empty)
    async with empty.connect() as connection:
        assert await connection.run_sync(differences) == []
        assert set(await connection.run_sync(table_names)) == {*metadata.tables, "alembic_version"}


async def test_an_empty_database_is_at_no_revision_and_an_upgraded_one_at_head(empty: AsyncEngine) -> None:
    assert await migrations.current_revision(empty) is None
    assert await migrations.current_revision(empty) is None
    await migrations.upgrade(empty)
    assert await migrations.current_revision(empty) == migrations.head_revision()
    assert await migrations.current_revision(empty) == migrations.head_revision()


async def test_all_steps_down_and_up_again_keep_what_both_revisions_know(empty: AsyncEngine) -> None:
    await migrations.upgrade(empty)
    async with Database(empty).transaction(EVERYONE) as connection:
        await connection.run_sync(_fill)
        rows = await connection.run_sync(_rows)
    assert all(rows.values())
    by = 3 if empty.dialect.name == "sqlite" else 6  # PostgreSQL alters in place, and takes its time for each look
    revisions = [step.revision for step in STEPS][(len(STEPS) - 1) % by :: by]
    ways = [(migrations.downgrade, one) for one in revisions[-2::-1]]
    ways += [(migrations.upgrade, one) for one in revisions[1:]]
    for migrate, revision in ways:
        await migrate(empty, revision)
        before = rows
        async with Database(empty).transaction(EVERYONE) as connection:
            rows = await connection.run_sync(_rows)
        for name in [name for name, row in before.items() if row and name in rows]:
            known = before[name].keys() & rows[name].keys()
            assert known, f"the row of {name} went with {revision}"
            assert {key: rows[name][key] for key in known} == {key: before[name][key] for key in known}
    await migrations.downgrade(empty, "base")
    async with empty.connect() as connection:
        assert await connection.run_sync(table_names) == ["alembic_version"]


def _fill(connection: Connection) -> None:
    """Put a row into every table. Its values are equal wherever their types are, so that it refers to what is there."""
    reflected = MetaData()
    reflected.reflect(connection, only=[name for name in table_names(connection) if name != "alembic_version"])
    for of in reflected.sorted_tables:
        connection.execute(of.insert(), {name: _value(column.type) for name, column in of.columns.items()})


def _value(of: TypeEngine[Any]) -> object:
    values: dict[type[TypeEngine[Any]], object] = {
        JSON: {},
        ARRAY: ["one"],
        LargeBinary: b"one",
        Boolean: True,
        DateTime: datetime(2026, 5, 1, tzinfo=UTC),
        Date: date(2026, 5, 1),
        Integer: 1,
        Numeric: Decimal(1),
    }
    return next((value for kind, value in values.items() if isinstance(of, kind)), "one")


def _rows(connection: Connection) -> dict[str, dict[str, object]]:
    """The row of each table, by column; an empty one where it has none."""
    tables = [name for name in table_names(connection) if name != "alembic_version"]
    found = {name: connection.execute(text(f"SELECT * FROM {name}")).mappings().one_or_none() for name in tables}
    return {name: dict(row or {}) for name, row in found.items()}


async def test_a_step_up_finds_what_was_estimated_before_it(empty: AsyncEngine) -> None:
    await migrations.upgrade(empty)
    storage = sql_storage(empty)
    for estimated in (True, False):
        hold = await storage.ledger.reserve(reservation())
        said = [replace(message, estimated=estimated) for message in exchange("Hello", "Hi")[1:]]
        await storage.ledger.settle(hold, settlement(cost="0.25", estimated=estimated, messages=said))
    before = await _estimates(storage)
    await migrations.downgrade(empty, "0007")
    await migrations.upgrade(empty)
    assert await _estimates(storage) == before == (usd("0.25"), [False, True])


async def _estimates(storage: Storage) -> tuple[Decimal, list[bool]]:
    (used,) = await storage.reports.daily("tenant", "user", TODAY)
    found, _ = await storage.conversations.list("tenant", ConversationFilter(), limit=9, offset=0)
    said = [await storage.conversations.last_messages("tenant", "user", of.id, limit=None) for of in found]
    return used.estimated_cost, sorted(message.estimated is True for messages in said for message in messages)


async def test_upgrades_at_once_take_each_step_once(empty: AsyncEngine) -> None:
    await asyncio.gather(*[migrations.upgrade(empty) for _ in range(4)])
    assert await migrations.current_revision(empty) == migrations.head_revision()


async def test_a_step_waits_a_while_for_a_table_and_then_says_who_may_have_it(
    empty_postgres: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "_LOCK_TIMEOUT_S", 0.02)
    monkeypatch.setattr(migrations, "_PAUSE_S", 0.02)
    monkeypatch.setattr(migrations, "_TRIES", 3)
    await migrations.upgrade(empty_postgres, "0010")
    async with empty_postgres.connect() as reading:
        await reading.execute(text("SELECT 1 FROM messages"))
        with pytest.raises(StorageUnavailableError, match=r"after revision 0011 .*pg_stat_activity"):
            await migrations.upgrade(empty_postgres)
        assert await migrations.current_revision(empty_postgres) == "0011"
        upgrading = asyncio.create_task(migrations.upgrade(empty_postgres, "0012"))
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        while not await reading.scalar(waiting):  # noqa: ASYNC110 - it is the server that is asked
            await asyncio.sleep(0)
        await reading.rollback()
        await upgrading
    await empty_postgres.dispose()


async def test_an_index_that_was_cut_short_is_made_anew(empty_postgres: AsyncEngine) -> None:
    await migrations.upgrade(empty_postgres, "0014")
    name = "ix_conversations_deleted_at"
    async with empty_postgres.connect() as reading, empty_postgres.connect() as connection:
        await reading.execute(text("SELECT 1 FROM conversations"))
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("SET lock_timeout = '20ms'"))
        with pytest.raises(DBAPIError):
            await connection.execute(text(f"CREATE INDEX CONCURRENTLY {name} ON conversations (deleted_at)"))
        await connection.execute(text("SET lock_timeout = 0"))
        await reading.rollback()
        is_valid = text("SELECT indisvalid FROM pg_index WHERE indexrelid = CAST(:name AS regclass)")
        assert await connection.scalar(is_valid, {"name": name}) is False
        await migrations.upgrade(empty_postgres, "0015")
        assert await connection.scalar(is_valid, {"name": name}) is True
    await empty_postgres.dispose()


async def test_what_an_upgrade_would_do_is_told_and_nothing_is_changed(empty: AsyncEngine) -> None:
    told = await migrations.steps_to_head(empty)
    assert [step.revision for step in told] == [step.revision for step in STEPS]
    assert told[0].title == "Conversations, sessions, holds, the ledger, messages and rate buckets."
    assert all(step.workers_go_on for step in told)  # nobody works on an empty database
    assert await migrations.current_revision(empty) is None
    await migrations.upgrade(empty, "0005")
    told = await migrations.steps_to_head(empty)
    assert [step.revision for step in told if not step.workers_go_on] == ["0006", "0007", "0008"]


NEXT_STEP = """
'''A step of a later version.'''
revision = "{revision}"
down_revision = "{after}"
workers_go_on = {workers_go_on}
def upgrade(): pass
"""


async def test_the_database_of_a_newer_version_is_used_unless_a_step_keeps_this_version_away(
    empty: AsyncEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = tmp_path / "alembic"
    shutil.copytree(migrations.migrations_path(), later)
    for revision, after, go_on in [("9998", migrations.head_revision(), True), ("9999", "9998", False)]:
        script = NEXT_STEP.format(revision=revision, after=after, workers_go_on=go_on)
        (later / "versions" / f"{revision}_later.py").write_text(script)
    await migrations.upgrade(empty)

    async def upgraded_by_a_later_version(revision: str) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(migrations, "migrations_path", lambda: later)
            await migrations.upgrade(empty, revision)

    await upgraded_by_a_later_version("9998")
    assert await migrations.is_up_to_date(empty)
    await migrations.upgrade(empty)
    assert (await migrations.current_revision(empty), await migrations.steps_to_head(empty)) == ("9998", [])
    await upgraded_by_a_later_version("9999")
    for asked in (migrations.is_up_to_date, migrations.upgrade, migrations.steps_to_head):
        with pytest.raises(ConfigurationError, match=r"at revision 9999.*only versions that know revision 9999"):
            await asked(empty)


async def test_rate_buckets_cost_postgres_no_log(postgres_engine: AsyncEngine) -> None:
    async with postgres_engine.connect() as connection:
        unlogged = await connection.execute(
            text("SELECT relname FROM pg_class WHERE relpersistence = 'u' AND relkind = 'r'")
        )
        assert unlogged.scalars().all() == ["rate_buckets"]


def test_the_scripts_are_found_and_the_last_of_them_is_the_head() -> None:
    assert (migrations.migrations_path() / "env.py").is_file()
    assert ScriptDirectory(str(migrations.migrations_path())).get_heads() == [migrations.head_revision()]
