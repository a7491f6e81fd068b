"""A user's usage in one UTC day."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated

from msgspec import Meta

from textllm_core.errors import InvalidRequestError
from textllm_core.fields import CreatedAt, EstimatedUsd, Id, Usd
from textllm_core.money import ZERO
from textllm_core.wire import Record


class Session(Record, frozen=True):
    """A user's usage in one UTC day; money is USD. Ended, it reopens with the next turn of that day.

    Args:
        user_id: who is charged: the user, or in the place of users whom nobody named the `Caller.id` that asked.
    """

    id: Id
    user_id: Annotated[
        str, Meta(description="Whoever is charged: the user, or, for users whom nobody named, the caller.")
    ]
    created_at: CreatedAt
    last_activity: Annotated[datetime, Meta(description="The newest turn of that day, UTC.")]
    total_tokens: Annotated[int, Meta(description="Tokens read and written.")]
    total_cost: Usd
    conversation_count: Annotated[
        int, Meta(description="Conversations that had a turn in the session, each counted once.")
    ]
    is_active: Annotated[bool, Meta(description="False once it was ended, until the user's next turn of that day.")]
    estimated_cost: EstimatedUsd = ZERO


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
