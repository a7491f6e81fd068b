"""The one writer of a SQLite file in this process: a thread that puts all that waits into one transaction.

A commit waits for the disk, and SQLite has one writer at a time: so calls that came while the last commit was under way
share the next. Each is told only after the commit of its own, and a commit is durable (`synchronous = FULL`).
"""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import Any, Final, Generic, TypeAlias, TypeVar

T = TypeVar("T")
Work: TypeAlias = Callable[[sqlite3.Connection], T]

_AT_ONCE: Final = 200  # calls in one transaction: it keeps other processes out for some 20 ms
_OF_THE_FILE: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY})  # no call's fault
_PAUSE_S: Final = 10.0  # at most; what is rarely written takes milliseconds
_POLL_S: Final = 0.001  # about as long as a transaction of another process takes


class _Call(Generic[T]):
    """A call, and whoever waits for it: at most until `deadline`, while another process writes."""

    def __init__(self, work: Work[T], deadline: float) -> None:
        self.work, self.deadline, self.loop = work, deadline, asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self.loop.create_future()
        self.result: T  # once it has run
        self.error: Exception | None = None

    def tell(self) -> None:
        """In the caller's loop."""
        if self.future.done():  # it was cancelled, and waits no more
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class _Pause:
    """A time in which the thread writes nothing, from `begun` to `over`; `deadline` as a call has it."""

    def __init__(self, deadline: float) -> None:
        self.deadline, self.loop, self.over = deadline, asyncio.get_running_loop(), Event()
        self.begun = self.loop.create_future()

    def begin(self) -> None:
        """In the caller's loop."""
        if not self.begun.done():
            self.begun.set_result(None)

    def refuse(self, error: Exception) -> None:
        """In the caller's loop."""
        if not self.begun.done():
            self.begun.set_exception(error)


_End: TypeAlias = None
_Queued: TypeAlias = _Call[Any] | _Pause | _End


class _SpoiltError(Exception):
    """A call has failed after it had written; the others of its transaction shall not pay for it."""


class _Thread(Thread):
    """Owns the connection, and works off its queue until it meets the end there."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], *, check: Callable[[], None]) -> None:
        super().__init__(name="sqlite-writer", daemon=True)  # a forgotten one keeps no process alive
        self.queue: Final[SimpleQueue[_Queued]] = SimpleQueue()
        self._connect, self._check = connect, check
        self._connection: sqlite3.Connection | None = None

    def run(self) -> None:
        while True:
            calls, then = self._waiting()
            if calls:
                self._carry_out(calls)
            if isinstance(then, _Pause):
                self._let_in(then)
            elif then is None:
                self._disconnect()
                return

    def _waiting(self) -> tuple[list[_Call[Any]], _Queued]:
        """The calls that wait, at least one unless something else comes first; and what comes then."""
        calls: list[_Call[Any]] = []
        queued = self.queue.get()
        with suppress(Empty):
            while isinstance(queued, _Call):
                calls.append(queued)
                if len(calls) == _AT_ONCE:
                    break
                queued = self.queue.get_nowait()
        return calls, queued

    def _let_in(self, pause: _Pause) -> None:
        """Begin a pause once nobody else writes, and wait for its end: so nobody waits for what others wait for."""
        if pause.over.is_set():  # nobody wants it any more
            return
        try:
            self._begin(pause.deadline).execute("ROLLBACK")
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller is told
            self._give_up(error)
            _call_in(pause.loop, pause.refuse, error)
        else:
            _call_in(pause.loop, pause.begin)
            pause.over.wait(_PAUSE_S)

    def _carry_out(self, calls: Sequence[_Call[Any]]) -> None:
        """Carry them out and tell, each by its deadline; who came first gives up first."""
        while calls:
            left: Sequence[_Call[Any]] = ()
            try:
                self._in_one_transaction(calls)
            except _SpoiltError:
                if len(calls) > 1:
                    for call in calls:
                        self._carry_out([call])
                    return
            except Exception as error:  # noqa: BLE001 - whatever it is, the callers are told
                # Nothing has happened, and so what they found out is not so.
                if self._give_up(error):
                    now = time.monotonic()
                    left = [call for call in calls if call.deadline > now]
                    calls = [call for call in calls if call.deadline <= now]
                for call in calls:
                    call.error = error
            _tell(calls)
            calls = left

    def _give_up(self, error: Exception) -> bool:
        """Whether another process writes; else the file is opened anew: it was read-only, or its disk failed."""
        is_busy = _primary_code(error) == sqlite3.SQLITE_BUSY
        if not is_busy:
            self._disconnect()
        return is_busy

    def _in_one_transaction(self, calls: Sequence[_Call[Any]]) -> None:
        connection = self._begin(min(call.deadline for call in calls))
        try:
            for call in calls:
                before, call.error = connection.total_changes, None
                try:
                    call.result = call.work(connection)
                except Exception as error:
                    if _primary_code(error) in _OF_THE_FILE:
                        raise
                    call.error = error
                    if connection.total_changes != before or not connection.in_transaction:
                        raise _SpoiltError from error
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _begin(self, deadline: float) -> sqlite3.Connection:
        """Take the write lock at once: a transaction that reads first and writes later could be refused half-way.

        SQLite's own way to wait looks ten times a second only, and misses the moments in which others let go.
        """
        self._check()
        if self._connection is None:
            self._connection = self._connect()
        connection = self._connection
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if _primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                    raise
                time.sleep(_POLL_S)
            else:
                return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class SqliteWriter:
    """Runs calls that write, each whole or not at all, in the order in which they were made."""

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        *,
        busy_timeout_s: float,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            connect: opens a connection that begins no transactions by itself and waits for no lock.
            check: raises sqlite3.Error where nothing may be written; asked before each transaction.
        """
        self._connect, self._busy_timeout_s, self._check = connect, busy_timeout_s, check
        self._thread: _Thread | None = None
        self._queueing = Lock()

    async def run(self, work: Work[T]) -> T:
        """What `work` returns or raises, once it is committed.

        It reads and writes by the connection it is given, and neither waits nor ends the transaction. It may run twice,
        and then only the second time counts. It runs also where the caller is cancelled meanwhile. Where it raises,
        what it has written is undone, and nothing else.
        Raises:
            sqlite3.Error: the file cannot be written, or another process did so for too long; nothing has happened.
        """
        call = _Call(work, self._deadline())
        self._queue(call)
        return await call.future

    @asynccontextmanager
    async def pause(self) -> AsyncIterator[None]:
        """A turn, between the calls, for a transaction by another connection, which this thread would keep out.

        Raises:
            sqlite3.Error: as `run`.
        """
        pause = _Pause(self._deadline())
        try:
            self._queue(pause)
            await pause.begun
            yield
        finally:
            pause.over.set()

    def close(self) -> None:
        """Wait until what was asked for is done, at most as long as a locked file may take, and let go of the file."""
        with self._queueing:
            thread, self._thread = self._thread, None
            if thread is not None:
                thread.queue.put(None)
        if thread is not None:
            thread.join(2 * self._busy_timeout_s)  # for the transaction under way, and for the next

    def _deadline(self) -> float:
        return time.monotonic() + self._busy_timeout_s

    def _queue(self, queued: _Queued) -> None:
        with self._queueing:
            if self._thread is None:
                self._thread = _Thread(self._connect, check=self._check)
                self._thread.start()
            if not self._thread.is_alive():
                # SQLite takes its parent's locks for this process's own, and loses what is written here.
                raise RuntimeError("a SQLite file that is open cannot be taken along into a fork: close it before")
            self._thread.queue.put(queued)


def _tell(calls: Sequence[_Call[Any]]) -> None:
    """Wake each loop once."""

    def tell(told: Sequence[_Call[Any]]) -> None:
        for call in told:
            call.tell()

    for loop in {call.loop for call in calls}:
        _call_in(loop, tell, [call for call in calls if call.loop is loop])


def _call_in(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *arguments: object) -> None:
    with suppress(RuntimeError):  # it is closed: nobody waits any more
        loop.call_soon_threadsafe(callback, *arguments)


def _primary_code(error: Exception) -> int:
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF
