"""Brings a database to the tables of this version, or tells which revision it is at.

Alembic is loaded where there are steps to take: that costs as much time as all the rest of a short command.

On SQLite all steps are one transaction, which keeps all others from writing. On PostgreSQL each step is one of its own,
so that none keeps the locks of another while workers go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, column, event, func, inspect, select, table
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from textllm_adapters.sql.database import EVERYONE, Database, has_transactions
from textllm_adapters.sql.errors import STORAGE_ERRORS
from textllm_adapters.translation import translated
from textllm_core.errors import ConfigurationError, StorageUnavailableError
from textllm_core.records.schema import SchemaStep

if TYPE_CHECKING:
    from alembic.config import Config

# The one row that Alembic keeps in a database; oldest: versions that know this revision may use the database.
ALEMBICS: Final = table("alembic_version", column("version_num"), column("oldest"))
_LOCK: Final = 8_447_195_536_019  # ours alone among the advisory locks of a database
_ASK_AGAIN_S: Final = 0.2  # whether another caller has finished
# While a step waits for a table, all who want it stand in line behind the step. Workers wait 4 s for an answer.
_LOCK_TIMEOUT_S: Final = 2
_TRIES: Final = 10  # of a step: together with the pauses a minute, and no ordinary transaction lasts that long
_PAUSE_S: Final = 4.0  # between them: the line behind the last one gets through
_WHO: Final = "SELECT pid, usename, xact_start, state, query FROM pg_stat_activity ORDER BY xact_start"
_HELD_BY_OTHERS: Final = ("55P03", "40P01")  # lock not available, deadlock


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


async def is_up_to_date(engine: AsyncEngine) -> bool:
    """Whether this version may use the database as it is: its tables are of this version, or of a newer one after whose
    steps workers of this one go on.

    Raises:
        ConfigurationError: the tables are of a newer version, and this one cannot use them.
        StorageUnavailableError: the database does not answer.
    """
    head = head_revision()
    with translated(STORAGE_ERRORS):
        async with Database(engine).single(EVERYONE) as connection:
            current = await connection.run_sync(_current_revision)
            if current is None or current <= head:
                return current == head
            oldest: str = (await connection.execute(select(ALEMBICS.c.oldest))).scalar_one()
    if oldest > head:
        raise ConfigurationError(
            f"The database is at revision {current}. A newer version of TextLLM made it, and only versions that know "
            f"revision {oldest} can use it; this one knows none after {head}. Install the newer version, or restore a "
            "backup from before the upgrade."
        )
    return True


async def steps_to_head(engine: AsyncEngine) -> Sequence[SchemaStep]:
    """What `upgrade` would do, in its order.

    Raises:
        ConfigurationError, StorageUnavailableError: as `is_up_to_date` has them.
    """
    if await is_up_to_date(engine):
        return []
    from alembic.script import ScriptDirectory

    current = await current_revision(engine)
    scripts = ScriptDirectory(str(migrations_path()))
    pending = list(scripts.iterate_revisions("head", current or "base"))[::-1]
    return [
        SchemaStep(
            revision=script.revision,
            title=script.doc.partition("\n")[0],
            workers_go_on=current is None or script.module.workers_go_on,  # on an empty database nobody works yet
        )
        for script in pending
    ]


async def upgrade(engine: AsyncEngine, revision: str = "head") -> None:
    """Take all steps up to `revision`; one caller at a time, the others wait and find it done.

    Steps on large tables may take long: give an engine without a time limit for its commands.
    Raises:
        ConfigurationError: as `is_up_to_date` has it.
        StorageUnavailableError: the database does not answer, or others keep what a step needs; steps before that one
            stay taken on PostgreSQL, and nothing else was changed.
    """
    if await is_up_to_date(engine):
        return
    from alembic import command

    await _migrate(engine, command.upgrade, revision)


async def downgrade(engine: AsyncEngine, revision: str) -> None:
    """Take all steps back down to `revision`; "base" is the empty database. Otherwise as `upgrade`."""
    from alembic import command

    await _migrate(engine, command.downgrade, revision)


def _current_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(ALEMBICS.name):
        return None
    return connection.execute(select(ALEMBICS.c.version_num)).scalar_one_or_none()


async def _migrate(engine: AsyncEngine, step: Callable[[Config, str], None], revision: str) -> None:
    with translated(STORAGE_ERRORS):
        if engine.dialect.name == "sqlite":
            async with Database(engine).transaction(EVERYONE) as connection:
                await connection.run_sync(_take_steps, step, revision)
            return
        database = Database(engine)
        async with _alone(database), database.unbegun() as connection:
            event.listen(connection.sync_connection, "begin", _limit_waiting)
            await _take_steps_patiently(connection, step, revision)


@asynccontextmanager
async def _alone(database: Database) -> AsyncIterator[None]:
    """While the block runs, no other caller is in one.

    A transaction of its own keeps the lock: it outlives those of the steps, also where a pooler gives each another
    session. Others ask for it and do not wait in the database, for an index that is made beside the traffic waits for
    every statement that is older than it.
    """
    while True:
        async with database.transaction(EVERYONE) as connection:
            if await connection.scalar(select(func.pg_try_advisory_xact_lock(_LOCK))):
                await connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
                yield
                return
        await asyncio.sleep(_ASK_AGAIN_S)


def _limit_waiting(connection: Connection) -> None:
    """For a step. An index that is made beside the traffic waits for as long as it takes, and stops nobody."""
    if has_transactions(connection):
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT_S}s'")


async def _take_steps_patiently(
    connection: AsyncConnection, step: Callable[[Config, str], None], revision: str
) -> None:
    tries: dict[str | None, int] = {}  # by the revision that the database was at
    while True:
        try:
            await connection.run_sync(_take_steps, step, revision)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in _HELD_BY_OTHERS:
                raise
            await connection.rollback()
            at = await connection.run_sync(_current_revision)
            await connection.rollback()
            tries[at] = tries.get(at, 0) + 1
            if tries[at] >= _TRIES:
                raise StorageUnavailableError(
                    f"The step after revision {at or 'none'} needs a table for a moment, and another transaction keeps "
                    f"it: {_TRIES} tries of {_LOCK_TIMEOUT_S} seconds. That step changed nothing; the service goes on. "
                    f"See who it is: {_WHO}; let it end, or end it by SELECT pg_terminate_backend(pid). "
                    "Then run the command again."
                ) from error
            await asyncio.sleep(_PAUSE_S)
        else:
            return


def _take_steps(connection: Connection, step: Callable[[Config, str], None], revision: str) -> None:
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(migrations_path()).replace("%", "%%"))
    step(config, revision)
