"""The months of the ledger in PostgreSQL, each a table of its own, which goes as a whole.

`ledger` is divided by `response_id`, which begins with the time: so the key of an entry is what it was, and one entry
is found in one month. `ledger_before` has all that came before the first month, and what workers of versions before
make, whose ids say no time. `ledger_default` has what no month has room for, so that no turn fails where nobody has
prepared its month; what is in there is removed row by row.

What is done here needs the whole ledger for some milliseconds, and all turns wait meanwhile. So none of it waits for
long itself, or takes long: else it is tried again, and then left to the next call.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import date, datetime
from typing import Final, TypeVar

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from textllm_adapters.postgres.citus import HAS_CITUS
from textllm_adapters.sql.database import EVERYONE
from textllm_adapters.sql.errors import STORAGE_ERRORS
from textllm_adapters.sql.ledger_upkeep import SqlLedgerUpkeep
from textllm_adapters.translation import translated
from textllm_core.ids import first_response_id

_AHEAD: Final = 3  # months that are ready: so long nothing needs to be done
# While a step waits for the ledger, or has it, turns wait behind it: together less than the 50 ms that nobody notices.
_LOCK_TIMEOUT_MS: Final = 20
_STEP_TIMEOUT_MS: Final = 40  # the wait for the lock counts in it
_STEP_ON_CITUS_MS: Final = 3000  # which does it to each shard, and turns wait as long; once a month
_TRIES: Final = 10
_PAUSE_S: Final = 0.25  # what keeps the ledger is a statement, or a report or a backup, which takes too long anyway
_BUSY: Final = ("55P03", "57014")  # lock not available, statement timeout
_HAS_ITS_ROWS: Final = "23514"  # check violation: entries of the month are in `ledger_default` already
_BEFORE: Final = "ledger_before"
_EXACT_UP_TO: Final = 100_000  # rows that are counted before they go; PostgreSQL's estimate does for more

# The months that there are, and the id where each ends.
_MONTHS: Final = text(
    """
    SELECT relname, bound[1] FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid,
        regexp_match(pg_get_expr(relpartbound, pg_class.oid), 'TO \\(''(.*)''\\)') AS bound
    WHERE inhparent = 'ledger'::regclass AND bound IS NOT NULL
    ORDER BY 2
    """
)
_IS_OURS: Final = text("SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = 'ledger'::regclass")
_LIMITS: Final = text(
    f"SELECT set_config('lock_timeout', '{_LOCK_TIMEOUT_MS}', true), "
    "set_config('statement_timeout', "
    f"CASE WHEN {HAS_CITUS} THEN '{_STEP_ON_CITUS_MS}' ELSE '{_STEP_TIMEOUT_MS}' END, true)"
)
_SHOWN: Final = "current_setting('textllm.tenant', true)"
# Whoever reads a month by its own name is shown the rows of its tenant alone, as whoever reads the ledger; on Citus
# neither is bound: the setting does not reach the nodes.
_IS_BOUND: Final = text("SELECT relrowsecurity FROM pg_class WHERE oid = 'ledger'::regclass")
_MONTH: Final = "CREATE TABLE {name} (LIKE ledger INCLUDING ALL)"
_POLICY: Final = f"""
    CREATE POLICY tenant ON {{name}}
        USING (CASE WHEN {_SHOWN} = '*' THEN true ELSE tenant_id = {_SHOWN} END);
    ALTER TABLE {{name}} ENABLE ROW LEVEL SECURITY;
    ALTER TABLE {{name}} FORCE ROW LEVEL SECURITY
"""
# By the key, not by the place in the table: on Citus rows of several shards have the same place.
_FORGET_REST: Final = text(
    """
    DELETE FROM ledger_default WHERE (tenant_id, user_id, response_id) IN (
        SELECT tenant_id, user_id, response_id FROM ledger_default
        WHERE day < :of_day LIMIT :at_most FOR UPDATE SKIP LOCKED
    )
    """
)
_logger: Final = logging.getLogger("textllm")

T = TypeVar("T")


class PostgresLedgerUpkeep(SqlLedgerUpkeep):
    """A `LedgerUpkeep` that makes and drops the tables of months.

    Where the role does not own the ledger, it can do neither, and the log says so. Entries that come after the last
    month made are then in `ledger_default`.
    """

    async def prepare(self, *, at: datetime) -> None:
        with translated(STORAGE_ERRORS):
            if not await self._is_ours():
                return
            ends = [end for _, end in await self._months()]
            for ahead in range(_AHEAD + 1):
                first, end = (_first_of_month(at, ahead + more) for more in (0, 1))
                if not ends or first_response_id(first) >= ends[-1]:
                    await self._add(first, end)

    async def _add(self, first: date, end: date) -> None:
        name = f"ledger_{first:%Y_%m}"
        bounds = f"FROM ('{first_response_id(first)}') TO ('{first_response_id(end)}')"

        async def add(connection: AsyncConnection) -> None:
            await connection.execute(text(_MONTH.format(name=name)))
            if await connection.scalar(_IS_BOUND):
                for part in _POLICY.format(name=name).split(";"):
                    await connection.execute(text(part))
            await connection.execute(_LIMITS)
            await connection.execute(text(f"ALTER TABLE ledger ATTACH PARTITION {name} FOR VALUES {bounds}"))

        try:
            await self._soon(add)
        except DBAPIError as error:
            if _sqlstate(error) != _HAS_ITS_ROWS:
                raise

    async def forget_entries(self, *, before: date, limit: int) -> int:
        with translated(STORAGE_ERRORS):
            if not await self._is_ours():
                return 0
            async with self._database.transaction(EVERYONE) as connection:
                await self._begin_at(connection, before)
            dropped = 0
            for name, end in await self._months():
                if end <= first_response_id(before):
                    gone = await self._drop(name, before)
                    if gone is None:  # whoever keeps the ledger from us keeps each of its months
                        break
                    dropped += gone
            async with self._database.transaction(EVERYONE) as connection:
                rest = await connection.execute(_FORGET_REST, {"of_day": before, "at_most": limit})
        return dropped + rest.rowcount

    async def _drop(self, name: str, before: date) -> int | None:
        """About how many entries went with it; None where the ledger was not to be had."""
        async with self._database.transaction(EVERYONE) as connection:
            if name == _BEFORE and await _has_newer(connection, before):
                return 0
            size = await _size(connection, name)

        async def drop(connection: AsyncConnection) -> int:
            await connection.execute(_LIMITS)
            await connection.execute(text(f"DROP TABLE {name}"))
            return size

        return await self._soon(drop)

    async def _is_ours(self) -> bool:
        async with self._database.single(EVERYONE) as connection:
            if await connection.scalar(_IS_OURS):
                return True
        _logger.warning(
            "the role in DATABASE_URL does not own the ledger, and can neither make nor drop its months: "
            "run `textllm jobs run` each day as the role that does"
        )
        return False

    async def _months(self) -> Sequence[tuple[str, str]]:
        async with self._database.single(EVERYONE) as connection:
            return [(name, end) for name, end in await connection.execute(_MONTHS)]

    async def _soon(self, step: Callable[[AsyncConnection], Awaitable[T]]) -> T | None:
        """Do it in a transaction of its own; None where the ledger was not to be had."""
        for _ in range(_TRIES):
            try:
                async with self._database.transaction(EVERYONE) as connection:
                    return await step(connection)
            except DBAPIError as error:
                if _sqlstate(error) not in _BUSY:
                    raise
            await asyncio.sleep(_PAUSE_S)
        return None


def _first_of_month(at: datetime, ahead: int) -> date:
    years, month = divmod(at.year * 12 + at.month - 1 + ahead, 12)
    return date(years, month + 1, 1)


def _sqlstate(error: DBAPIError) -> str | None:
    return getattr(error.orig, "sqlstate", None)


async def _has_newer(connection: AsyncConnection, day: date) -> bool:
    """Whether a worker of a version before has written into it since: what its index of days makes quick to see."""
    await connection.execute(text("SET LOCAL enable_seqscan = off"))
    newer = text(f"SELECT EXISTS (SELECT 1 FROM {_BEFORE} WHERE day >= :of_day)")  # noqa: S608 - a constant
    return bool(await connection.scalar(newer, {"of_day": day}))


async def _size(connection: AsyncConnection, name: str) -> int:
    few = f"SELECT count(*) FROM (SELECT 1 FROM {name} LIMIT {_EXACT_UP_TO + 1}) AS few"  # noqa: S608 - the catalogue's
    counted = int(await connection.scalar(text(few)) or 0)
    if counted <= _EXACT_UP_TO:
        return counted
    estimate = text("SELECT reltuples::bigint FROM pg_class WHERE oid = CAST(:name AS regclass)")
    return max(counted, int(await connection.scalar(estimate, {"name": name}) or 0))
