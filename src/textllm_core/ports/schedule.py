"""Who does what is to be done from time to time, among all processes of a service."""

from datetime import datetime
from typing import Protocol


class Schedule(Protocol):
    """When each job is due. Of all processes that ask at the same time, one is told to do it.

    Every method raises StorageUnavailableError when the storage does not answer.
    """

    async def take(self, job: str, *, at: datetime, next_at: datetime) -> bool:
        """Whether the caller is to do the job now. Then it is due again at `next_at`, whatever becomes of the caller.

        Args:
            job: its name, at most 255 characters.
            at: now. A job that is due later than twice the time from then to `next_at` is due now: a clock was wrong.
        """
        ...
