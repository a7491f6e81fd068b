"""Alembic's steps lead to exactly the tables that the adapters use, and back."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from msgspec.structs import replace
from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.contracts.conftest import sql_storage

from textllm_adapters.postgres.engine import open_engine as open_postgres_engine
from textllm_adapters.sql import (
    migrations,
    partial_indexes,  # noqa: F401 - which makes them
)
from textllm_adapters.sql.tables import metadata
from textllm_adapters.sqlite.engine import open_engine as open_sqlite_engine
from textllm_adapters.testing.books import TODAY, exchange, reservation, settlement, usd
from textllm_adapters.testing.storage import Storage
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


OF_WORDS = {"ix_message_words_words", "ix_message_words_place"}  # each for one of the two databases


def differences(connection: Connection) -> list[object]:
    opts = {"compare_type": True, "include_name": lambda name, *_: not is_index(name) and name not in OF_WORDS}
    return list(compare_metadata(MigrationContext.configure(connection, opts=opts), metadata))


def is_index(table: str | None) -> bool:
    """SQLite keeps an index of words as some tables."""
    return (table or "").startswith("message_index")


def table_names(connection: Connection) -> list[str]:
    return [name for name in inspect(connection).get_table_names() if not is_index(name)]


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


async def test_all_steps_down_leave_nothing_and_can_be_taken_up_again(empty: AsyncEngine) -> None:
    await migrations.upgrade(empty)
    await migrations.downgrade(empty, "base")
    async with empty.connect() as connection:
        assert await connection.run_sync(table_names) == ["alembic_version"]
    await migrations.upgrade(empty)
    assert await migrations.current_revision(empty) == migrations.head_revision()


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


async def test_rate_buckets_cost_postgres_no_log(postgres_engine: AsyncEngine) -> None:
    async with postgres_engine.connect() as connection:
        unlogged = await connection.execute(
            text("SELECT relname FROM pg_class WHERE relpersistence = 'u' AND relkind = 'r'")
        )
        assert unlogged.scalars().all() == ["rate_buckets"]


def test_the_scripts_are_found_and_the_last_of_them_is_the_head() -> None:
    assert (migrations.migrations_path() / "env.py").is_file()
    assert ScriptDirectory(str(migrations.migrations_path())).get_heads() == [migrations.head_revision()]
