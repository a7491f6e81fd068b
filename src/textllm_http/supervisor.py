"""The parent of the workers: holds the socket that they listen on, replaces those that die, ends and renews them.

`python -m textllm_http.supervisor LISTENER WORKERS GRACE_S LOG_LEVEL [LOG_DIR]`: LISTENER is the file descriptor of the
socket. It lives as long as the service and does little: what it imports is kept small.
"""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NoReturn

from textllm_adapters.telemetry.logs import configure_logs
from textllm_adapters.telemetry.shared_counters import forget_process, shared_counters
from textllm_http.control import SERVICE_S, SETTLING_S, SIGNALS, Word

_STEADY_S: Final = 10.0  # a worker that lived so long died of something else than its start
_PAUSES_S: Final = (0.0, 0.0, 0.0, 0.5, 1.0, 2.0, 5.0)  # before a worker is replaced, by how many died early in a row

_logger: Final = logging.getLogger("textllm")


class StartError(Exception):
    """No worker could start; why, the first of them has logged."""


def become_supervisor(
    listener: socket.socket,
    *,
    workers: int,
    grace_s: float,
    log_level: str,
    log_dir: Path | None,
    on_start: Callable[[], None] = lambda: None,
) -> NoReturn:
    """Run this module in the place of all that this process has loaded, most of which a supervisor does not need.

    The process stays the same one.

    Args:
        listener: what the workers accept from.
        grace_s: how long streams may run on at the end, in seconds.
        on_start: called once a signal is held back until it is obeyed.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    on_start()
    listener.set_inheritable(True)
    arguments = map(str, (listener.fileno(), workers, grace_s, log_level, *([log_dir] if log_dir else [])))
    os.execv(sys.executable, [sys.executable, "-P", "-m", "textllm_http.supervisor", *arguments])  # noqa: S606


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
    def __init__(self, listener: socket.socket, workers: int, grace_s: float) -> None:
        self._listener, self._grace_s = listener, grace_s
        self._places = [_Place() for _ in range(workers)]
        self._living: set[_Worker] = set()
        self._has_served = False
        self._told = asyncio.Queue[Word]()
        self._hang_up = asyncio.Event()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, and renew the workers at SIGHUP.

        Raises:
            StartError: no worker could start.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._told.put_nowait, Word.STOP)
        loop.add_signal_handler(signal.SIGINT, self._told.put_nowait, Word.INTERRUPT)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
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
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # it ends anyway

    def _spawn(self) -> _Worker:
        worker = _Worker(self._listener, self._grace_s)
        self._living.add(worker)
        worker.ended.add_done_callback(lambda _: self._buried(worker))
        return worker

    def _buried(self, worker: _Worker) -> None:
        self._living.discard(worker)
        forget_process(worker.pid)

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


def main(listener: str, workers: str, grace_s: str, log_level: str, log_dir: str | None = None) -> int:
    """The exit code."""
    configure_logs(log_level, Path(log_dir) if log_dir else None)
    with socket.socket(fileno=int(listener)) as shared, shared_counters():
        shared.setblocking(False)
        shared.set_inheritable(False)
        try:
            asyncio.run(_Supervisor(shared, int(workers), float(grace_s)).run())
        except StartError as error:
            _logger.critical("%s", error)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
