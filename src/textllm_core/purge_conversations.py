"""Erases conversations that nobody needs any more, one after the other."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from textllm_core.chat.replay import remembered_failure
from textllm_core.chat.turn_files import TurnFiles
from textllm_core.errors import ConversationBusyError, ConversationNotFoundError
from textllm_core.policy import Retention
from textllm_core.ports.clock import Clock
from textllm_core.ports.conversation_repository import ConversationRepository

AT_ONCE: Final = 500  # rows of a step, some milliseconds of the database's time
_MOST_STEPS: Final = 400  # a run each minute keeps up with 3,000 new rows a second
_FOUND_AT_ONCE: Final = (
    100  # found by one statement; each is then erased by a transaction of its own, of some milliseconds
)
_MOST_PURGED: Final = 1000  # in a run each minute: 60,000 an hour; what is left goes with the next
_MOST_IDLE_PURGED: Final = 50_000  # in a run each hour, some minutes of it


@dataclass(frozen=True, slots=True)
class PurgeConversations:
    """Erase conversations that were deleted long ago, were made for a time, or that nobody goes on with.

    The provider is told by the next run of `EraseAtProvider`. Any number of processes may run it at once.
    Each raises StorageUnavailableError: the next run does the rest.
    """

    conversations: ConversationRepository
    files: TurnFiles
    clock: Clock
    kept: Retention

    async def deleted(self) -> int:
        """How many went that were deleted long ago, and that nobody has restored since."""
        if self.kept.deleted is None:
            return 0
        total, now = 0, self.clock.now()
        while total < _MOST_PURGED:
            before = now - self.kept.deleted
            hidden = await self.conversations.hidden(before=before, limit=_FOUND_AT_ONCE)
            erased = sum([await self._erase(*each, at=now, hidden_before=before) for each in hidden])
            total += erased
            if erased < _FOUND_AT_ONCE:
                break
        return total

    async def expired(self) -> int:
        """How many went that were made for a time; those that keep nothing go by hundreds, there may be one a turn.

        One in which something was said since is moved on: turns leave it alone, so that they cost no more for it.
        """
        now = self.clock.now()
        total = await in_steps(lambda: self.conversations.forget_expired(at=now, limit=AT_ONCE))
        for _ in range(_MOST_PURGED // _FOUND_AT_ONCE):
            found = await self.conversations.expired(at=now, limit=_FOUND_AT_ONCE)
            gone = 0
            for tenant_id, user_id, conversation_id, updated_at in found:
                goes_at = updated_at + self.kept.responses
                if goes_at > now:
                    await self.conversations.expire(tenant_id, user_id, conversation_id, at=goes_at)
                else:
                    silent = now - self.kept.responses
                    gone += await self._erase(tenant_id, user_id, conversation_id, at=now, silent_since=silent)
            total += gone
            if len(found) < _FOUND_AT_ONCE:
                break
        return total

    async def idle(self) -> int:
        """How many went in which nothing was said for long, deleted ones too.

        It reads all that are older than that. Those are gone but for the ones that somebody goes on with.
        """
        if self.kept.conversations is None:
            return 0
        total, now, after = 0, self.clock.now(), None
        since = now - self.kept.conversations
        while total < _MOST_IDLE_PURGED:
            old = await self.conversations.begun(before=since, after=after, limit=AT_ONCE)
            for each in old:
                if each.updated_at <= since:
                    total += await self._erase(each.tenant_id, each.user_id, each.id, at=now, silent_since=since)
            if len(old) < AT_ONCE:
                break
            after = old[-1]
        return total

    async def _erase(
        self,
        tenant_id: str,
        user_id: str,
        conversation_id: str,
        *,
        at: datetime,
        silent_since: datetime | None = None,
        hidden_before: datetime | None = None,
    ) -> bool:
        gone = remembered_failure(None, ConversationNotFoundError())
        try:
            keys = await self.conversations.erase(
                tenant_id,
                user_id,
                conversation_id,
                at=at,
                remembered=gone,
                silent_since=silent_since,
                hidden_before=hidden_before,
            )
        except (ConversationNotFoundError, ConversationBusyError):  # another process, another time, or restored
            return False
        await self.files.discard(tenant_id, user_id, keys)  # what stays is hidden, and swept
        return True


async def in_steps(step: Callable[[], Awaitable[int]]) -> int:
    """The sum of what the steps did, each of which does at most `AT_ONCE`."""
    total = 0
    for _ in range(_MOST_STEPS):
        done = await step()
        total += done
        if done < AT_ONCE:
            break
    return total
