"""How long something may take that comes in many steps."""

import asyncio
from types import TracebackType
from typing import Final, Self

NEVER: Final = float("inf")
_AT_WORK_S: Final = 1.0  # how soon to look again at who is at work without a limit: that ends in milliseconds


class Deadline:
    """As `asyncio.timeout_at`, for a block whose end is put off with every step: that costs no timer.

    Raises:
        TimeoutError: on leaving the block, where the time was up.
    """

    __slots__ = ("_at", "_cancelling", "_is_over", "_looks_at", "_loop", "_task", "_timer")

    def __init__(self, at: float) -> None:
        self._at = at
        self._is_over = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._loop, self._cancelling = task, asyncio.get_running_loop(), task.cancelling()
        self._look_at(self._at)
        return self

    def move(self, at: float) -> None:
        """The time is up then, by the clock of the loop; `NEVER` while the block does what has its own limits."""
        self._at = at
        if at < self._looks_at:
            self._timer.cancel()
            self._look_at(at)

    def _look_at(self, at: float) -> None:
        self._looks_at = at
        self._timer = self._loop.call_at(at, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        if now >= self._at:
            self._is_over = True
            self._task.cancel()
        else:
            self._look_at(now + _AT_WORK_S if self._at == NEVER else self._at)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._is_over and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
