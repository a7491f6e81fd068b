"""Statistics: what a user, or all of a tenant, asked for and paid, by day, by model and by conversation."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final, TypeVar

from textllm_core.money import ZERO, exact
from textllm_core.ports.clock import Clock
from textllm_core.ports.usage_reports import UsageReports
from textllm_core.records.sessions import first_of_last
from textllm_core.records.usage_reports import DailyUsage, UsageOfConversation, UsageOfDay, UsageOfModel, UsageReport
from textllm_core.tenancy import Caller

MAX_USAGE_DAYS: Final = 3660
_MAX_CONVERSATIONS: Final = 100

K = TypeVar("K", date, str)


@dataclass(frozen=True, slots=True)
class ReportUsage:
    """Statistics of one user over the last UTC days, today included; zeros for one who was never seen.

    Both methods raise the same.

    Raises:
        InvalidRequestError: `days` is not 1 to 3660, or `user_id` is malformed.
        NotFoundError: the caller may not act for the user.
    """

    reports: UsageReports
    clock: Clock

    async def __call__(self, caller: Caller, user_id: str | None, *, days: int) -> UsageReport:
        """The totals of `days` days, and what they are made of; without a user of all for whom the caller acts."""
        acting_for = caller.acts_for(user_id)
        user = None if acting_for is None else caller.pays_for(acting_for) or acting_for
        first = first_of_last(days, self.clock.now(), at_most=MAX_USAGE_DAYS)
        used = await self.reports.daily(caller.tenant_id, user, first)
        by_day = [UsageOfDay(day, *_sums(rows)) for day, rows in sorted(_grouped(used, lambda row: row.day).items())]
        by_model = [UsageOfModel(model, *_sums(rows)) for model, rows in _grouped(used, lambda row: row.model).items()]
        return UsageReport(
            await self.reports.conversation_count(caller.tenant_id, user, first),
            *_sums(used),
            by_day=by_day,
            by_model=sorted(by_model, key=lambda of: (-of.cost, -of.tokens_input - of.tokens_output, of.model)),
        )

    async def by_conversation(self, caller: Caller, user_id: str, *, days: int) -> Sequence[UsageOfConversation]:
        """What each conversation used in these days, the newest turn first, at most 100; last what is left, if any.

        The rows add up to the totals of the same days, whichever conversations were deleted or have no row.
        """
        user = caller.acts_for(user_id) or user_id
        user = caller.pays_for(user) or user
        first, tenant_id = first_of_last(days, self.clock.now(), at_most=MAX_USAGE_DAYS), caller.tenant_id
        newest, total = await self.reports.newest_conversations(tenant_id, user, first, limit=_MAX_CONVERSATIONS)
        rest = _left(total, newest)
        return [*newest, rest] if any(_numbers(rest)) else newest


def _grouped(rows: Iterable[DailyUsage], key: Callable[[DailyUsage], K]) -> Mapping[K, Sequence[DailyUsage]]:
    groups: dict[K, list[DailyUsage]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


def _left(total: UsageOfConversation, rows: Iterable[UsageOfConversation]) -> UsageOfConversation:
    messages, tokens_input, tokens_output, cost, estimated = _numbers(total)
    for row in rows:
        messages -= row.messages
        tokens_input -= row.tokens_input
        tokens_output -= row.tokens_output
        cost -= row.cost
        estimated -= row.estimated_cost
    return UsageOfConversation(None, None, messages, tokens_input, tokens_output, exact(cost), exact(estimated))


def _numbers(of: UsageOfConversation) -> tuple[int, int, int, Decimal, Decimal]:
    return of.messages, of.tokens_input, of.tokens_output, of.cost, of.estimated_cost


def _sums(rows: Iterable[DailyUsage]) -> tuple[int, int, int, Decimal, Decimal]:
    """Messages, input tokens, output tokens, USD, and those of them that are estimated."""
    messages, tokens_input, tokens_output, cost, estimated = 0, 0, 0, ZERO, ZERO
    for row in rows:
        messages += row.messages
        tokens_input += row.input_tokens
        tokens_output += row.output_tokens
        cost += row.cost
        estimated += row.estimated_cost
    return messages, tokens_input, tokens_output, exact(cost), exact(estimated)
