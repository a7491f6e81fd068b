"""Stream events as server-sent events (WHATWG HTML, 9.2), in the two formats of the service."""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Final, Protocol, TypeAlias

from litestar.types import Receive, Scope, Send
from msgspec.structs import replace

from textllm_core.records.hosted import ToolStep
from textllm_core.records.messages import Reply, ReplyCompleted, ReplyEvent, ReplyFailed, ReplyStarted, TextDelta
from textllm_core.records.thoughts import Reasoning, Thought, ThoughtDelta
from textllm_core.wire import to_json
from textllm_http.problems import Problem, problem_of

WATCHED_AFTER_S: Final = 0.1  # a reply that is over sooner costs no watch over its client
COMMENT_AFTER_S: Final = 15.0  # proxies drop connections that are silent for 30 to 60 s
# The headers go out with the first piece. A stream that waits for its model is begun after `begin_within_s` (10 s) at
# the latest; this is the rest of the 15 s in which every client has something.
FIRST_COMMENT_AFTER_S: Final = 3.0
STALLED_AFTER_S: Final = 60.0  # a network that comes back does so within seconds
CHECK_EVERY_S: Final = 1.0  # as soon as a revoked key ends everywhere; the answer is remembered for half as long
_COMMENT: Final = b": keep-alive\n\n"
_LINE_BREAK: Final = re.compile(r"\r\n|\r|\n")
_END: Final = "[DONE]"

Numbered: TypeAlias = tuple[int, ReplyEvent]


class Frames(Protocol):
    """One format of a stream. Each method returns whole frames, in UTF-8; none where there is nothing to send yet.

    Events are numbered from 1. `refusal`: a delta in which the model says why it would not answer. `thought`: one of
    what it thinks; `returned`: the same in the form in which it goes back.
    """

    def started(self, event: ReplyStarted) -> bytes: ...
    def delta(self, number: int, text: str) -> bytes: ...
    def refusal(self, number: int, text: str) -> bytes: ...
    def thought(self, number: int, words: str) -> bytes: ...
    def returned(self, number: int, reasoning: Reasoning) -> bytes: ...
    def stepped(self, number: int, step: ToolStep) -> bytes: ...
    def completed(self, number: int, end: ReplyCompleted) -> bytes: ...
    def failed(self, number: int, problem: Problem) -> bytes: ...


class TextFrames:
    """The text and nothing else: an event a delta, `[DONE]` at the end; a failure is the event `error`, with no end.

    A line break of any kind reaches the client as LF, which is all that the standard can carry.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = ""

    def started(self, event: ReplyStarted) -> bytes:  # noqa: ARG002 - its ids are headers of the response
        return b""

    def delta(self, number: int, text: str) -> bytes:  # noqa: ARG002 - these frames have no numbers
        text, self._held = self._held + text, ""
        if text[-1:] == "\r":  # it may be one half of a line break, and waits for the other
            text, self._held = text[:-1], "\r"
        return self._event(text)

    refusal = delta

    def thought(self, number: int, words: str) -> bytes:  # noqa: ARG002 - what a model thinks is told below `/v1` alone
        return b""

    def returned(self, number: int, reasoning: Reasoning) -> bytes:  # noqa: ARG002
        return b""

    def stepped(self, number: int, step: ToolStep) -> bytes:  # noqa: ARG002 - only `/v1/responses` offers such tools
        return b""

    def completed(self, number: int, end: ReplyCompleted) -> bytes:  # noqa: ARG002 - its text has been sent
        return self._rest() + b"data: [DONE]\n\n"

    def failed(self, number: int, problem: Problem) -> bytes:  # noqa: ARG002
        return self._rest() + b"event: error\ndata: " + problem.document + b"\n\n"

    def _rest(self) -> bytes:
        held, self._held = self._held, ""
        return self._event(held)

    def _event(self, text: str) -> bytes:
        if not text:
            return b""
        if text == _END:  # only the end may look like the end
            return self._event(text[:3]) + self._event(text[3:])
        return "".join(f"data: {line}\n" for line in _LINE_BREAK.split(text)).encode() + b"\n"


class EventFrames:
    """Named events with JSON data, whose numbers are their ids."""

    def started(self, event: ReplyStarted) -> bytes:
        ids = ("response_id", "conversation_id", "user_id", "session_id", "model")
        return _numbered(1, b"reply.started", to_json({name: getattr(event, name) for name in ids}))

    def delta(self, number: int, text: str) -> bytes:
        return _numbered(number, b"reply.delta", to_json({"text": text}))

    refusal = delta

    def thought(self, number: int, words: str) -> bytes:  # noqa: ARG002 - as in `TextFrames`
        return b""

    def returned(self, number: int, reasoning: Reasoning) -> bytes:  # noqa: ARG002
        return b""

    def stepped(self, number: int, step: ToolStep) -> bytes:  # noqa: ARG002
        return b""

    def completed(self, number: int, end: ReplyCompleted) -> bytes:
        return _numbered(number, b"reply.completed", to_json(end.reply))

    def failed(self, number: int, problem: Problem) -> bytes:
        return _numbered(number, b"reply.failed", problem.document)


def _numbered(number: int, name: bytes, data: bytes) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (number, name, data)


class LastChunk(bytes):
    """Nothing follows: it ends the response, without another message to the server."""

    __slots__ = ()


async def framed(
    events: AsyncGenerator[ReplyEvent | Numbered | list[ReplyEvent], None],
    frames: Frames,
    *,
    request_id: str,
    first: Sequence[ReplyEvent] = (),
    shown: Callable[[Reply], Reply] | None = None,
    check: Callable[[], Awaitable[None]] | None = None,
) -> AsyncGenerator[bytes, None]:
    """The events of a reply as chunks of the response's body. Whatever happens, the end is told.

    Events that are there at once go out in one chunk: each costs the server a wake-up, and the client a packet.

    Args:
        events: with their numbers, or one after the other, or some at once.
        first: those that have been read already.
        shown: makes of a reply what the client is to see of it.
        check: asked before an event, once in a second: what it raises is the end.
    """
    number, loop, chunk, is_over = 0, asyncio.get_running_loop(), bytearray(), False

    def take(number: int, event: ReplyEvent) -> None:
        nonlocal chunk, is_over
        match event:
            case TextDelta(text, is_refusal):
                chunk += frames.refusal(number, text) if is_refusal else frames.delta(number, text)
            case ReplyStarted():
                chunk += frames.started(event)
            case ThoughtDelta(words):
                chunk += frames.thought(number, words)
            case Thought(reasoning):
                chunk += frames.returned(number, reasoning)
            case ToolStep():
                chunk += frames.stepped(number, event)
            case ReplyCompleted(reply):
                chunk += frames.completed(number, replace(event, reply=shown(reply)) if shown else event)
                is_over = True
            case ReplyFailed(_, error):
                chunk += frames.failed(number, problem_of(error, request_id))
                is_over = True

    def taken() -> bytes:
        whole = LastChunk(chunk) if is_over else bytes(chunk)
        chunk.clear()
        return whole

    checked_at = loop.time()
    async with aclosing(events):
        try:
            for number, event in enumerate(first, 1):
                take(number, event)
            if chunk:
                yield taken()
            async for item in events:
                if check is not None and loop.time() - checked_at >= CHECK_EVERY_S:
                    await check()
                    checked_at = loop.time()
                if isinstance(item, tuple):
                    number = item[0]
                    take(*item)
                else:
                    for event in item if isinstance(item, list) else (item,):
                        number += 1
                        take(number, event)
                if chunk:
                    yield taken()
        except Exception as defect:  # noqa: BLE001 - it is logged, and the client is told
            yield LastChunk(chunk + frames.failed(number + 1, problem_of(defect, request_id)))


class EventStream:
    """An ASGI response: the chunks as they come, a comment where none came for a while.

    It ends when the chunks end, when the client has left, or when it has read nothing for `STALLED_AFTER_S`; the
    chunks are closed in every case. Thousands are open at once, most of them idle: one timer looks after each.
    """

    __slots__ = ("_chunks", "_headers", "_sending", "_sent_at", "_tasks", "_timer")

    def __init__(self, chunks: AsyncGenerator[bytes, None], headers: Mapping[str, str]) -> None:
        self._chunks = chunks
        self._headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),
            *((name.lower().encode(), value.encode()) for name, value in headers.items()),
        ]
        self._sending = 0  # messages that the client has not taken yet
        self._sent_at = 0.0  # when the first of them was; without any, the last one
        self._tasks: list[asyncio.Task[None]] = []
        self._timer: asyncio.TimerHandle | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        async with aclosing(self._chunks):
            await send({"type": "http.response.start", "status": 200, "headers": self._headers})
            del self._headers
            loop = asyncio.get_running_loop()
            self._sent_at = loop.time() - max(0.0, COMMENT_AFTER_S - FIRST_COMMENT_AFTER_S)
            presence = asyncio.timeout(None)  # of the client, until `_end`
            try:
                # What fails here is the sending, to a client that is gone; a failure of the reply is a chunk.
                with suppress(Exception):
                    async with presence:
                        self._timer = loop.call_later(WATCHED_AFTER_S, self._watch, receive, send, presence)
                        async for chunk in self._chunks:
                            is_last = isinstance(chunk, LastChunk)
                            await self._send(send, chunk, more=not is_last)
                            if is_last:
                                break
                        else:
                            await self._send(send, b"", more=False)
            finally:
                if self._timer is not None:
                    self._timer.cancel()
                for task in self._tasks:
                    task.cancel()
                if self._tasks:
                    await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _send(self, send: Send, chunk: bytes, *, more: bool = True) -> None:
        if not self._sending:
            self._sent_at = asyncio.get_running_loop().time()
        self._sending += 1
        await send({"type": "http.response.body", "body": chunk, "more_body": more})
        self._sending -= 1

    def _watch(self, receive: Receive, send: Send, presence: asyncio.Timeout) -> None:
        self._tasks.append(asyncio.create_task(_until_left(receive, presence)))
        self._look_after(send, presence)

    def _look_after(self, send: Send, presence: asyncio.Timeout) -> None:
        """Comment on a silence, end what stalls, and look again when either may be due."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._due():
            if self._sending:
                _end(presence)
                return
            self._sent_at = loop.time()
            self._tasks[1:] = [asyncio.create_task(self._comment(send, presence))]
        self._timer = loop.call_at(self._due(), self._look_after, send, presence)

    def _due(self) -> float:
        return self._sent_at + (STALLED_AFTER_S if self._sending else COMMENT_AFTER_S)

    async def _comment(self, send: Send, presence: asyncio.Timeout) -> None:
        try:
            await self._send(send, _COMMENT)
        except Exception:  # noqa: BLE001 - the client is gone
            _end(presence)


async def _until_left(receive: Receive, presence: asyncio.Timeout) -> None:
    with suppress(Exception):  # a client that cannot be heard is gone
        while (await receive())["type"] != "http.disconnect":
            pass
    _end(presence)


def _end(presence: asyncio.Timeout) -> None:
    if not presence.expired():
        presence.reschedule(0)
