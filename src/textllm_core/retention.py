"""Removes what nobody reads any more, in steps so small that nothing else waits for them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from textllm_core.events import UNHEARD, Removable, Removed
from textllm_core.policy import Retention
from textllm_core.ports.api_key_repository import ApiKeyRepository
from textllm_core.ports.clock import Clock
from textllm_core.ports.ledger import Ledger
from textllm_core.ports.ledger_upkeep import LedgerUpkeep
from textllm_core.ports.rate_limiter import RateLimiter
from textllm_core.ports.reply_journal import ReplyJournal
from textllm_core.ports.schedule import Schedule
from textllm_core.ports.telemetry import Telemetry
from textllm_core.purge_conversations import AT_ONCE, PurgeConversations, in_steps

_JOB: Final = "remove_expired"
_EACH_HOUR: Final = "keep_ledger"  # as databases know the job, which had the ledger alone to keep at first
_HOUR: Final = timedelta(hours=1)  # what is old by days or months need not go on the minute
_EVERY: Final = timedelta(minutes=1)  # what is old by hours need not go on the second


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveExpired:
    """Remove what is kept for a time only, as the operator's `Retention` says; of all processes one does it."""

    ledger: Ledger
    upkeep: LedgerUpkeep
    journal: ReplyJournal
    rate_limiter: RateLimiter
    api_keys: ApiKeyRepository
    purge: PurgeConversations
    schedule: Schedule
    clock: Clock
    kept: Retention
    telemetry: Telemetry = UNHEARD

    async def __call__(self, *, scheduled: bool = False) -> Mapping[Removable, int]:
        """How much was removed, by kind; nothing where another process has done it within the last minute.

        Args:
            scheduled: False: in any case.
        Raises:
            StorageUnavailableError: the next run does the rest.
        """
        now = self.clock.now()
        if scheduled and not await self.schedule.take(_JOB, at=now, next_at=now + _EVERY):
            return {}
        removed: dict[Removable, int] = {
            "repeats": await in_steps(
                lambda: self.ledger.forget_repeats(before=now - self.kept.repeats, limit=AT_ONCE)
            ),
            "journals": await in_steps(lambda: self.journal.forget(before=now - self.kept.journals, limit=AT_ONCE)),
            "rate_limits": await in_steps(lambda: self.rate_limiter.forget(limit=AT_ONCE)),
        }
        if (keys := self.kept.revoked_keys) is not None:
            removed["revoked_keys"] = await in_steps(
                lambda: self.api_keys.forget_revoked(before=now - keys, limit=AT_ONCE)
            )
        removed["conversations"] = await self.purge.deleted()
        removed["expired_conversations"] = await self.purge.expired()
        if not scheduled or await self.schedule.take(_EACH_HOUR, at=now, next_at=now + _HOUR):
            removed |= await self._keep_ledger(now)
            removed["idle_conversations"] = await self.purge.idle()
        for kind, count in removed.items():
            if count:
                self.telemetry.emit(Removed(kind, count))
        return removed

    async def _keep_ledger(self, now: datetime) -> Mapping[Removable, int]:
        await self.upkeep.prepare(at=now)
        if (since := self.kept.ledger_since(now)) is None:
            return {}
        return {
            "entries": await in_steps(lambda: self.upkeep.forget_entries(before=since, limit=AT_ONCE)),
            "sessions": await in_steps(lambda: self.upkeep.forget_sessions(before=since, limit=AT_ONCE)),
        }
