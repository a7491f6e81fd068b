"""Lets go of what is kept for a time only."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from textllm_core.ports.clock import Clock
from textllm_core.ports.ledger import Ledger
from textllm_core.ports.rate_limiter import RateLimiter
from textllm_core.ports.reply_journal import ReplyJournal

_REPEATS_KEPT: Final = timedelta(hours=24)
_JOURNALS_KEPT: Final = timedelta(minutes=10)
_LIMITS_AT_ONCE: Final = 1000  # a few milliseconds of the database's time
_MOST_STEPS: Final = 100  # a run each minute keeps up with 1,600 new users a second


@dataclass(frozen=True, slots=True)
class ForgetReplies:
    """Forget what repeats of a turn are told, a day after it, and what a reply said, ten minutes after its end.

    And rate limits that nobody has used for an hour, so many at once that nothing else waits for it.
    """

    ledger: Ledger
    journal: ReplyJournal
    rate_limiter: RateLimiter
    clock: Clock

    async def __call__(self) -> None:
        """
        Raises:
            StorageUnavailableError: the next run does it.
        """
        now = self.clock.now()
        await self.ledger.forget_repeats(before=now - _REPEATS_KEPT)
        await self.journal.forget(before=now - _JOURNALS_KEPT)
        for _ in range(_MOST_STEPS):
            if await self.rate_limiter.forget(limit=_LIMITS_AT_ONCE) < _LIMITS_AT_ONCE:
                break
