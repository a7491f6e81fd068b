"""Whether something that the service stands on answers."""

from typing import Protocol


class HealthProbe(Protocol):
    """One part that must work. It never calls a paid API."""

    @property
    def name(self) -> str:
        """What it probes, as the health report names it, e.g. "database"."""
        ...

    async def check(self) -> str | None:
        """None when it answers in time; otherwise a sentence for operators that holds no secret. Never raises."""
        ...
