"""A provider that always says the same at once, light enough never to be what is measured.

It speaks as much of Conversations, Responses and Chat Completions as a turn needs; what it says is what the tests'
stand-in says, with other ids in each answer.
"""

import asyncio
import itertools
import json
import multiprocessing
import re
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, cast

import httptools
import uvloop
from tests.servers.openai_chat import ChatWire
from tests.servers.openai_responses import ResponsesWire
from tests.servers.openai_runs import Outcome
from tests.servers.openai_script import Json, Usage

WORD = "word "  # each delta
DELTAS = 16
_ASKED: Json = {"model": "gpt-4o", "stream": True, "store": True, "stream_options": {"include_obfuscation": False}}
_STREAMED = re.compile(rb'"stream"\s*:\s*true')
_EVENTS_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n"
    b"x-request-id: req_canned\r\n\r\n"
)


class Wire(Protocol):
    """What the stand-in has for each of its two APIs."""

    id: str

    def begin(self) -> Iterable[bytes]: ...
    def speak(self, delta: str) -> Iterable[bytes]: ...
    def finish(self, outcome: Outcome) -> Iterable[bytes]: ...


def events_of(wire: Wire, deltas: int) -> list[bytes]:
    """The server-sent events of a reply of so many deltas."""
    usage = Usage(input_tokens=8, cached_tokens=0, cache_write_tokens=0, output_tokens=deltas, reasoning_tokens=0)
    spoken = [event for _ in range(deltas) for event in wire.speak(WORD)]
    return [*wire.begin(), *spoken, *wire.finish(Outcome("completed", usage))]


class _Answer:
    """An answer with an id of its own each time: the canned one stands in all of its pieces.

    Args:
        pieces: sent one after the other.
    """

    def __init__(self, canned_id: str, pieces: Sequence[bytes]) -> None:
        self._pieces = [piece.split(canned_id.encode()) for piece in pieces]
        self._kind, _, number = canned_id.rpartition("_")
        self._digits = len(number)  # an id of another length would ask for other lengths in the heads

    def pieces(self, number: int) -> list[bytes]:
        own_id = f"{self._kind}_{number:0{self._digits}x}".encode()
        return [own_id.join(parts) for parts in self._pieces]


class Canned:
    """All answers.

    Args:
        deltas: of each reply.
        gap_s: before each piece of a stream but the first; with none the whole stream comes in one piece.
    """

    def __init__(self, deltas: int, gap_s: float) -> None:
        self.gap_s = gap_s
        self._numbers = itertools.count()
        response = ResponsesWire(_ASKED, conversation_id="conv_canned", service_tier=None, refuses=False)
        completion = ChatWire(_ASKED, service_tier=None, refuses=False)
        including_usage = ChatWire(
            _ASKED | {"stream_options": {"include_usage": True}}, service_tier=None, refuses=False
        )
        streams = [
            (wire.id, self._streamed(events_of(wire, deltas))) for wire in (response, completion, including_usage)
        ]
        conversation_id = f"conv_{0:048x}"
        conversation = {"id": conversation_id, "object": "conversation", "created_at": 1795348800, "metadata": {}}
        self._conversation = _Answer(conversation_id, [_whole(conversation)])
        self._response = _Answer(response.id, [_whole(response.response)])
        self._completion = _Answer(completion.id, [_whole(completion.completion)])
        self._response_stream, self._completion_stream, self._completion_stream_with_usage = itertools.starmap(
            _Answer, streams
        )

    def _streamed(self, events: list[bytes]) -> list[bytes]:
        chunks = [b"%x\r\n%b\r\n" % (len(event), event) for event in events]
        pieces = [_EVENTS_HEAD + chunks[0], *chunks[1:-1], chunks[-1] + b"0\r\n\r\n"]
        return pieces if self.gap_s else [b"".join(pieces)]

    def answer(self, path: bytes, body: bytes) -> list[bytes]:
        """The answer in its pieces."""
        number = next(self._numbers)
        if path.startswith(b"/v1/conversations"):
            return self._conversation.pieces(number)
        streamed = _STREAMED.search(body) is not None
        if path == b"/v1/responses":
            return (self._response_stream if streamed else self._response).pieces(number)
        if path == b"/v1/chat/completions":
            if not streamed:
                return self._completion.pieces(number)
            with_usage = b'"include_usage"' in body
            return (self._completion_stream_with_usage if with_usage else self._completion_stream).pieces(number)
        return [b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"]


def _whole(content: Json) -> bytes:
    body = json.dumps(content, separators=(",", ":")).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


class _Connection(asyncio.Protocol):
    """Answers one request after the other."""

    def __init__(self, canned: Canned) -> None:
        self._canned = canned
        self._parser = httptools.HttpRequestParser(self)
        self._path = self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # what it is, though uvloop's does not inherit it

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._path = self._body = b""

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        first, *others = self._canned.answer(self._path, self._body)
        self._transport.write(first)
        if others:
            self._send_later(iter(others))

    def _send_later(self, pieces: Iterator[bytes]) -> None:
        def send() -> None:
            if (piece := next(pieces, None)) is not None and not self._transport.is_closing():
                self._transport.write(piece)
                self._send_later(pieces)

        asyncio.get_running_loop().call_later(self._canned.gap_s, send)


def _serve(listener: socket.socket, deltas: int, gap_s: float) -> None:
    async def run() -> None:
        canned = Canned(deltas, gap_s)
        server = await asyncio.get_running_loop().create_server(lambda: _Connection(canned), sock=listener)
        await server.serve_forever()

    uvloop.run(run())


class Upstream:
    """A provider in a process of its own, until its block ends.

    Attributes:
        base_url: what the SDK takes, e.g. "http://127.0.0.1:40123/v1".
        pid: the process.
    """

    def __init__(self, listener: socket.socket, pid: int) -> None:
        self.port: int = listener.getsockname()[1]
        self.base_url = f"http://127.0.0.1:{self.port}/v1"
        self.pid = pid


@contextmanager
def upstream(deltas: int = DELTAS, gap_s: float = 0.0) -> Iterator[Upstream]:
    """Start one whose replies have so many deltas, with a gap before each where that is wanted."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        spawn = multiprocessing.get_context("spawn")
        process = spawn.Process(target=_serve, args=(listener, deltas, gap_s), daemon=True)
        process.start()
        assert process.pid is not None
        try:
            yield Upstream(listener, process.pid)
        finally:
            process.terminate()
            process.join()
