"""What running replies have said so far, in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from msgspec.structs import replace

from textllm_adapters.memory.store import Key, MemoryStore
from textllm_core.records.journal import JournalEntry, JournalPage
from textllm_core.records.ledger import Hold


@dataclass(frozen=True, slots=True)
class MemoryReplyJournal:
    """A `ReplyJournal` that is gone with its process."""

    store: MemoryStore

    async def write(self, entries: Sequence[JournalEntry]) -> None:
        for entry in entries:
            self.store.say(entry)

    async def read(self, tenant_id: str, user_id: str | None, response_id: str, *, after: int) -> JournalPage | None:
        running = (key for key, kept in self.store.holds.items() if kept.is_resumable)
        key = next((key for key in (*running, *self.store.ends) if (key[0], key[2]) == (tenant_id, response_id)), None)
        if key is None or user_id not in (None, key[1]):
            return None
        pieces = self.store.spoken.get(key, {})
        events = tuple(
            event for first in sorted(pieces) for number, event in enumerate(pieces[first], first) if number > after
        )
        kept = self.store.ends.get(key)
        return JournalPage(user_id=key[1], events=events, end=kept.end if kept else None)

    async def watch(self, tenant_id: str, user_id: str, response_id: str, *, until: datetime) -> None:
        self._change((tenant_id, user_id, response_id), watched_until=until)

    async def is_watched(self, hold: Hold, *, at: datetime) -> bool:
        kept = self.store.holds.get(_key(hold))
        return kept is not None and kept.watched_until is not None and kept.watched_until > at

    async def ask_to_cancel(self, tenant_id: str, user_id: str, response_id: str) -> None:
        self._change((tenant_id, user_id, response_id), cancel_asked=True)

    async def asked_to_cancel(self) -> Sequence[tuple[str, str, str]]:
        return [key for key, kept in self.store.holds.items() if kept.cancel_asked]

    async def forget(self, *, before: datetime, limit: int) -> int:
        old = [key for key, kept in self.store.ends.items() if kept.at < before][:limit]
        for key in old:
            del self.store.ends[key]
            self.store.spoken.pop(key, None)
        return len(old)

    def _change(self, key: Key, **changes: object) -> None:
        if (kept := self.store.holds.get(key)) is not None:
            self.store.holds[key] = replace(kept, **changes)


def _key(hold: Hold) -> Key:
    return hold.tenant_id, hold.user_id, hold.response_id
