"""What changes while a worker serves: whether it leaves, and whom it still owes an answer."""

import asyncio
from dataclasses import dataclass, field


class Unanswered:
    """The requests whose answers have not begun, so that none is left without one when the process ends."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[object]] = set()
        self._is_over = False

    def refuse(self) -> None:
        """Give up what is done for them, and say so."""
        self._is_over = True
        for task in self.tasks:
            task.cancel()

    def is_refused(self, task: asyncio.Task[object]) -> bool:
        return self._is_over and task in self.tasks


@dataclass(slots=True)
class WorkerState:
    """Set by the worker, heeded by what answers requests."""

    is_leaving: bool = False  # connections are not kept
    is_stopping: bool = False  # and the whole service goes with it
    unanswered: Unanswered = field(default_factory=Unanswered)
