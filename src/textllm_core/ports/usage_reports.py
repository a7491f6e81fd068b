"""What users used, added up as it was settled: a report costs what its period has days, whatever the ledger holds."""

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Protocol

from msgspec import Struct

from textllm_core.money import ZERO
from textllm_core.report_usage import UsageOfConversation


class DailyUsage(Struct, frozen=True):
    """All settled exchanges of a user with one model in one UTC day, that of their start.

    Args:
        model: as the provider names it; what differs only after the 255th character is one model.
        messages: turns that were answered.
        cost: USD.
        estimated_cost: the part of it whose usage the provider did not state.
    """

    day: date
    model: str
    messages: int
    input_tokens: int
    output_tokens: int
    cost: Decimal
    estimated_cost: Decimal = ZERO


class UsageReports(Protocol):
    """Reads what the `Ledger` adds up, for whoever was charged, be it in the place of other users.

    Every method raises StorageUnavailableError when the storage does not answer.
    """

    async def daily(self, tenant_id: str, user_id: str, first: date) -> Sequence[DailyUsage]:
        """The user's days from `first` on, in any order; a day and model without a settled exchange has none."""
        ...

    async def conversation_count(self, tenant_id: str, user_id: str, first: date) -> int:
        """In how many conversations the user spoke last on `first` or later; deleted ones count, erased ones do not."""
        ...

    async def newest_conversations(
        self, tenant_id: str, user_id: str, first: date, *, limit: int
    ) -> Sequence[UsageOfConversation]:
        """At most `limit` of them that are not deleted, by the day of the last turn, then by its end, newest first."""
        ...
