"""A clock that stands still until it is told otherwise."""

from datetime import datetime, timedelta


class FixedClock:
    """A `Clock` that starts at `now`, an aware UTC time."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now

    def advance(self, by: timedelta) -> None:
        """Let time pass."""
        self._now += by
