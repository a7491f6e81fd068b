"""What running replies have said so far, where every process of the service can read it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from textllm_core.records.journal import JournalEntry, JournalPage
from textllm_core.records.ledger import Hold


class ReplyJournal(Protocol):
    """Keeps the events of resumable exchanges while they run, and for a while after.

    The first event of one is written by `Ledger.pend`, its last ones and its end by `Ledger.settle`, in their
    transactions. Every method raises StorageUnavailableError when the storage does not answer.
    """

    async def write(self, entries: Sequence[JournalEntry]) -> None:
        """Keep the events. What starts with an event that is kept already takes its place."""
        ...

    async def read(self, tenant_id: str, user_id: str | None, response_id: str, *, after: int) -> JournalPage | None:
        """What follows the event numbered `after` (0: everything).

        None where the tenant, or this user of it, has no such resumable exchange, or has it no more.
        """
        ...

    async def watch(self, tenant_id: str, user_id: str, response_id: str, *, until: datetime) -> None:
        """Say that somebody reads the running exchange from the journal, and will until then."""
        ...

    async def is_watched(self, hold: Hold, *, at: datetime) -> bool:
        """Whether somebody does."""
        ...

    async def ask_to_cancel(self, tenant_id: str, user_id: str, response_id: str) -> None:
        """Ask the process that runs the exchange to cut it short; nothing where it runs no more."""
        ...

    async def asked_to_cancel(self) -> Sequence[tuple[str, str, str]]:
        """The tenant, user and response of every running exchange that is to be cut short, in whatever process."""
        ...

    async def forget(self, *, before: datetime, limit: int) -> int:
        """Forget at most `limit` exchanges that ended before then; how many."""
        ...
