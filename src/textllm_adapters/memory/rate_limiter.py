"""Token buckets in this process."""

from datetime import datetime, timedelta
from typing import Final

from textllm_core.errors import Allowance
from textllm_core.ports.clock import Clock
from textllm_core.rules.buckets import FORGOTTEN_AFTER_US, TOKEN, allowance, given_back, refilled, refusal, taken

_MICROSECOND: Final = timedelta(microseconds=1)


class MemoryRateLimiter:
    """A `RateLimiter` by the given clock, shared by the tasks of one process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, str], tuple[int, datetime]] = {}

    async def take(self, tenant_id: str, user_id: str, *, per_minute: int) -> Allowance:
        now = self._clock.now()
        level, since = self._buckets.get((tenant_id, user_id), (per_minute * TOKEN, now))
        level = refilled(level, per_minute=per_minute, elapsed_us=(now - since) // _MICROSECOND)
        level, admitted = taken(level)
        self._buckets[tenant_id, user_id] = (level, now)
        if not admitted:
            raise refusal(level, per_minute=per_minute)
        return allowance(level, per_minute=per_minute)

    async def forget(self, *, limit: int) -> int:
        now = self._clock.now()
        idle = [key for key, (_, at) in self._buckets.items() if (now - at) // _MICROSECOND > FORGOTTEN_AFTER_US]
        for key in idle[:limit]:
            del self._buckets[key]
        return len(idle[:limit])

    async def give_back(self, tenant_id: str, user_id: str, *, per_minute: int) -> Allowance:
        level, since = self._buckets.get((tenant_id, user_id), (per_minute * TOKEN, self._clock.now()))
        level = given_back(level, per_minute=per_minute)
        self._buckets[tenant_id, user_id] = (level, since)
        return allowance(level, per_minute=per_minute)
