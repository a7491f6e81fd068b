"""A user's usage in one UTC day."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

from msgspec import Struct

from textllm_core.errors import InvalidRequestError


class Session(Struct, frozen=True):
    """A user's usage in one UTC day; money is USD. Ended, it reopens with the next turn of that day.

    Args:
        user_id: who is charged: the user, or in the place of users whom nobody named the `Caller.id` that asked.
    """

    id: str
    user_id: str
    created_at: datetime
    last_activity: datetime
    total_tokens: int
    total_cost: Decimal
    conversation_count: int
    is_active: bool


def day_of(at: datetime) -> date:
    """The UTC day of an aware time."""
    return at.astimezone(UTC).date()


def end_of(day: date) -> datetime:
    """The next UTC midnight: when the day's budget resets."""
    return datetime.combine(day + timedelta(days=1), time(), UTC)


def first_of_last(days: int, now: datetime, *, at_most: int) -> date:
    """The first of the last `days` UTC days, today included; InvalidRequestError unless they are 1 to `at_most`."""
    if not 1 <= days <= at_most:
        raise InvalidRequestError.of("days", f"must be a whole number from 1 to {at_most}")
    return day_of(now) - timedelta(days=days - 1)
