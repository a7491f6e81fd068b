"""Sessions in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from msgspec.structs import replace

from textllm_adapters.memory.store import MemoryStore
from textllm_core.records.sessions import Session


@dataclass(frozen=True, slots=True)
class MemorySessionRepository:
    """A `SessionRepository` over a store in memory."""

    store: MemoryStore

    async def get(self, tenant_id: str, session_id: str) -> Session | None:
        found = (
            kept.session
            for (tenant, _, _), kept in self.store.sessions.items()
            if (tenant, kept.session.id) == (tenant_id, session_id)
        )
        return next(found, None)

    async def of_day(self, tenant_id: str, user_id: str, day: date) -> Session | None:
        kept = self.store.sessions.get((tenant_id, user_id, day))
        return None if kept is None else kept.session

    async def since(self, tenant_id: str, user_id: str, first: date) -> Sequence[Session]:
        days = [key for key in self.store.sessions if key[:2] == (tenant_id, user_id) and key[2] >= first]
        return [self.store.sessions[key].session for key in sorted(days, reverse=True)]

    async def end(self, tenant_id: str, user_id: str, session_id: str) -> Session | None:
        for key, kept in self.store.sessions.items():
            if (*key[:2], kept.session.id) == (tenant_id, user_id, session_id):
                self.store.sessions[key] = replace(kept, session=replace(kept.session, is_active=False))
                return self.store.sessions[key].session
        return None
