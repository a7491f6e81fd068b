"""The check of the books: what each counter says, and what the ledger and the holds say it should."""

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from textllm_core.records.audit import BooksSize, Drift


class Audit(Protocol):
    """Recomputes the counters of all users. Every method raises StorageUnavailableError if the storage does not answer.

    - `conversations`: `total_cost`, `total_tokens_input`, `total_tokens_output` and `message_count` follow from the
      ledger, `message_count` from what was imported, too; `running`, 1 where an exchange is said to run in it, from
      the holds.
    - `sessions`: `total_cost` and `total_tokens` follow from the ledger, `reserved` from the holds;
      `conversation_count`, the number of conversations that have an entry or a hold in it, from both.
    - `daily_usage`: `messages`, `input_tokens`, `output_tokens` and `cost` follow from the ledger; no row is 0.
    - `ledger`: `running`, 1 for a `pending` entry, follows from the holds.

    Once a `LedgerUpkeep` has removed entries of days before some day, counters of sessions and daily usage of those
    days, and of conversations that were made then, are right unless they say less than the entries that are left.
    """

    def drifts(self) -> AsyncGenerator[Drift, None]:
        """Every counter that has drifted. Turns may run: what they move at once is seen moved, or not at all."""
        ...

    async def repair(self, tenant_id: str, user_id: str) -> Sequence[Drift]:
        """Set one user's counters right, in one transaction, while nothing else can move them; what they said before.

        A `pending` entry without a hold is left as it is: nobody knows what it cost.
        """
        ...

    async def size(self) -> BooksSize:
        """How much there is to check."""
        ...
