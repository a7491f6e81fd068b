"""The exchanges of one process while they run: who reads them, what ends them early, what is done for all of them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from decimal import Decimal
from typing import Final

from msgspec.structs import replace

from textllm_core.chat.reply_log import ReplyLog
from textllm_core.chat.rounds import Rounds
from textllm_core.errors import ServiceUnavailableError, StorageUnavailableError, TextLLMError
from textllm_core.events import UNHEARD, ExchangesRunning
from textllm_core.ports.clock import Clock
from textllm_core.ports.reply_journal import ReplyJournal
from textllm_core.ports.telemetry import Telemetry
from textllm_core.records.ledger import Hold
from textllm_core.records.response_turns import CANCELLED
from textllm_core.records.stored_responses import ResponseFailure

# A dead process's conversation is free again, and its readers have their last event, within 30 s of its death: the
# lease, a run of recovery that is under way (5 s: it asks the provider twice, 2 s each), the pause after it (3 s), and
# the run that settles (3 s).
LEASE: Final = timedelta(seconds=15)
RENEW_EVERY_S: Final = 4.0  # so that a lease outlasts two renewals that failed
WATCH: Final = timedelta(seconds=30)  # how long somebody who reads elsewhere is believed to be still there
LOOK_EVERY_S: Final = 1.0  # how soon a cancellation through another process is heard of


class Running:
    """One exchange that runs in this process, from the moment that it is asked for.

    Attributes:
        hold: once it is admitted.
        is_cancelled: somebody who may has asked to cut it short.
        is_cut_short: it is to end early, for whatever reason.
        has_noted: what the provider had stated of its usage, at some time, is written down.
        admitted: done once it is admitted, where somebody waits for that.
    """

    __slots__ = (
        "_is_protected",
        "admitted",
        "drain",
        "has_noted",
        "hold",
        "is_cancelled",
        "is_cut_short",
        "log",
        "task",
    )

    task: asyncio.Task[None]

    def __init__(self) -> None:
        self.log = ReplyLog()
        self.hold: Hold | None = None
        self.admitted: asyncio.Future[None] | None = None
        self.drain: asyncio.TimerHandle | asyncio.Task[None] | None = None
        self.is_cancelled = self.is_cut_short = self._is_protected = self.has_noted = False

    @property
    def renewed(self) -> Hold | None:
        """Its hold, with what is known of the reply's costs by now."""
        hold, log = self.hold, self.log
        if hold is None or not (log.thought or log.counted):
            return hold
        return replace(hold, thought=log.thought, counted=log.counted)

    def failure_of(self, error: TextLLMError) -> ResponseFailure:
        """What its response, where that can be asked for again, is kept with once this error has ended it."""
        return ResponseFailure(CANCELLED if self.is_cancelled else error.code, str(error))

    def cancel(self) -> None:
        """Cut it short for its user; what is written of it stays."""
        self.is_cancelled = True
        self.cut_short()

    def cut_short(self) -> None:
        """End it early. What must not be broken off, as its settlement, comes to its end first."""
        if not self.is_cut_short:
            self.is_cut_short = True
            if not self._is_protected:
                self.task.cancel()

    def protect(self) -> None:
        """From here on its task is not broken off."""
        self._is_protected = True

    def expose(self) -> None:
        """From here on it may be.

        Raises:
            asyncio.CancelledError: it was to be, while it could not.
        """
        self._is_protected = False
        if self.is_cut_short:
            raise asyncio.CancelledError


class RunningExchanges:
    """Owns the tasks of a process's exchanges, so that none depends on whoever asked for it.

    Args:
        journal: tells who reads from another process, and what is to be cancelled from there.
        max_detached: how many exchanges may run on without a reader; the next one left alone is cut short, and settled.
        drain_s: for how long, in seconds, each of them may.
        max_running: how many exchanges may run at once; the next one is refused.
        max_starting: how many may be on their way to being admitted at once; the next ones wait, in their order.
        start_timeout_s: for how long, in seconds; then they are refused.
        look_every_s: how often to look whether one is to be cancelled.
        watch: how long somebody who reads elsewhere is believed to be still there.
    Attributes:
        is_winding_down: this process starts nothing any more, and will end soon.
        is_closed: what turns need is closed, or is about to be.
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
        look_every_s: float = LOOK_EVERY_S,
        watch: timedelta = WATCH,
        telemetry: Telemetry = UNHEARD,
    ) -> None:
        self._journal, self._clock, self._telemetry = journal, clock, telemetry
        self._max_detached, self._drain_s, self._max_running = max_detached, drain_s, max_running
        self.is_winding_down = self.is_closed = False
        self._tasks: dict[asyncio.Task[None], Running] = {}
        self._detached: set[Running] = set()
        self._by_response: dict[str, Running] = {}
        self._held = Decimal(0)
        self._start_timeout_s, self._watch = start_timeout_s, watch
        self._starting = asyncio.Semaphore(max_starting)
        self._rounds: list[Rounds] = []
        self.repeat(self._look_for_cancellations, every_s=look_every_s)

    def repeat(self, work: Callable[[], Awaitable[None]], *, every_s: float) -> None:
        """Do `work` every so often for as long as any exchange runs."""
        self._rounds.append(Rounds(work, every_s=every_s, is_needed=lambda: bool(self._by_response)))

    def start(self, work: Coroutine[None, None, None], running: Running | None = None) -> None:
        """Run `work` to its end, whoever waits for it.

        Args:
            running: the exchange that it carries out, if it does.
        Raises:
            ServiceUnavailableError: as many run as may, or this process takes no more, or all is closed; nothing of it
                was done.
        """
        if self.is_closed or self.is_winding_down or len(self._tasks) >= self._max_running:
            work.close()
            if self.is_closed:
                raise ServiceUnavailableError.of_closed()
            why = "is shutting down" if self.is_winding_down else "runs as many turns as it can"
            raise ServiceUnavailableError(f"The service {why}; send this one again.")
        running = running or Running()
        running.task = asyncio.create_task(work)
        self._tasks[running.task] = running
        running.task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.joined(self._tasks.pop(task))

    @asynccontextmanager
    async def starting(self) -> AsyncIterator[None]:
        """The block is one of the few that start: a burst waits here, and not in the way of what is paid for already.

        Raises:
            ServiceUnavailableError: so many were before it that its turn never came; nothing of it was done.
        """
        if self._starting.locked():
            try:
                async with asyncio.timeout(self._start_timeout_s):
                    await self._starting.acquire()
            except TimeoutError:
                raise ServiceUnavailableError(
                    "More turns came than the service can start; send this one again."
                ) from None
        else:
            await self._starting.acquire()  # which does not wait
        try:
            yield
        finally:
            self._starting.release()

    def admit(self, running: Running, hold: Hold) -> None:
        """The exchange was admitted, and runs until it is released."""
        running.hold = hold
        if running.admitted is not None and not running.admitted.done():
            running.admitted.set_result(None)
        self._by_response[hold.response_id] = running
        for rounds in self._rounds:
            rounds.start()
        self._held += hold.amount
        self._state_load()

    def release(self, running: Running) -> None:
        """The exchange has been carried out."""
        assert running.hold is not None
        del self._by_response[running.hold.response_id]
        self._held -= running.hold.amount
        self._state_load()

    @property
    def holds(self) -> Sequence[Hold]:
        """Those of all exchanges that run, as `Running.renewed` has them."""
        return tuple(hold for running in self._by_response.values() if (hold := running.renewed) is not None)

    @property
    def unnoted(self) -> Sequence[Running]:
        """The exchanges of whose usage the provider has stated something, while nothing of it is written down."""
        return [of for of in self._by_response.values() if of.log.counted is not None and not of.has_noted]

    def find(self, tenant_id: str, user_id: str | None, response_id: str) -> Running | None:
        """The exchange of this user, or of any of the tenant's; None where this process does not run it."""
        running = self._by_response.get(response_id)
        if running is None or running.hold is None or running.hold.tenant_id != tenant_id:
            return None
        return running if user_id in (None, running.hold.user_id) else None

    def joined(self, running: Running) -> None:
        """Say that the exchange has a reader again, or needs none any more."""
        if running.drain is not None:
            running.drain.cancel()
            running.drain = None
            self._detached.discard(running)
            self._state_load()

    def left(self, running: Running) -> None:
        """Say that a reader of the exchange has gone; the last one leaves it detached, unless its log has ended."""
        if running.log.has_readers or running.log.is_closed or running.task.done() or running.drain is not None:
            return
        if len(self._detached) >= self._max_detached:
            running.cut_short()
            return
        running.drain = asyncio.get_running_loop().call_later(self._drain_s, self._drained, running)
        self._detached.add(running)
        self._state_load()

    def _state_load(self) -> None:
        self._telemetry.emit(
            ExchangesRunning(count=len(self._by_response), detached=len(self._detached), held=self._held)
        )

    def _drained(self, running: Running) -> None:
        """A detached exchange has had its time; it gets more for as long as it is read elsewhere."""
        running.drain = asyncio.create_task(self._cut_short_unwatched(running))

    async def _cut_short_unwatched(self, running: Running) -> None:
        while await self._is_watched(running):  # noqa: ASYNC110 - the watcher is in another process
            await asyncio.sleep(self._watch.total_seconds() / 2)
        running.cut_short()

    async def _is_watched(self, running: Running) -> bool:
        try:
            return running.hold is not None and await self._journal.is_watched(running.hold, at=self._clock.now())
        except StorageUnavailableError:
            return False

    async def _look_for_cancellations(self) -> None:
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
        for running in self._tasks.values():
            running.cut_short()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for rounds in self._rounds:
            await rounds.stop()

    async def close(self, timeout_s: float) -> None:
        """The same, and nothing runs from then on."""
        self.is_closed = True
        await self.drain(timeout_s)
