"""Lets go of what is kept for a time only."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from textllm_core.ports.clock import Clock
from textllm_core.ports.ledger import Ledger
from textllm_core.ports.reply_journal import ReplyJournal

_REPEATS_KEPT: Final = timedelta(hours=24)
_JOURNALS_KEPT: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class ForgetReplies:
    """Forget what repeats of a turn are told, a day after it, and what a reply said, ten minutes after its end."""

    ledger: Ledger
    journal: ReplyJournal
    clock: Clock

    async def __call__(self) -> None:
        """
        Raises:
            StorageUnavailableError: the next run does it.
        """
        now = self.clock.now()
        await self.ledger.forget_repeats(before=now - _REPEATS_KEPT)
        await self.journal.forget(before=now - _JOURNALS_KEPT)
