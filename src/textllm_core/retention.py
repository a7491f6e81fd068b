"""Removes what nobody reads any more, in steps so small that nothing else waits for them."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from textllm_core.chat.replay import remembered_failure
from textllm_core.chat.turn_files import TurnFiles
from textllm_core.errors import ConversationBusyError, ConversationNotFoundError
from textllm_core.events import UNHEARD, Removable, Removed
from textllm_core.policy import Retention
from textllm_core.ports.api_key_repository import ApiKeyRepository
from textllm_core.ports.clock import Clock
from textllm_core.ports.conversation_repository import ConversationRepository
from textllm_core.ports.ledger import Ledger
from textllm_core.ports.ledger_upkeep import LedgerUpkeep
from textllm_core.ports.rate_limiter import RateLimiter
from textllm_core.ports.reply_journal import ReplyJournal
from textllm_core.ports.schedule import Schedule
from textllm_core.ports.telemetry import Telemetry
from textllm_core.tenancy import Caller

_JOB: Final = "remove_expired"
_OF_LEDGER: Final = "keep_ledger"
_EACH_MONTH_BY: Final = timedelta(hours=1)  # what has to be there, or may go, by the month need not be so on the minute
_EVERY: Final = timedelta(minutes=1)  # what is old by hours need not go on the second
_AT_ONCE: Final = 500  # rows of a step, some milliseconds of the database's time
_MOST_STEPS: Final = 400  # a run each minute keeps up with 3,000 new rows a second

_FOUND_AT_ONCE: Final = (
    100  # found by one statement; each is then erased by a transaction of its own, of some milliseconds
)
_MOST_PURGED: Final = 1000  # in a run each minute: 60,000 an hour; what is left goes with the next


@dataclass(frozen=True, slots=True)
class PurgeDeleted:
    """Erase conversations that were deleted long ago, and that nobody has restored since, one after the other.

    The provider is told by the next run of `EraseAtProvider`. Any number of processes may run it at once.

    Args:
        kept: for how long they can be restored; None: for ever.
    """

    conversations: ConversationRepository
    files: TurnFiles
    clock: Clock
    kept: timedelta | None

    async def __call__(self) -> int:
        """How many were erased.

        Raises:
            StorageUnavailableError: the next run does the rest.
        """
        if self.kept is None:
            return 0
        total, now = 0, self.clock.now()
        while total < _MOST_PURGED:
            hidden = await self.conversations.hidden(before=now - self.kept, limit=_FOUND_AT_ONCE)
            erased = sum([await _erase(self.conversations, self.files, *each, at=now) for each in hidden])
            total += erased
            if erased < _FOUND_AT_ONCE:
                break
        return total


@dataclass(frozen=True, slots=True)
class PurgeExpired:
    """Erase conversations that were made for a time, once nothing was said in them for so long.

    One in which something was said since is moved on: turns leave it alone, so that they cost no more for it.

    Args:
        kept: how long it is kept after its last turn.
    """

    conversations: ConversationRepository
    files: TurnFiles
    clock: Clock
    kept: timedelta

    async def __call__(self) -> int:
        """How many went; those that keep nothing, of which there may be one for each turn, by hundreds at a time.

        Raises:
            StorageUnavailableError: the next run does the rest.
        """
        now = self.clock.now()
        total = await _in_steps(lambda: self.conversations.forget_expired(at=now, limit=_AT_ONCE))
        for _ in range(_MOST_PURGED // _FOUND_AT_ONCE):
            found = await self.conversations.expired(at=now, limit=_FOUND_AT_ONCE)
            gone = 0
            for tenant_id, user_id, conversation_id, updated_at in found:
                if updated_at + self.kept > now:
                    await self.conversations.expire(tenant_id, user_id, conversation_id, at=updated_at + self.kept)
                else:
                    gone += await _erase(self.conversations, self.files, tenant_id, user_id, conversation_id, at=now)
            total += gone
            if len(found) < _FOUND_AT_ONCE:
                break
        return total


async def _erase(
    conversations: ConversationRepository,
    files: TurnFiles,
    tenant_id: str,
    user_id: str,
    conversation_id: str,
    *,
    at: datetime,
) -> bool:
    gone = remembered_failure(None, ConversationNotFoundError())
    try:
        keys = await conversations.erase(tenant_id, user_id, conversation_id, at=at, remembered=gone)
    except (ConversationNotFoundError, ConversationBusyError):  # another process, or another time
        return False
    await files.discard(Caller(tenant_id), user_id, keys)  # what stays is hidden, and swept
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveExpired:
    """Remove what is kept for a time only, as the operator's `Retention` says; of all processes one does it."""

    ledger: Ledger
    upkeep: LedgerUpkeep
    journal: ReplyJournal
    rate_limiter: RateLimiter
    api_keys: ApiKeyRepository
    purge_deleted: PurgeDeleted
    purge_expired: PurgeExpired
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
            "repeats": await _in_steps(
                lambda: self.ledger.forget_repeats(before=now - self.kept.repeats, limit=_AT_ONCE)
            ),
            "journals": await _in_steps(lambda: self.journal.forget(before=now - self.kept.journals, limit=_AT_ONCE)),
            "rate_limits": await _in_steps(lambda: self.rate_limiter.forget(limit=_AT_ONCE)),
        }
        if (keys := self.kept.revoked_keys) is not None:
            removed["revoked_keys"] = await _in_steps(
                lambda: self.api_keys.forget_revoked(before=now - keys, limit=_AT_ONCE)
            )
        removed["conversations"] = await self.purge_deleted()
        removed["expired_conversations"] = await self.purge_expired()
        if not scheduled or await self.schedule.take(_OF_LEDGER, at=now, next_at=now + _EACH_MONTH_BY):
            removed |= await self._keep_ledger(now)
        for kind, count in removed.items():
            if count:
                self.telemetry.emit(Removed(kind, count))
        return removed

    async def _keep_ledger(self, now: datetime) -> Mapping[Removable, int]:
        await self.upkeep.prepare(at=now)
        if (since := self.kept.ledger_since(now)) is None:
            return {}
        return {
            "entries": await _in_steps(lambda: self.upkeep.forget_entries(before=since, limit=_AT_ONCE)),
            "sessions": await _in_steps(lambda: self.upkeep.forget_sessions(before=since, limit=_AT_ONCE)),
        }


async def _in_steps(step: Callable[[], Awaitable[int]]) -> int:
    total = 0
    for _ in range(_MOST_STEPS):
        done = await step()
        total += done
        if done < _AT_ONCE:
            break
    return total
