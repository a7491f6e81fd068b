"""The parent of the workers: holds the socket that they listen on, replaces those that die, ends and renews them."""

import asyncio
import logging
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from textllm_core.errors import ConfigurationError, TextLLMError
from textllm_http.control import BACKLOG, SERVICE_S, SETTLING_S, SIGNALS, Word

# What a client may leave unread costs kernel memory: the system doubles this, and would else let it grow to megabytes.
_SEND_BUFFER_BYTES: Final = 64 * 1024
_STEADY_S: Final = 10.0  # a worker that lived so long died of something else than its start
_PAUSES_S: Final = (0.0, 0.0, 0.0, 0.5, 1.0, 2.0, 5.0)  # before a worker is replaced, by how many died early in a row

_logger: Final = logging.getLogger("textllm")


class StartError(TextLLMError):
    """No worker could start; why, the first of them has logged."""


def listen(address: str, port: int, *, unread_timeout_s: float) -> socket.socket:
    """A socket for all workers. What is queued in it outlives any of them.

    Args:
        unread_timeout_s: until a client that takes nothing of what waits for it is cut off.

    Raises:
        ConfigurationError: it is no address of this machine, or not free.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of a former server may linger
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)  # accepted ones inherit it
        # And this: a piece of a reply leaves at once, and not when the client has acknowledged the one before (40 ms).
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if sys.platform == "linux":  # and this, which ends those whose clients do not read what they asked for
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * unread_timeout_s))
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigurationError(f"Cannot listen on {address}, port {port}: {error.strerror or error}") from error
    listener.setblocking(False)
    return listener


def supervise(
    listener: socket.socket,
    *,
    workers: int,
    grace_s: float,
    on_start: Callable[[], None],
    on_end: Callable[[int], None],
) -> None:
    """Serve on `listener` until SIGTERM or SIGINT, and renew the workers at SIGHUP.

    Args:
        grace_s: how long streams may run on at the end, in seconds.
        on_start: called once connections are taken.
        on_end: called with the id of each worker that has ended.
    Raises:
        StartError: no worker could start.
    """
    asyncio.run(_Supervisor(listener, workers, grace_s, on_end).run(on_start))


class _Worker:
    """A worker process, as its parent sees it."""

    def __init__(self, listener: socket.socket, grace_s: float) -> None:
        self._channel, theirs = socket.socketpair()
        self._channel.setblocking(False)
        shared = (listener.fileno(), theirs.fileno())
        command = [sys.executable, "-P", "-m", "textllm_http.worker", *map(str, shared), str(grace_s)]
        with theirs, _signals_held():  # until it can handle them; what comes meanwhile waits for it
            self._process = subprocess.Popen(command, pass_fds=shared, stdin=subprocess.DEVNULL)
        self.pid = self._process.pid
        self.is_ready = False
        self.life_s = 0.0  # after it was ready
        self.is_decided = asyncio.Event()  # whether it becomes ready
        self.ended = asyncio.create_task(self._follow())

    def tell(self, word: Word) -> None:
        """Say something; to one that has ended, nothing."""
        with suppress(OSError):
            self._channel.send(word.value)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    async def _follow(self) -> int:
        """Wait for its end; its exit code."""
        loop = asyncio.get_running_loop()
        with suppress(ConnectionError):
            while await loop.sock_recv(self._channel, 64):
                self.is_ready, since = True, loop.time()
                self.is_decided.set()
        if self.is_ready:
            self.life_s = loop.time() - since
        self.is_decided.set()
        self._channel.close()
        return await asyncio.to_thread(self._process.wait)


class _Place:
    """A place that one worker after the other takes."""

    def __init__(self) -> None:
        self.renewal = asyncio.Event()  # set to ask for it
        self.is_renewed = asyncio.Event()


class _Supervisor:
    def __init__(self, listener: socket.socket, workers: int, grace_s: float, on_end: Callable[[int], None]) -> None:
        self._listener, self._grace_s, self._on_end = listener, grace_s, on_end
        self._places = [_Place() for _ in range(workers)]
        self._living: set[_Worker] = set()
        self._has_served = False
        self._told = asyncio.Queue[Word]()
        self._hang_up = asyncio.Event()

    async def run(self, on_start: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._told.put_nowait, Word.STOP)
        loop.add_signal_handler(signal.SIGINT, self._told.put_nowait, Word.INTERRUPT)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up.set)
        on_start()
        works = [asyncio.create_task(self._keep(place)) for place in self._places]
        works.append(asyncio.create_task(self._renew_on_request()))
        told = asyncio.create_task(self._told.get())
        try:
            await asyncio.wait([told, *works], return_when=asyncio.FIRST_COMPLETED)
            failed = [work for work in works if work.done()]  # which is the only way in which they end
            for work in (told, *works):
                work.cancel()
            await asyncio.wait(works)
            self._listener.close()
            await self._end(Word.INTERRUPT if failed else told.result())
            for work in failed:
                work.result()
        finally:
            for worker in self._living:
                worker.kill()

    def _spawn(self) -> _Worker:
        worker = _Worker(self._listener, self._grace_s)
        self._living.add(worker)
        worker.ended.add_done_callback(lambda _: self._buried(worker))
        return worker

    def _buried(self, worker: _Worker) -> None:
        self._living.discard(worker)
        self._on_end(worker.pid)

    async def _keep(self, place: _Place) -> None:
        """Have a worker in this place at any time."""
        worker, early_deaths = self._spawn(), 0
        await self._started(worker)
        while True:
            renewal = asyncio.create_task(place.renewal.wait())
            try:
                await asyncio.wait([worker.ended, renewal], return_when=asyncio.FIRST_COMPLETED)
            finally:
                renewal.cancel()
            if not worker.ended.done():
                worker = await self._renewed(place, worker)
                continue
            early_deaths = 0 if worker.life_s > _STEADY_S else early_deaths + 1
            pause_s = _PAUSES_S[min(early_deaths, len(_PAUSES_S) - 1)]
            _logger.error(
                "worker %d ended unexpectedly (exit code %d); another takes its place in %.1f s",
                worker.pid,
                worker.ended.result(),
                pause_s,
            )
            await asyncio.sleep(pause_s)
            worker = self._spawn()
            await self._started(worker)

    async def _started(self, worker: _Worker) -> None:
        """Wait until it serves, or has ended.

        Raises:
            StartError: it could not start, and none could before it.
        """
        await worker.is_decided.wait()
        if worker.is_ready:
            self._has_served = True
        elif not self._has_served:
            raise StartError("A worker could not start; why, it has said above.")

    async def _renewed(self, place: _Place, old: _Worker) -> _Worker:
        """The worker that is in this place after a renewal: a new one where it could start."""
        place.renewal.clear()
        new = self._spawn()
        await new.is_decided.wait()
        if new.is_ready:
            old.tell(Word.RETIRE)
        else:
            _logger.error("worker %d could not start, and does not replace worker %d", new.pid, old.pid)
        place.is_renewed.set()
        return new if new.is_ready else old

    async def _renew_on_request(self) -> None:
        """At a hang-up renew the workers, one after the other; those of one round are gone before the next begins."""
        while True:
            await self._hang_up.wait()
            self._hang_up.clear()
            before = [worker.ended for worker in self._living]
            for place in self._places:
                place.is_renewed.clear()
                place.renewal.set()
                await place.is_renewed.wait()
            _logger.info("the workers were renewed")
            await self._gone([worker for worker in self._living if worker.ended in before], Word.RETIRE)

    async def _end(self, word: Word) -> None:
        """Have all workers end, sooner where an impatient Ctrl-C asks for it."""
        while True:
            for worker in self._living:
                worker.tell(word)
            gone = asyncio.create_task(self._gone(list(self._living), word))
            told = asyncio.create_task(self._told.get())
            await asyncio.wait([gone, told], return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                told.cancel()
                return
            gone.cancel()
            if told.result() is Word.INTERRUPT:
                word = Word.INTERRUPT if word is Word.STOP else Word.CUT

    async def _gone(self, workers: Sequence[_Worker], word: Word) -> None:
        """Wait for the end of workers that were told a word; kill those that take too long."""
        limit_s = SETTLING_S
        if word is not Word.CUT:
            limit_s += self._grace_s
        if word in (Word.STOP, Word.RETIRE):
            limit_s += SERVICE_S
        ends = [worker.ended for worker in workers]
        if ends and (await asyncio.wait(ends, timeout=limit_s))[1]:
            for worker in set(workers) & self._living:
                _logger.error("worker %d did not end in time, and is killed", worker.pid)
                worker.kill()
            await asyncio.wait(ends)


@contextmanager
def _signals_held() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
