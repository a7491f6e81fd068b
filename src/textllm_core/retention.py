"""Lets go of what is kept for a time only."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from textllm_core.conversations import DeleteConversation
from textllm_core.errors import ConversationBusyError, ConversationNotFoundError
from textllm_core.ports.clock import Clock
from textllm_core.ports.conversation_repository import ConversationRepository
from textllm_core.ports.ledger import Ledger
from textllm_core.ports.rate_limiter import RateLimiter
from textllm_core.ports.reply_journal import ReplyJournal
from textllm_core.tenancy import Caller

_REPEATS_KEPT: Final = timedelta(hours=24)
_JOURNALS_KEPT: Final = timedelta(minutes=10)
_LIMITS_AT_ONCE: Final = 1000  # a few milliseconds of the database's time
_HIDDEN_AT_ONCE: Final = 100  # each is a transaction of its own, of some milliseconds
_MOST_HIDDEN: Final = 1000  # in a run each minute: 60,000 an hour in each worker; what is left goes with the next
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


@dataclass(frozen=True, slots=True)
class PurgeDeleted:
    """Erase conversations that were deleted long ago, and that nobody has restored since, in small steps.

    Any number of processes may run it at once.

    Args:
        kept: for how long they can be restored; None: for ever.
    """

    conversations: ConversationRepository
    delete: DeleteConversation
    clock: Clock
    kept: timedelta | None

    async def __call__(self) -> int:
        """How many were erased.

        Raises:
            StorageUnavailableError: the next run does the rest.
        """
        if self.kept is None:
            return 0
        total, before = 0, self.clock.now() - self.kept
        while total < _MOST_HIDDEN:
            hidden = await self.conversations.hidden(before=before, limit=_HIDDEN_AT_ONCE)
            erased = sum([await self._erase(tenant_id, conversation_id) for tenant_id, conversation_id in hidden])
            total += erased
            if erased < _HIDDEN_AT_ONCE:
                break
        return total

    async def _erase(self, tenant_id: str, conversation_id: str) -> bool:
        try:
            await self.delete(Caller(tenant_id), conversation_id, soft=False)
        except (ConversationNotFoundError, ConversationBusyError):  # another process, or another time
            return False
        return True
