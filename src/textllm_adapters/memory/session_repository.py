"""Sessions in memory."""

from dataclasses import dataclass
from datetime import date

from textllm_adapters.memory.store import MemoryStore
from textllm_core.sessions import Session


@dataclass(frozen=True, slots=True)
class MemorySessionRepository:
    """A `SessionRepository` that reads a store in memory."""

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
