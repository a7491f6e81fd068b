"""Connections to one HTTP server, for GETs and bodies at hand: a fifth of what a client of all of HTTP takes.

Whatever else there is (proxies, bodies that are sent as they are read, redirections) is left to such a client.
"""

import asyncio
import socket
import ssl
from collections.abc import Mapping
from typing import Final, cast

import httptools
from aiohappyeyeballs import start_connection

_MAX_HEAD_BYTES: Final = 64 * 1024  # servers send some hundreds
_READ_AHEAD_BYTES: Final = 256 * 1024  # of a body that nobody takes; then the server has to wait
_NEXT_ADDRESS_S: Final = 0.25  # RFC 8305: when to try a host's next address beside the one that has not answered yet
_LOOK_EVERY_S: Final = 1.0  # how exact the times are after which a connection is given up


class UnreachableError(OSError):
    """There is no connection, so nothing was sent."""


class SilenceError(OSError):
    """Nothing came for too long."""


class BrokenAnswerError(OSError):
    """The connection ended before its answer did."""


class GarbledAnswerError(BrokenAnswerError):
    """What came is no HTTP/1.1, or in a form that was not asked for."""


class Answer:
    """An answer of which the head has come; its body is taken as it comes. Whoever has it closes it.

    Attributes:
        headers: by their names in lower case; the first of each.
    """

    __slots__ = ("_connection", "_error", "_is_complete", "_pieces", "_size", "_waiting", "headers", "status")

    def __init__(self, connection: "_Connection") -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._connection: _Connection | None = connection  # until all of it has come
        self._pieces: list[bytes] = []
        self._size = 0  # of them, in bytes
        self._is_complete = False
        self._error: OSError | None = None
        self._waiting: asyncio.Future[None] | None = None

    @property
    def is_over(self) -> bool:
        """Whether all of it has come, and was taken."""
        return self._is_complete and not self._pieces

    async def read(self) -> bytes:
        """What has come since the last call, or what comes next; nothing at its end.

        Raises:
            OSError: it broke off.
        """
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self._is_complete:
                return b""
            await self._more()
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        if self._connection is not None:
            self._connection.go_on()
        return body

    def close(self) -> None:
        """End the call, if it has not ended yet."""
        if self._connection is not None:
            self._connection.give_up(BrokenAnswerError("It was closed."))

    async def begun(self) -> None:
        """Wait for its head.

        Raises:
            OSError: there is none.
        """
        while not self.status:
            if self._error is not None:
                raise self._error
            await self._more()

    async def _more(self) -> None:
        self._waiting = asyncio.get_running_loop().create_future()
        await self._waiting

    # What follows is its connection's part.

    def take(self, piece: bytes) -> bool:
        """Add to its body; False where it is enough for now."""
        self._pieces.append(piece)
        self._size += len(piece)
        return self._size <= _READ_AHEAD_BYTES

    def end(self, error: OSError | None = None) -> None:
        """There is no more of it."""
        self._is_complete, self._error = error is None, error
        self._connection = None
        self.wake()

    def wake(self) -> None:
        """Tell who waits that there is something new."""
        if self._waiting is not None:
            if not self._waiting.done():
                self._waiting.set_result(None)
            self._waiting = None


class _Connection(asyncio.Protocol):
    """One connection: one answer at a time."""

    def __init__(self, pool: "Connections") -> None:
        self._pool, self._loop = pool, asyncio.get_running_loop()
        self._received: list[bytes] = []  # of the body, by the bytes that are being parsed
        self.on_body = self._received.append  # for each chunk, of which a reply has many
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(  # what servers are known to send, and aiohttp lets pass, too
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._answer: Answer | None = None
        self._head_bytes = 0
        self._is_paused = False
        self.heard_at = self._loop.time()  # or used, or put by

    def itself(self) -> "_Connection":
        return self

    @property
    def is_idle(self) -> bool:
        return self._answer is None

    @property
    def is_waiting(self) -> bool:
        """It is the server's turn."""
        return self._answer is not None and not self._is_paused

    @property
    def is_usable(self) -> bool:
        return not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # what it is, though uvloop's does not inherit it
        self._pool.opened(self)

    def ask(self, request: bytes) -> Answer:
        answer = self._answer = Answer(self)
        self._head_bytes = 0
        self.heard_at = self._loop.time()
        self._transport.write(request)
        return answer

    def go_on(self) -> None:
        """Read on, if it is not done already."""
        if self._is_paused:
            self._is_paused = False
            self.heard_at = self._loop.time()
            self._transport.resume_reading()

    def give_up(self, error: OSError) -> None:
        self._end(error)
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        answer, is_understood = self._answer, True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            is_understood = False
        self._hand_over()
        if not is_understood:
            self.give_up(GarbledAnswerError("The server sent something that is no answer in HTTP."))
        elif answer is not None:
            answer.wake()

    def _hand_over(self) -> None:
        answer = self._answer
        if self._received and answer is not None and not answer.take(b"".join(self._received)) and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()
        self._received.clear()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - its text may quote anything
        self._pool.lost(self)
        answer = self._answer
        if answer is not None and answer.status and _ends_with_connection(answer):
            self._end(None)
        else:
            self._end(BrokenAnswerError("The server closed the connection."))

    def _end(self, error: OSError | None) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.end(error)

    # What the parser finds.

    def on_message_begin(self) -> None:
        if self._answer is None:
            raise ValueError("an answer to nothing")  # which ends the connection

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > _MAX_HEAD_BYTES:
            raise ValueError("too long a head")
        if self._answer is not None:
            self._answer.headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        answer, status = self._answer, self._parser.get_status_code()
        if answer is None:
            return
        if status < 200:  # another head follows
            answer.headers.clear()
            return
        if answer.headers.get("content-encoding", "identity").lower() != "identity":
            raise ValueError("a form that was not asked for")
        answer.status = status

    def on_message_complete(self) -> None:
        answer = self._answer
        if answer is None or not answer.status:
            return
        self._hand_over()
        self.go_on()
        is_kept = self._parser.should_keep_alive() and not self._transport.get_write_buffer_size()
        self._end(None)
        if is_kept:
            self._pool.put_by(self)
        else:
            self._transport.close()


def _ends_with_connection(answer: Answer) -> bool:
    return "content-length" not in answer.headers and "transfer-encoding" not in answer.headers


def _lines(headers: Mapping[str, str]) -> str:
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if not lines.count("\n") == lines.count("\r") == len(headers):
        raise ValueError("a header has more than one line")
    return lines


class Connections:
    """Those to one server: kept while they are of use, and opened as they are needed.

    Args:
        host: a name, or an address without brackets.
        certificates: for TLS; None: none.
        prefix: of every path.
        headers: of every request, `Host` among them.
        most: how many there may be at a time.
        connect_timeout_s: until a connection is there, and again until it is encrypted.
        silence_timeout_s: how long to wait for the next byte of an answer.
        keep_s: how long one is kept that is not used.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        certificates: ssl.SSLContext | None,
        prefix: str,
        headers: Mapping[str, str],
        most: int,
        connect_timeout_s: float,
        silence_timeout_s: float,
        keep_s: float,
    ) -> None:
        self._host, self._port, self._certificates = host, port, certificates
        self._prefix, self._headers = prefix, _lines(headers)
        self._most, self._connect_timeout_s = most, connect_timeout_s
        self._silence_timeout_s, self._keep_s = silence_timeout_s, keep_s
        self._open: set[_Connection] = set()
        self._idle: list[_Connection] = []  # whoever was used last comes last
        self._opening = 0
        self._timer: asyncio.TimerHandle | None = None

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """The answer, once its head is there.

        Args:
            path: in ASCII, behind the prefix.
            headers: beside those of every request, and its length.
        Raises:
            OSError: `UnreachableError` where nothing was sent; else it may have come about.
        """
        head = (
            f"POST {self._prefix}{path} HTTP/1.1\r\n{self._headers}{_lines(headers)}Content-Length: {len(body)}\r\n\r\n"
        )
        return await self._ask(head.encode() + body)

    async def get(self, path: str, headers: Mapping[str, str]) -> Answer:
        """As `post`, without a body."""
        head = f"GET {self._prefix}{path} HTTP/1.1\r\n{self._headers}{_lines(headers)}\r\n"
        return await self._ask(head.encode())

    async def _ask(self, request: bytes) -> Answer:
        connection = self._kept() or await self._opened()
        answer = connection.ask(request)
        try:
            await answer.begun()
        except BaseException:
            answer.close()
            raise
        return answer

    async def close(self) -> None:
        """End them all, and what they carry."""
        for connection in tuple(self._open):
            connection.give_up(BrokenAnswerError("We have closed the connection."))
        while self._open:  # noqa: ASYNC110 - the loop tells each that it is gone when it comes round next
            await asyncio.sleep(0)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _kept(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable:
                return connection
        return None

    async def _opened(self) -> _Connection:
        if len(self._open) + self._opening >= self._most:
            raise UnreachableError("There are as many connections as there may be.")
        loop = asyncio.get_running_loop()
        self._opening += 1
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                addresses = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
                connected = await start_connection(addresses, happy_eyeballs_delay=_NEXT_ADDRESS_S, interleave=1)
            try:
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a model may think for minutes
                async with asyncio.timeout(self._connect_timeout_s):
                    _, connection = await loop.create_connection(
                        _Connection(self).itself,
                        sock=connected,
                        ssl=self._certificates,
                        server_hostname=self._host if self._certificates else None,
                    )
            except BaseException:
                connected.close()
                raise
        except (OSError, UnicodeError) as error:
            raise UnreachableError("There is no connection.") from error
        finally:
            self._opening -= 1
        return connection

    # What follows is a connection's part.

    def opened(self, connection: _Connection) -> None:
        self._open.add(connection)
        if self._timer is None:
            self._look_later()

    def put_by(self, connection: _Connection) -> None:
        self._idle.append(connection)

    def lost(self, connection: _Connection) -> None:
        self._open.discard(connection)

    def _look_later(self) -> None:
        every_s = min(_LOOK_EVERY_S, self._silence_timeout_s / 4)
        self._timer = asyncio.get_running_loop().call_later(every_s, self._look)

    def _look(self) -> None:
        """Give up what has been silent, or idle, for too long: one timer for all, whatever becomes of each."""
        now = asyncio.get_running_loop().time()
        for connection in tuple(self._open):
            waited = now - connection.heard_at
            if connection.is_waiting and waited > self._silence_timeout_s:
                connection.give_up(SilenceError("Nothing came for too long."))
            elif connection.is_idle and waited > self._keep_s:
                connection.give_up(BrokenAnswerError("It was idle."))
        self._idle = [connection for connection in self._idle if connection.is_usable]
        self._timer = None
        if self._open:
            self._look_later()
