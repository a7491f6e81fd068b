"""What running replies have said so far, in PostgreSQL."""

import asyncio
from collections.abc import Sequence

from textllm_adapters.postgres import statements
from textllm_adapters.postgres.engine import PostgresEngine
from textllm_adapters.postgres.ledger import said_values
from textllm_adapters.sql.reply_journal import SqlReplyJournal
from textllm_adapters.sql.types import askable
from textllm_core.records.journal import JournalEntry


class PostgresReplyJournal(SqlReplyJournal):
    """A `ReplyJournal` in PostgreSQL."""

    def __init__(self, engine: PostgresEngine) -> None:
        super().__init__(engine)
        self._lanes = engine.lanes

    async def write(self, entries: Sequence[JournalEntry]) -> None:
        # Those of a tenant go together, and in the order of their writes.
        await asyncio.gather(*[self._write(entry) for entry in entries])

    async def _write(self, entry: JournalEntry) -> None:
        hold = entry.hold
        reply = {"tenant": askable(hold.tenant_id), "user": askable(hold.user_id), "response": hold.response_id}
        await self._lanes.ask(statements.WRITE_EVENTS, hold.tenant_id, reply | said_values(entry))
