"""The exchanges of one process while they run: their tasks and their leases."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from textllm_core.chat.reply_log import ReplyLog
from textllm_core.errors import ServiceUnavailableError, StorageUnavailableError
from textllm_core.ports.clock import Clock
from textllm_core.ports.ledger import Hold, Ledger

LEASE: Final = timedelta(seconds=45)
_RENEW_EVERY_S: Final = 15.0  # so that a lease outlasts two renewals that failed


class RunningExchanges:
    """Owns the tasks of a process's exchanges, so that none depends on whoever asked for it.

    Args:
        max_detached: how many exchanges may run on without a reader; the next one left alone is cut short, and settled.
        drain_s: for how long, in seconds, each of them may.
        max_running: how many exchanges may run at once; the next one is refused.
    """

    def __init__(self, *, max_detached: int = 256, drain_s: float = 120.0, max_running: int = 16_384) -> None:
        self._max_detached, self._drain_s, self._max_running = max_detached, drain_s, max_running
        self._refuses_new = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._detached: set[asyncio.Task[None]] = set()
        self._by_hold: dict[str, tuple[Hold, asyncio.Task[None]]] = {}

    def start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run `work` to its end, whoever waits for it.

        Raises:
            ServiceUnavailableError: as many run as may, or this process takes no more; nothing of it was done.
        """
        if self._refuses_new or len(self._tasks) >= self._max_running:
            work.close()
            raise ServiceUnavailableError(is_stopping=self._refuses_new)
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def admitted(self, hold: Hold) -> None:
        """Say which exchange the current task carries out."""
        task = asyncio.current_task()
        assert task is not None
        self._by_hold[hold.response_id] = (hold, task)
        task.add_done_callback(lambda _: self._by_hold.pop(hold.response_id))

    async def cancel(self, tenant_id: str, user_id: str | None, response_id: str) -> bool:
        """Cut the exchange of this user, or of any of the tenant's, short; wait until it is settled.

        False where this process runs no such exchange.
        """
        hold, task = self._by_hold.get(response_id, (None, None))
        if hold is None or task is None or hold.tenant_id != tenant_id or user_id not in (None, hold.user_id):
            return False
        task.cancel()
        await asyncio.wait({task})
        return True

    def left(self, task: asyncio.Task[None], log: ReplyLog) -> None:
        """Say that a reader of the task's log has gone; the last one leaves it detached."""
        if log.has_readers or task.done():
            return
        if len(self._detached) >= self._max_detached:
            task.cancel()
            return
        self._detached.add(task)
        task.add_done_callback(self._detached.discard)
        deadline = asyncio.get_running_loop().call_later(self._drain_s, task.cancel)
        task.add_done_callback(lambda _: deadline.cancel())

    def refuse_new(self) -> None:
        """Start nothing any more."""
        self._refuses_new = True

    async def drain(self, timeout_s: float) -> None:
        """Let what runs come to its end; after `timeout_s` cut it short, and settle it."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in self._tasks:
            if not task.cancelling():  # else it is being settled, which must not be cut short
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@dataclass(slots=True)
class Leases:
    """Renews the leases of all exchanges of a process together, for as long as there are any."""

    ledger: Ledger
    clock: Clock
    _holds: dict[str, Hold] = field(default_factory=dict)
    _renewing: asyncio.Task[None] | None = None

    def until(self) -> datetime:
        """The end of a lease that begins now."""
        return self.clock.now() + LEASE

    @contextmanager
    def kept(self, hold: Hold) -> Iterator[None]:
        """Keep the exchange's lease alive while the block runs."""
        self._holds[hold.response_id] = hold
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew())
        try:
            yield
        finally:
            del self._holds[hold.response_id]
            if not self._holds:
                self._renewing.cancel()
                self._renewing = None

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(_RENEW_EVERY_S)
            with suppress(StorageUnavailableError):
                await self.ledger.renew(tuple(self._holds.values()), lease_until=self.until())


async def carried_through(work: Coroutine[None, None, None]) -> None:
    """Run `work` to its end, also when cancelled meanwhile; the cancellation goes on afterwards."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise
