"""Brings a database to the tables of this version, or tells which revision it is at."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sql.errors import STORAGE_ERRORS
from textllm_adapters.translation import translated

_LOCK: Final = 8_447_195_536_019  # ours alone among the advisory locks of a database


def migrations_path() -> Path:
    """The folder of Alembic's scripts: beside this file where a wheel put it, else in the checkout."""
    installed = Path(__file__).parent / "alembic"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "alembic"


def head_revision() -> str:
    """The revision that this version needs."""
    head = ScriptDirectory(str(migrations_path())).get_current_head()
    assert head is not None
    return head


async def current_revision(engine: AsyncEngine) -> str | None:
    """The revision a database is at; None where it has none of our tables.

    Raises:
        StorageUnavailableError: the database does not answer.
    """
    with translated(STORAGE_ERRORS):
        async with Database(engine).single(EVERYONE) as connection:
            return await connection.run_sync(_current_revision)


async def upgrade(engine: AsyncEngine, revision: str = "head") -> None:
    """Take all steps up to `revision`, in one transaction; one caller at a time, the others wait and find it done.

    Steps on large tables may take long: give an engine without a time limit for its commands.
    Raises:
        StorageUnavailableError: the database does not answer; nothing was changed.
    """
    with translated(STORAGE_ERRORS):
        async with Database(engine).transaction(EVERYONE) as connection:
            await connection.run_sync(_migrate, command.upgrade, revision)


async def downgrade(engine: AsyncEngine, revision: str) -> None:
    """Take all steps back down to `revision`; "base" is the empty database. Otherwise as `upgrade`."""
    with translated(STORAGE_ERRORS):
        async with Database(engine).transaction(EVERYONE) as connection:
            await connection.run_sync(_migrate, command.downgrade, revision)


def _current_revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _migrate(connection: Connection, step: Callable[[Config, str], None], revision: str) -> None:
    if connection.dialect.name == "postgresql":  # SQLite's write transaction is lock enough
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(migrations_path()).replace("%", "%%"))
    step(config, revision)
