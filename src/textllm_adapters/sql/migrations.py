"""Brings a database to the tables of this version, or tells which revision it is at.

Alembic is loaded where there are steps to take: that costs as much time as all the rest of a short command.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, column, func, inspect, select, table
from sqlalchemy.ext.asyncio import AsyncEngine

from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sql.errors import STORAGE_ERRORS
from textllm_adapters.translation import translated

if TYPE_CHECKING:
    from alembic.config import Config

_ALEMBICS: Final = table("alembic_version", column("version_num"))  # the one row that it keeps in a database
_LOCK: Final = 8_447_195_536_019  # ours alone among the advisory locks of a database


def migrations_path() -> Path:
    """The folder of Alembic's scripts: beside this file where a wheel put it, else in the checkout."""
    installed = Path(__file__).parent / "alembic"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "alembic"


def head_revision() -> str:
    """The revision that this version needs: the last of the scripts, which begin with their numbers."""
    last = max(path.name for path in (migrations_path() / "versions").glob("[0-9]*.py"))
    return last.partition("_")[0]


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
    from alembic import command

    with translated(STORAGE_ERRORS):
        async with Database(engine).transaction(EVERYONE) as connection:
            await connection.run_sync(_migrate, command.upgrade, revision)


async def downgrade(engine: AsyncEngine, revision: str) -> None:
    """Take all steps back down to `revision`; "base" is the empty database. Otherwise as `upgrade`."""
    from alembic import command

    with translated(STORAGE_ERRORS):
        async with Database(engine).transaction(EVERYONE) as connection:
            await connection.run_sync(_migrate, command.downgrade, revision)


def _current_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(_ALEMBICS.name):
        return None
    return connection.execute(select(_ALEMBICS.c.version_num)).scalar_one_or_none()


def _migrate(connection: Connection, step: Callable[[Config, str], None], revision: str) -> None:
    from alembic.config import Config

    if connection.dialect.name == "postgresql":  # SQLite's write transaction is lock enough
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(migrations_path()).replace("%", "%%"))
    step(config, revision)
