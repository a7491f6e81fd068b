"""Work that comes round every so often, for as long as there is some to do."""

import asyncio
from collections.abc import Awaitable, Callable


class Rounds:
    """Does `work` every `every_s` seconds from `start` on, for as long as it is needed; then it may be started again.

    Nothing runs between the rounds, so that what is over before the first one costs next to nothing.
    """

    __slots__ = ("_every_s", "_is_needed", "_round", "_timer", "_work")

    def __init__(self, work: Callable[[], Awaitable[None]], *, every_s: float, is_needed: Callable[[], bool]) -> None:
        self._work, self._every_s, self._is_needed = work, every_s, is_needed
        self._timer: asyncio.TimerHandle | None = None
        self._round: asyncio.Task[None] | None = None

    def start(self) -> None:
        """See that the rounds go on."""
        if self._timer is None and self._round is None:
            self._timer = asyncio.get_running_loop().call_later(self._every_s, self._begin)

    async def stop(self) -> None:
        """Begin no further round, and let the one that is under way come to its end."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._round is not None:
            await asyncio.wait([self._round])

    def _begin(self) -> None:
        self._timer = None
        if self._is_needed():
            self._round = asyncio.create_task(self._do())

    async def _do(self) -> None:
        try:
            await self._work()
        finally:
            self._round = None
            if self._is_needed():
                self.start()
