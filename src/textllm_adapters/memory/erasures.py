"""The list of erasures in memory."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from msgspec.structs import replace

from textllm_adapters.memory.store import KeptErasure, Key, MemoryStore
from textllm_core.events import ErasuresWaiting
from textllm_core.records.erasures import Erasure


@dataclass(frozen=True, slots=True)
class MemoryErasures:
    """An `Erasures` over a store in memory."""

    store: MemoryStore

    async def due(self, *, at: datetime, latest: datetime, lease_until: datetime, limit: int) -> Sequence[Erasure]:
        waiting = sorted(self.store.erasures.values(), key=lambda kept: kept.next_at)
        due = [kept.erasure for kept in waiting if not at < kept.next_at <= latest][:limit]
        leased = [replace(erasure, attempts=erasure.attempts + 1) for erasure in due]
        self.store.erasures.update({_key(erasure): KeptErasure(erasure, lease_until) for erasure in leased})
        return leased

    async def foresee(self, erasures: Sequence[Erasure], *, at: datetime) -> None:
        self.store.erasures.update({_key(erasure): KeptErasure(erasure, at) for erasure in erasures})

    async def done(self, *erasures: Erasure) -> None:
        for erasure in erasures:
            self.store.erasures.pop(_key(erasure), None)

    async def waiting(self) -> ErasuresWaiting:
        listed = [kept.erasure for kept in self.store.erasures.values()]
        tried = sum(erasure.attempts > 0 for erasure in listed)
        names = [
            erasure.provider_id.partition("/")[0] if "/" in erasure.provider_id else ""
            for erasure in listed
            if erasure.attempts > 0 or erasure.kind != "ready"
        ]
        return ErasuresWaiting(pending=len(names), failing=tried, by_provider=Counter(names))

    async def put_off(self, erasure: Erasure, *, until: datetime) -> None:
        if _key(erasure) in self.store.erasures:
            self.store.erasures[_key(erasure)] = KeptErasure(erasure, until)


def _key(erasure: Erasure) -> Key:
    return erasure.tenant_id, erasure.user_id, erasure.id
