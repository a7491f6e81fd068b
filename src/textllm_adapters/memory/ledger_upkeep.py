"""Old entries and sessions in memory."""

from dataclasses import dataclass
from datetime import date, datetime
from itertools import islice

from textllm_adapters.memory.store import MemoryStore
from textllm_core.records.sessions import day_of


@dataclass(frozen=True, slots=True)
class MemoryLedgerUpkeep:
    """A `LedgerUpkeep` of a store in memory."""

    store: MemoryStore

    async def prepare(self, *, at: datetime) -> None:
        """A dictionary has room for all months."""

    async def forget_entries(self, *, before: date, limit: int) -> int:
        self.store.ledger_since = max(before, self.store.ledger_since)
        entries = self.store.entries
        old = list(islice((key for key, entry in entries.items() if day_of(entry.created_at) < before), limit))
        for key in old:
            del entries[key]
        return len(old)

    async def forget_sessions(self, *, before: date, limit: int) -> int:
        held = {kept.hold.session_id for kept in self.store.holds.values()}
        sessions = self.store.sessions
        old = (key for key, today in sessions.items() if key[2] < before and today.session.id not in held)
        gone = list(islice(old, limit))
        for key in gone:
            del sessions[key]
        return len(gone)
