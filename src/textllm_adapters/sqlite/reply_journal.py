"""What running replies have said so far, in SQLite."""

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from textllm_adapters.sql.errors import STORAGE_ERRORS
from textllm_adapters.sql.ledger_rows import said_row
from textllm_adapters.sql.reply_journal import SqlReplyJournal
from textllm_adapters.sql.tables import holds, reply_events
from textllm_adapters.sqlite.engine import SqliteEngine
from textllm_adapters.sqlite.rows import Rows
from textllm_adapters.translation import translated
from textllm_core.records.journal import JournalEntry

_EVENTS: Final = Rows(reply_events)
_HOLDS: Final = Rows(holds)


class SqliteReplyJournal(SqlReplyJournal):
    """A `ReplyJournal` in a SQLite file."""

    def __init__(self, engine: SqliteEngine) -> None:
        super().__init__(engine)
        self._writer = engine.writer

    async def write(self, entries: Sequence[JournalEntry]) -> None:
        def write(connection: sqlite3.Connection) -> None:
            for entry in entries:
                _EVENTS.put(connection, said_row(entry))  # those of a commit that was cut off from us are written again

        with translated(STORAGE_ERRORS):
            await self._writer.run(write)

    async def watch(self, tenant_id: str, user_id: str, response_id: str, *, until: datetime) -> None:
        await self._mark(tenant_id, user_id, response_id, watched_until=until)

    async def ask_to_cancel(self, tenant_id: str, user_id: str, response_id: str) -> None:
        await self._mark(tenant_id, user_id, response_id, cancel_asked=True)

    async def _mark(self, *hold: str, **values: object) -> None:
        with translated(STORAGE_ERRORS):
            await self._writer.run(lambda connection: _HOLDS.set(connection, *hold, **values))
