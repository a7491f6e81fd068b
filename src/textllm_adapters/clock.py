"""The time of the machine."""

from datetime import UTC, datetime


class SystemClock:
    """A `Clock` that tells the machine's time."""

    def now(self) -> datetime:
        return datetime.now(UTC)
