"""What users used, added up as it was settled: a report costs what its period has days, whatever the ledger holds."""

from collections.abc import Sequence
from datetime import date
from typing import Protocol

from textllm_core.records.usage_reports import DailyUsage, UsageOfConversation


class UsageReports(Protocol):
    """Reads what the `Ledger` adds up, for whoever was charged, be it in the place of other users.

    Every method raises StorageUnavailableError when the storage does not answer.
    """

    async def daily(self, tenant_id: str, user_id: str, first: date) -> Sequence[DailyUsage]:
        """The user's days from `first` on, in any order; a day and model without a settled exchange has none."""
        ...

    async def conversation_count(self, tenant_id: str, user_id: str, first: date) -> int:
        """In how many conversations the user spoke last on `first` or later; deleted ones count, erased ones do not.

        Nor do those whose last session has been removed.
        """
        ...

    async def newest_conversations(
        self, tenant_id: str, user_id: str, first: date, *, limit: int
    ) -> Sequence[UsageOfConversation]:
        """At most `limit` of them that are not deleted, by the day of the last turn, then by its end, newest first."""
        ...
