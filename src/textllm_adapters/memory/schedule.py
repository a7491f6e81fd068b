"""When jobs are due, in memory."""

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class MemorySchedule:
    """A `Schedule` of one process."""

    _due: dict[str, datetime] = field(default_factory=dict)

    async def take(self, job: str, *, at: datetime, next_at: datetime) -> bool:
        due = self._due.get(job, at)
        if at < due <= next_at + (next_at - at):
            return False
        self._due[job] = next_at
        return True
