"""Erases what was deleted long ago."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from textllm_core.chat.replay import remembered_failure
from textllm_core.chat.turn_files import TurnFiles
from textllm_core.errors import ConversationBusyError, ConversationNotFoundError
from textllm_core.ports.clock import Clock
from textllm_core.ports.conversation_repository import ConversationRepository
from textllm_core.tenancy import Caller

_AT_ONCE: Final = 100  # found by one statement; each is then erased by a transaction of its own, of some milliseconds
_MOST: Final = 1000  # in a run each minute: 60,000 an hour in each worker; what is left goes with the next


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
        while total < _MOST:
            hidden = await self.conversations.hidden(before=now - self.kept, limit=_AT_ONCE)
            erased = sum([await self._erase(*each, at=now) for each in hidden])
            total += erased
            if erased < _AT_ONCE:
                break
        return total

    async def _erase(self, tenant_id: str, user_id: str, conversation_id: str, *, at: datetime) -> bool:
        gone = remembered_failure(None, ConversationNotFoundError())
        try:
            files = await self.conversations.erase(tenant_id, user_id, conversation_id, at=at, remembered=gone)
        except (ConversationNotFoundError, ConversationBusyError):  # another process, or another time
            return False
        await self.files.discard(Caller(tenant_id), files)  # what stays is hidden, and swept
        return True
