"""What keeps the ledger from growing for ever, and ready for the months to come."""

from datetime import date, datetime
from typing import Protocol


class LedgerUpkeep(Protocol):
    """Removes old entries and sessions, month by month; turns go on meanwhile, and wait for none of it.

    `DailyUsage`, the small record of what was spent, stays for ever. Every method raises StorageUnavailableError when
    the storage does not answer; the next call does the rest.
    """

    async def prepare(self, *, at: datetime) -> None:
        """Make ready for the entries of the months from then on, where the storage has a place for each month.

        Entries of a month that nobody has prepared are kept as well.
        """
        ...

    async def forget_entries(self, *, before: date, limit: int) -> int:
        """Remove entries of exchanges that began before that UTC day, the first of a month; about how many.

        From then on an `Audit` takes what counters say of the time before for right, unless it is less than what is
        left. At most `limit` go, or all of a month, where the storage has a place for it; what somebody is reading
        just then may stay until the next call.
        """
        ...

    async def forget_sessions(self, *, before: date, limit: int) -> int:
        """Remove at most `limit` sessions of days before then in which no exchange runs; how many."""
        ...
