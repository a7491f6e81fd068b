"""The exchanges of one process while they run: their tasks and their leases."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from textllm_core.chat.reply_log import ReplyLog
from textllm_core.errors import ServiceUnavailableError, StorageUnavailableError
from textllm_core.events import UNHEARD, ExchangesRunning
from textllm_core.ports.clock import Clock
from textllm_core.ports.ledger import Ledger
from textllm_core.ports.reply_journal import ReplyJournal
from textllm_core.ports.telemetry import Telemetry
from textllm_core.records.ledger import Hold

# A dead process's conversation is free again, and its readers have their last event, within 30 s of its death: the
# lease, a run of recovery that is under way (5 s: it asks the provider twice, 2 s each), the pause after it (3 s), and
# the run that settles (3 s).
LEASE: Final = timedelta(seconds=15)
WATCH: Final = timedelta(seconds=30)  # how long somebody who reads elsewhere is believed to be still there
_RENEW_EVERY_S: Final = 4.0  # so that a lease outlasts two renewals that failed
_LOOK_EVERY_S: Final = 1.0


@dataclass(slots=True, eq=False)
class Running:
    """One exchange that runs in this process. `is_cancelled`: somebody who may asked to cut it short."""

    hold: Hold
    log: ReplyLog
    task: asyncio.Task[None]
    is_cancelled: bool = False

    def cancel(self) -> None:
        """Cut it short; what is written of it stays."""
        self.is_cancelled = True
        self.task.cancel()


class RunningExchanges:
    """Owns the tasks of a process's exchanges, so that none depends on whoever asked for it.

    Args:
        journal: tells who reads from another process, and what is to be cancelled from there.
        max_detached: how many exchanges may run on without a reader; the next one left alone is cut short, and settled.
        drain_s: for how long, in seconds, each of them may.
        max_running: how many exchanges may run at once; the next one is refused.
        max_starting: how many may be on their way to being admitted at once; the next ones wait, in their order.
        start_timeout_s: for how long, in seconds; then they are refused.
    Attributes:
        is_winding_down: this process starts nothing any more, and will end soon.
    """

    def __init__(
        self,
        journal: ReplyJournal,
        clock: Clock,
        *,
        max_detached: int = 256,
        drain_s: float = 120.0,
        max_running: int = 16_384,
        max_starting: int = 8,
        start_timeout_s: float = 20.0,
        telemetry: Telemetry = UNHEARD,
    ) -> None:
        self._journal, self._clock, self._telemetry = journal, clock, telemetry
        self._max_detached, self._drain_s, self._max_running = max_detached, drain_s, max_running
        self.is_winding_down = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._detached: dict[asyncio.Task[None], asyncio.Task[None]] = {}
        self._by_response: dict[str, Running] = {}
        self._held = Decimal(0)
        self._start_timeout_s = start_timeout_s
        self._starting = asyncio.Semaphore(max_starting)
        self._looking: asyncio.Task[None] | None = None

    def start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run `work` to its end, whoever waits for it.

        Raises:
            ServiceUnavailableError: as many run as may, or this process takes no more; nothing of it was done.
        """
        if self.is_winding_down or len(self._tasks) >= self._max_running:
            work.close()
            why = "is shutting down" if self.is_winding_down else "runs as many turns as it can"
            raise ServiceUnavailableError(f"The service {why}; send this one again.")
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @asynccontextmanager
    async def starting(self) -> AsyncIterator[None]:
        """The block is one of the few that start: a burst waits here, and not in the way of what is paid for already.

        Raises:
            ServiceUnavailableError: so many were before it that its turn never came; nothing of it was done.
        """
        try:
            async with asyncio.timeout(self._start_timeout_s):
                await self._starting.acquire()
        except TimeoutError:
            raise ServiceUnavailableError("More turns came than the service can start; send this one again.") from None
        try:
            yield
        finally:
            self._starting.release()

    def admit(self, hold: Hold, log: ReplyLog) -> Running:
        """The current task carries out this exchange, until it is released."""
        task = asyncio.current_task()
        assert task is not None
        running = self._by_response[hold.response_id] = Running(hold, log, task)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_for_cancellations())
        self._held += hold.amount
        self._state_load()
        return running

    def release(self, hold: Hold) -> None:
        """The exchange has been carried out."""
        del self._by_response[hold.response_id]
        self._held -= hold.amount
        self._state_load()
        if self._looking is not None and not self._by_response:
            self._looking.cancel()
            self._looking = None

    def find(self, tenant_id: str, user_id: str | None, response_id: str) -> Running | None:
        """The exchange of this user, or of any of the tenant's; None where this process does not run it."""
        running = self._by_response.get(response_id)
        if running is None or running.hold.tenant_id != tenant_id or user_id not in (None, running.hold.user_id):
            return None
        return running

    def joined(self, task: asyncio.Task[None]) -> None:
        """Say that the task's log has a reader again."""
        if (waiting := self._detached.pop(task, None)) is not None:
            waiting.cancel()
            self._state_load()

    def left(self, task: asyncio.Task[None], log: ReplyLog) -> None:
        """Say that a reader of the task's log has gone; the last one leaves it detached, unless the log has ended."""
        if log.has_readers or log.is_closed or task.done() or task in self._detached:
            return
        if len(self._detached) >= self._max_detached:
            task.cancel()
            return
        self._detached[task] = asyncio.create_task(self._drain_out(task))
        task.add_done_callback(self.joined)
        self._state_load()

    def _state_load(self) -> None:
        self._telemetry.emit(
            ExchangesRunning(count=len(self._by_response), detached=len(self._detached), held=self._held)
        )

    async def _drain_out(self, task: asyncio.Task[None]) -> None:
        """Give a detached exchange its time, and more for as long as it is read elsewhere."""
        await asyncio.sleep(self._drain_s)
        while await self._is_watched(task):  # noqa: ASYNC110 - the watcher is in another process
            await asyncio.sleep(WATCH.total_seconds() / 2)
        task.cancel()

    async def _is_watched(self, task: asyncio.Task[None]) -> bool:
        running = next((running for running in self._by_response.values() if running.task is task), None)
        try:
            return running is not None and await self._journal.is_watched(running.hold, at=self._clock.now())
        except StorageUnavailableError:
            return False

    async def _look_for_cancellations(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            with suppress(StorageUnavailableError):  # asked again
                for tenant_id, user_id, response_id in await self._journal.asked_to_cancel():
                    running = self.find(tenant_id, user_id, response_id)
                    if running is not None and not running.is_cancelled:
                        running.cancel()

    def refuse_new(self) -> None:
        """Start nothing any more."""
        self.is_winding_down = True

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

    def keep(self, hold: Hold) -> None:
        """Keep the exchange's lease alive, until it is let go."""
        self._holds[hold.response_id] = hold
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew())

    def let_go(self, hold: Hold) -> None:
        """Renew its lease no more."""
        del self._holds[hold.response_id]
        if self._renewing is not None and not self._holds:
            self._renewing.cancel()
            self._renewing = None

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(_RENEW_EVERY_S)
            with suppress(StorageUnavailableError):
                await self.ledger.renew(tuple(self._holds.values()), lease_until=self.until())
