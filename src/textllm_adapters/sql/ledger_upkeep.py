"""Old entries and sessions in SQL: removed row by row, a few at a time."""

from datetime import date, datetime
from typing import Final

from sqlalchemy import bindparam, delete, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sql.errors import STORAGE_ERRORS
from textllm_adapters.sql.horizons import moved_to, start_of
from textllm_adapters.sql.tables import holds, ledger, sessions
from textllm_adapters.translation import translated

_FORGET_ENTRIES: Final = delete(ledger).where(
    tuple_(*ledger.primary_key).in_(
        select(*ledger.primary_key).where(ledger.c.day < bindparam("of_day")).limit(bindparam("at_most"))
    )
)
# Asked once, for all: Citus takes no question for each, as a hold is kept by its user, and a session by who pays.
_HAS_HOLD: Final = tuple_(sessions.c.tenant_id, sessions.c.id).in_(select(holds.c.tenant_id, holds.c.session_id))
_FORGET_SESSIONS: Final = delete(sessions).where(
    tuple_(*sessions.primary_key).in_(
        select(*sessions.primary_key)
        .where(sessions.c.created_at < bindparam("of_moment"), ~_HAS_HOLD)
        .limit(bindparam("at_most"))
        .with_for_update(skip_locked=True, of=sessions)  # SQLite, which has one writer, leaves this out
    )
)


class SqlLedgerUpkeep:
    """A `LedgerUpkeep` over SQL tables that have all months together."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._database = Database(engine)

    async def prepare(self, *, at: datetime) -> None:
        """One table has room for all months."""

    async def forget_entries(self, *, before: date, limit: int) -> int:
        with translated(STORAGE_ERRORS):
            async with self._database.transaction(EVERYONE) as connection:
                await self._begin_at(connection, before)
                old = {"of_day": before, "at_most": limit}
                return (await connection.execute(_FORGET_ENTRIES, old)).rowcount

    async def _begin_at(self, connection: AsyncConnection, day: date) -> None:
        await connection.execute(moved_to(day, self._database.dialect))

    async def forget_sessions(self, *, before: date, limit: int) -> int:
        with translated(STORAGE_ERRORS):
            async with self._database.transaction(EVERYONE) as connection:
                old = {"of_moment": start_of(before), "at_most": limit}
                return (await connection.execute(_FORGET_SESSIONS, old)).rowcount
