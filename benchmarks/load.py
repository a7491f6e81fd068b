"""Requests to a server, one after the other on each of some connections, at as little cost as can be."""

import asyncio
import re
import statistics
import time
from typing import NamedTuple, cast

import httptools

_RESPONSE_ID = re.compile(rb"resp_[0-9a-z]+")
PATIENCE_S = 30.0  # for the last answers, once no more is asked


class Question(NamedTuple):
    """What is asked over and over.

    Attributes:
        requests: as bytes; connection n sends the n-th, and begins anew after the last.
        text: stands in the first piece of an answer that has any text.
        end: stands at the end of every whole answer.
        goes_on: the id of the response in an answer takes the place of that in the next request.
    """

    requests: list[bytes]
    text: bytes
    end: bytes
    goes_on: bool = False


class Answers(NamedTuple):
    """What came of it, in milliseconds; `took_s` is the time from the first request to the last answer."""

    whole_ms: list[float]
    first_text_ms: list[float]
    took_s: float

    @property
    def per_s(self) -> float:
        return len(self.whole_ms) / self.took_s

    @property
    def median_ms(self) -> float:
        return statistics.median(self.whole_ms)

    @property
    def p99_ms(self) -> float:
        return sorted(self.whole_ms)[int(len(self.whole_ms) * 0.99)]

    @property
    def median_first_text_ms(self) -> float:
        return statistics.median(self.first_text_ms)


def post(path: str, body: bytes, **headers: str) -> bytes:
    """A request on a connection that is kept."""
    lines = [f"POST {path} HTTP/1.1", "host: 127.0.0.1", "content-type: application/json"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body


async def load(port: int, question: Question, connections: int, seconds: float) -> Answers:
    """Ask on so many connections for so long; each waits for its answer before it asks again.

    Raises:
        RuntimeError: an answer was not 200, or not whole.
    """
    loop = asyncio.get_running_loop()
    clients = []
    for n in range(connections):
        client = _Client(question.requests[n % len(question.requests)], question)
        await loop.create_connection(client.itself, "127.0.0.1", port)
        clients.append(client)
    began = time.perf_counter()
    for client in clients:
        client.ask_until(began + seconds)
    try:
        async with asyncio.timeout(seconds + PATIENCE_S):
            await asyncio.gather(*(client.done for client in clients))
    finally:
        for client in clients:
            client.close()
    took = time.perf_counter() - began
    for n, client in enumerate(clients):
        question.requests[n % len(question.requests)] = client.request
    whole = [value for client in clients for value in client.whole_ms]
    return Answers(whole, [value for client in clients for value in client.first_text_ms], took)


class _Client(asyncio.Protocol):
    """One connection.

    Attributes:
        request: what it asks next.
    """

    def __init__(self, request: bytes, question: Question) -> None:
        self.request, self._question = request, question
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._asked = self._until = 0.0
        self._has_text = False
        self.whole_ms: list[float] = []
        self.first_text_ms: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def itself(self) -> "_Client":
        return self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # what it is, though uvloop's does not inherit it

    def ask_until(self, until: float) -> None:
        self._until = until
        self._ask()

    def close(self) -> None:
        self.done.cancel()
        self._transport.close()

    def _ask(self) -> None:
        self._body.clear()
        self._has_text = False
        self._asked = time.perf_counter()
        self._transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body.append(body)
        if not self._has_text and self._question.text in body:
            self._has_text = True
            self.first_text_ms.append((time.perf_counter() - self._asked) * 1000)

    def on_message_complete(self) -> None:
        now = time.perf_counter()
        body = b"".join(self._body)
        status = self._parser.get_status_code()
        if status != 200 or not self._has_text or not body.rstrip().endswith(self._question.end):
            asked = self.request.partition(b"\r\n")[0].decode()
            self._fail(f"{asked} was answered {status}: {body[:500]!r}")
            return
        self.whole_ms.append((now - self._asked) * 1000)
        if self._question.goes_on and (answered := _RESPONSE_ID.search(body)):
            self.request = _RESPONSE_ID.sub(answered[0], self.request)
        if now < self._until:
            self._ask()
        elif not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the connection was lost: {exc}")

    def _fail(self, why: str) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError(why))
