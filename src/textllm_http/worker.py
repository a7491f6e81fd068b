"""A worker process, `python -m textllm_http.worker LISTENER CHANNEL GRACE_S`: serves, and ends in order.

LISTENER and CHANNEL are file descriptors: the socket that all workers accept from, and the line to the supervisor.
"""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from importlib.util import find_spec
from typing import Any, Final

from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server

from textllm_core.errors import TextLLMError
from textllm_http.app import Application
from textllm_http.asgi import create
from textllm_http.control import BACKLOG, SERVICE_S, SIGNALS, Word, words
from textllm_http.problems import trace_of
from textllm_http.services import Services

MAX_HEAD_BYTES: Final = 64 * 1024  # of a request's line and headers, and of what waits to be written
MAX_CONNECTIONS: Final = 16_384  # of one worker: streams are many and mostly idle; more wait in the listener's queue
_LINGER_S: Final = 4.0  # for requests that are no turns yet, and responses that their clients have not read yet
_ACCEPTED_S: Final = 0.3  # for requests on connections that were just accepted, which would be closed unread
_LAST_WORDS_S: Final = 1.0  # for telling the rest that it has to ask again
# Its errors become lines like ours, and its talk is left out.
_LOGS: Final[dict[str, Any]] = {"incremental": True, "handlers": {}, "loggers": {"_granian": {}}}

_logger: Final = logging.getLogger("textllm")


class _Server(Server):
    """Granian in this process's own loop, accepting from a socket that others accept from, too.

    Args:
        listener: a file descriptor, which the server closes in the end.
        header_timeout_s: until the headers of a connection's next request are there.
    """

    def __init__(self, app: Application, listener: int, *, header_timeout_s: float) -> None:
        super().__init__(
            app,
            interface=Interfaces.ASGINL,  # the lifespan is the worker's: streams end before it does
            http=HTTPModes.http1,  # HTTP/2 is a proxy's business, as TLS is
            http1_settings=HTTP1Settings(
                header_read_timeout=round(1000 * header_timeout_s), max_buffer_size=MAX_HEAD_BYTES
            ),
            websockets=False,
            backpressure=MAX_CONNECTIONS,
            log_level=LogLevels.error,
            log_dictconfig=_LOGS,
            log_access=False,
        )
        self._listener = listener

    def _init_shared_socket(self) -> None:
        # The stubs tell neither what a holder is made of nor that a server has one. It listens anew, with this backlog.
        self._shd = SocketHolder(self._listener, False, BACKLOG)  # type: ignore[call-arg, assignment]

    def end(self) -> None:
        """Accept nothing more, and end when the requests do that are being answered."""
        self.stop()  # type: ignore[no-untyped-call]  # granian's own

    def stop_accepting(self) -> None:
        """Leave new connections to the other workers, and keep those that there are."""
        with socket.socket(fileno=os.dup(self._listener)) as shared:
            family = shared.family
        # Granian accepts for as long as it serves: from now on at an address that nobody knows.
        loopback = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        with socket.create_server((loopback, 0), family=family) as lonely:
            lonely.setblocking(False)
            os.dup2(lonely.fileno(), self._listener, inheritable=False)


class _Worker:
    def __init__(self, listener: int, channel: socket.socket, grace_s: float) -> None:
        self._listener, self._channel, self._grace_s = listener, channel, grace_s
        self._starting: asyncio.Task[None] | None = None
        self._is_retired = False  # others go on in its place
        self._leave, self._service_over, self._grace_over = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        """Serve until told to leave."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._obey, Word.STOP)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        loop.add_reader(self._channel, self._hear)
        app, header_timeout_s = create()
        self._starting = asyncio.current_task()
        async with app.lifespan() as services:
            self._starting = None
            server = _Server(app, self._listener, header_timeout_s=header_timeout_s)
            serving = asyncio.create_task(server.serve())
            leaving = asyncio.create_task(self._leave.wait())
            gc.freeze()  # what the start has made stays, and holds up nobody by being looked through again
            gc.enable()
            with suppress(ConnectionError):  # whom nobody listens to any more hears that soon
                self._channel.send(Word.READY.value)
            await asyncio.wait([serving, leaving], return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                leaving.cancel()
                raise RuntimeError("the server ended by itself")
            await self._end(services, server)
            if not await _ends(serving, _LINGER_S):
                services.worker.unanswered.refuse()
            if not await _ends(serving, _LAST_WORDS_S):
                logging.getLogger("_granian").setLevel(logging.CRITICAL)  # that it is cut off now is no error

    def _hear(self) -> None:
        try:
            heard = self._channel.recv(64)
        except ConnectionError:  # it died before it read what we said
            heard = b""
        if not heard:  # the supervisor is dead: whoever comes after it shall find the address free
            asyncio.get_running_loop().remove_reader(self._channel)
            self._is_retired = True
            self._obey(Word.INTERRUPT)
        for word in words(heard):
            self._obey(word)

    def _obey(self, word: Word) -> None:
        if word is Word.RETIRE:
            self._is_retired = True
        if word in (Word.INTERRUPT, Word.CUT):
            self._service_over.set()
        if word is Word.CUT:
            self._grace_over.set()
        self._leave.set()
        if self._starting is not None:
            self._starting.cancel()
            self._starting = None  # once: what it does next is to clean up

    async def _end(self, services: Services, server: _Server) -> None:
        textllm = services.textllm
        services.worker.is_leaving = True
        if self._is_retired:
            server.stop_accepting()
            await _happens(self._service_over, SERVICE_S)
            server.end()  # who still holds an idle connection finds another worker
        else:
            services.worker.is_stopping = True
            await _happens(self._service_over, min(SERVICE_S, self._grace_s))
        winding_down = asyncio.create_task(textllm.wind_down(grace_s=self._grace_s))
        cut = asyncio.create_task(self._grace_over.wait())
        await asyncio.wait([winding_down, cut], return_when=asyncio.FIRST_COMPLETED)
        if not winding_down.done():
            await textllm.wind_down(grace_s=0)
        await winding_down
        cut.cancel()
        if not self._is_retired:
            server.stop_accepting()  # from here on who connects finds another worker, while there is one
            await asyncio.sleep(_ACCEPTED_S)
        server.end()


async def _ends(task: asyncio.Task[None], within_s: float) -> bool:
    done, _ = await asyncio.wait([task], timeout=within_s)
    return bool(done)


async def _happens(event: asyncio.Event, timeout_s: float) -> None:
    """Wait for an event, at most so long."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait([waiting], timeout=timeout_s)
    waiting.cancel()


def main(listener: str, channel: str, grace_s: str) -> int:
    """The exit code."""
    gc.disable()  # until it serves: it would find nothing in what a start makes
    logging.basicConfig(format="%(message)s")  # until the settings say how: why there are none is to be read somewhere
    for own in (int(listener), int(channel)):
        os.set_inheritable(own, False)
    for ignored in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to the whole group: the supervisor decides
        signal.signal(ignored, signal.SIG_IGN)
    loop_factory = None
    if find_spec("uvloop"):
        import uvloop

        loop_factory = uvloop.new_event_loop
    try:
        with socket.socket(fileno=int(channel)) as line, asyncio.Runner(loop_factory=loop_factory) as runner:
            line.setblocking(False)
            runner.run(_Worker(int(listener), line, float(grace_s)).run())
    except asyncio.CancelledError:  # told to leave before it served
        return 0
    except TextLLMError as error:
        _logger.critical("the worker cannot go on: %s", error)
    except Exception as defect:  # noqa: BLE001 - it is told, without texts that may quote input
        _logger.critical("the worker cannot go on\n%s", trace_of(defect))
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
