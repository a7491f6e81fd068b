"""What running replies have said so far, in PostgreSQL."""

from collections.abc import Sequence

import msgspec

from textllm_adapters.postgres import statements
from textllm_adapters.postgres.engine import PostgresEngine
from textllm_adapters.sql.database import shared_tenant
from textllm_adapters.sql.ledger_rows import bare
from textllm_adapters.sql.reply_journal import SqlReplyJournal
from textllm_adapters.sql.types import askable
from textllm_core.records.journal import JournalEntry


class PostgresReplyJournal(SqlReplyJournal):
    """A `ReplyJournal` in PostgreSQL."""

    def __init__(self, engine: PostgresEngine) -> None:
        super().__init__(engine)
        self._lanes = engine.lanes

    async def write(self, entries: Sequence[JournalEntry]) -> None:
        of_tenant = shared_tenant(entry.hold.tenant_id for entry in entries)
        # In one order, so that no two writes of the same rows wait for each other.
        ordered = sorted(entries, key=lambda entry: entry.hold.response_id)
        rows = {
            "tenants": [askable(entry.hold.tenant_id) for entry in ordered],
            "users": [askable(entry.hold.user_id) for entry in ordered],
            "responses": [entry.hold.response_id for entry in ordered],
            "firsts": [entry.first for entry in ordered],
            "lasts": [entry.last for entry in ordered],
            "events": [msgspec.json.encode(bare(entry.events)).decode() for entry in ordered],
        }
        await self._lanes.ask(statements.WRITE_EVENTS, of_tenant, rows)
