"""What users used, added up as it was settled: a report costs what its period has days, whatever the ledger holds.

One by conversation costs what the user has entries in its period.
"""

from collections.abc import Sequence
from datetime import date
from typing import Protocol

from textllm_core.records.usage_reports import DailyUsage, UsageOfConversation


class UsageReports(Protocol):
    """Reads what the `Ledger` adds up, for whoever was charged, be it in the place of other users.

    Every method raises StorageUnavailableError when the storage does not answer.
    """

    async def daily(self, tenant_id: str, user_id: str | None, first: date) -> Sequence[DailyUsage]:
        """The user's days from `first` on, in any order; a day and model without a settled exchange has none.

        Without a user those of all users of the tenant together.
        """
        ...

    async def conversation_count(self, tenant_id: str, user_id: str | None, first: date) -> int:
        """In how many conversations the user spoke last on `first` or later, without a user anybody of the tenant.

        Deleted ones count; erased ones do not, nor those whose last session has been removed.
        """
        ...

    async def newest_conversations(
        self, tenant_id: str, user_id: str, first: date, *, limit: int
    ) -> tuple[Sequence[UsageOfConversation], UsageOfConversation]:
        """At most `limit` conversations with what each used from `first` on, the newest turn first; and the sum of all.

        They are those in which there is a settled exchange of these days in the ledger, but for deleted ones and those
        that go by themselves. The sum, which has no id, is that of `daily` at the same moment: what others have used is
        in it, too, and what has gone from the ledger.
        """
        ...
