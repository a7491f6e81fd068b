"""Sessions in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from msgspec.structs import replace

from textllm_adapters.memory.store import MemoryStore
from textllm_core.money import ZERO
from textllm_core.records.sessions import Session


@dataclass(frozen=True, slots=True)
class MemorySessionRepository:
    """A `SessionRepository` over a store in memory."""

    store: MemoryStore

    async def get(self, tenant_id: str, session_id: str, *, user_id: str | None = None) -> Session | None:
        found = (
            self._session(key)
            for key, kept in self.store.sessions.items()
            if (key[0], kept.session.id) == (tenant_id, session_id) and user_id in (None, key[1])
        )
        return next(found, None)

    async def of_day(self, tenant_id: str, user_id: str, day: date) -> Session | None:
        key = (tenant_id, user_id, day)
        return self._session(key) if key in self.store.sessions else None

    async def since(self, tenant_id: str, user_id: str, first: date) -> Sequence[Session]:
        days = [key for key in self.store.sessions if key[:2] == (tenant_id, user_id) and key[2] >= first]
        return [self._session(key) for key in sorted(days, reverse=True)]

    async def end(self, tenant_id: str, user_id: str, session_id: str) -> Session | None:
        for key, kept in self.store.sessions.items():
            if (*key[:2], kept.session.id) == (tenant_id, user_id, session_id):
                self.store.sessions[key] = replace(kept, session=replace(kept.session, is_active=False))
                for held, of in self.store.holds.items():
                    if of.hold.session_id == session_id:
                        self.store.holds[held] = replace(of, was_ended=True)
                return self._session(key)
        return None

    def _session(self, day: tuple[str, str, date]) -> Session:
        used = (used.estimated_cost for of, used in self.store.daily_usage.items() if of[:3] == day)
        return replace(self.store.sessions[day].session, estimated_cost=sum(used, ZERO))
