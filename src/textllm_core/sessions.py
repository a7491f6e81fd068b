"""Sessions: a user's usage in one UTC day, and the day's budget."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

from msgspec import Struct


class Session(Struct, frozen=True):
    """A user's usage in one UTC day; money is USD. Ended, it reopens with the next turn of that day."""

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
