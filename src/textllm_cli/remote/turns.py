"""Turns of a server: sent, heard as they come, read on where the connection is lost, and cut short."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, suppress
from secrets import token_hex
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec.structs import replace

from textllm_adapters.openai.functions import chat_options
from textllm_adapters.openai.sse import EventSplitter, ServerSentEvent
from textllm_cli.remote.client import Client, is_replayed, named
from textllm_cli.remote.conversations import RemoteConversations
from textllm_cli.remote.problems import error_of
from textllm_core.chat.chat_with_document import DocumentTurn
from textllm_core.chat.chat_with_image import ImageTurn
from textllm_core.errors import ServiceUnavailableError, TextLLMError
from textllm_core.records.conversations import Conversation
from textllm_core.records.file_replies import DocumentReply, ImageReply
from textllm_core.records.messages import (
    Reply,
    ReplyCompleted,
    ReplyEvent,
    ReplyFailed,
    ReplyStarted,
    TextDelta,
    TextTurn,
)
from textllm_core.tenancy import Caller
from textllm_core.uploads import Upload
from textllm_core.wire import to_json

AnyTurn = TextTurn | ImageTurn | DocumentTurn
_Event = tuple[ServerSentEvent, bool]  # and whether it is told again
N = TypeVar("N", TextTurn, ImageTurn, DocumentTurn)

_READ_ON_PAUSES_S: Final = (0.2, 0.5, 1.0, 2.0, 4.0)  # a server that is renewed is back by then
_CUT_TIMEOUT_S: Final = 10.0  # to settle takes milliseconds; who has pressed Ctrl-C waits no longer than this
_BEGIN_TIMEOUT_S: Final = 15.0  # a server says after 10 s at the latest by what name it knows a turn
_ROUTES: Final[Mapping[type, str]] = {TextTurn: "/chat", ImageTurn: "/chat/image", DocumentTurn: "/chat/file"}
_REPLIES: Final[Mapping[type, type[Reply]]] = {TextTurn: Reply, ImageTurn: ImageReply, DocumentTurn: DocumentReply}


class _Delta(msgspec.Struct):
    text: str


class _Started(msgspec.Struct):
    response_id: str
    conversation_id: str
    user_id: str
    session_id: str
    model: str


class RemoteAnswers(Generic[N]):
    """The turns of one kind."""

    def __init__(self, talk: RemoteTalk) -> None:
        self._talk = talk

    def stream(self, caller: Caller, turn: N, /) -> AsyncGenerator[ReplyEvent, None]:  # noqa: ARG002 - the key says who
        """As `SendMessage.stream`."""
        return self._talk.stream(turn)


class RemoteTalk:
    """A server's `TextLLM`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._running: set[str] = set()
        self._beginning: dict[asyncio.Task[_Event], AsyncGenerator[_Event, None]] = {}  # left before they had begun
        self.send_message: RemoteAnswers[TextTurn] = RemoteAnswers(self)
        self.chat_with_image: RemoteAnswers[ImageTurn] = RemoteAnswers(self)
        self.chat_with_document: RemoteAnswers[DocumentTurn] = RemoteAnswers(self)
        self.conversations = RemoteConversations(client)

    async def cancel_reply(self, caller: Caller, response_id: str) -> Reply:  # noqa: ARG002 - the key says who
        """What it came to, settled."""
        self._running.discard(response_id)
        return await self._client.call("POST", named("chat", "stream", response_id, "cancel"), Reply)

    async def summarize_conversation(self, caller: Caller, conversation_id: str) -> Conversation:  # noqa: ARG002
        """The conversation, with its new summary."""
        return await self._client.call("POST", named("conversations", conversation_id, "summary"), Conversation)

    async def cut_short(self) -> None:
        """End what is still running: whoever asked for it has left."""
        await asyncio.gather(*(self._cut_once_begun(*each) for each in self._beginning.items()))
        await asyncio.gather(*map(self._cut, list(self._running)))

    async def _cut(self, response_id: str) -> None:
        with suppress(TextLLMError, TimeoutError):  # it has ended; or the server goes on with it, and charges it
            async with asyncio.timeout(_CUT_TIMEOUT_S):
                await self.cancel_reply(Caller(), response_id)

    async def _cut_once_begun(self, reading: asyncio.Task[_Event], events: AsyncGenerator[_Event, None]) -> None:
        with suppress(TextLLMError, TimeoutError):  # it was refused
            async with asyncio.timeout(_BEGIN_TIMEOUT_S):
                event, _ = await reading
            if isinstance(begun := _told(event, None, Reply), ReplyStarted):
                self._running.add(begun.response_id)
        await events.aclose()

    async def stream(self, turn: AnyTurn) -> AsyncGenerator[ReplyEvent, None]:
        """The events of a turn's reply."""
        started: ReplyStarted | None = None
        count = 0
        events = await self._begun(self._asked(turn))
        for pause in (*_READ_ON_PAUSES_S, None):
            try:
                async with aclosing(events):
                    async for event, repeated in events:
                        count += 1
                        told = _told(event, started, _REPLIES[type(turn)])
                        if isinstance(told, ReplyStarted):
                            started = told = replace(told, is_replayed=repeated)
                            self._running.add(told.response_id)
                        elif started is not None and isinstance(told, ReplyCompleted | ReplyFailed):
                            self._running.discard(started.response_id)
                        yield told
                        if isinstance(told, ReplyCompleted | ReplyFailed):
                            return
                raise self._client.broke()
            except ServiceUnavailableError:
                if started is None or pause is None:
                    raise
                await asyncio.sleep(pause)
                events = self._read_on(started.response_id, after=count)

    async def _begun(self, events: AsyncGenerator[_Event, None]) -> AsyncGenerator[_Event, None]:
        """The same, once the first has come.

        It is read by a task of its own: until then nobody knows the name by which a turn is cut short, and whoever
        leaves means to end it.
        """
        reading = asyncio.create_task(self._first(events))
        try:
            first = await asyncio.shield(reading)
        except asyncio.CancelledError:
            self._beginning[reading] = events
            raise

        async def every() -> AsyncGenerator[_Event, None]:
            async with aclosing(events):
                yield first
                async for event in events:
                    yield event

        return every()

    async def _first(self, events: AsyncGenerator[_Event, None]) -> _Event:
        async for event in events:
            return event
        raise self._client.broke()

    async def _asked(self, turn: AnyTurn) -> AsyncGenerator[_Event, None]:
        given = _fields_of(turn)
        given |= {"stream": True, "stream_format": "events"}
        headers = {} if turn.idempotency is None else {"Idempotency-Key": turn.idempotency.key}
        if isinstance(turn, TextTurn):
            events = self._events("POST", _ROUTES[type(turn)], body=given, headers=headers)
        else:
            content, of_form = form_of(given, _files_of(turn))
            events = self._events("POST", _ROUTES[type(turn)], content=content, headers=headers | dict(of_form))
        async with aclosing(events):
            async for event in events:
                yield event

    def _read_on(self, response_id: str, *, after: int) -> AsyncGenerator[_Event, None]:
        return self._events("GET", named("chat", "stream", response_id), headers={"Last-Event-ID": str(after)})

    async def _events(self, method: str, path: str, **call: Any) -> AsyncGenerator[_Event, None]:
        splitter = EventSplitter()
        async with self._client.open(method, path, **call) as answer:
            with self._client.told():
                async for piece in answer.aiter_raw():
                    for event in splitter.feed(piece):
                        yield event, is_replayed(answer)


def _told(event: ServerSentEvent, started: ReplyStarted | None, kind: type[Reply]) -> ReplyEvent:
    match event.name:
        case b"reply.started":
            return ReplyStarted(**msgspec.structs.asdict(msgspec.json.decode(event.data, type=_Started)))
        case b"reply.delta":
            return TextDelta(msgspec.json.decode(event.data, type=_Delta).text)
        case b"reply.completed":
            return ReplyCompleted(msgspec.json.decode(event.data, type=kind))
    response_id = "" if started is None else started.response_id
    return ReplyFailed(response_id, error_of(event.data) or TextLLMError("The reply broke off."))


def _fields_of(turn: AnyTurn) -> dict[str, object]:
    """What `/chat` takes of a turn."""
    options = turn.options
    fields = {
        "message": turn.text,
        "conversation_id": turn.conversation_id,
        "user_id": turn.user_id,
        "model": options.model,
        "prompt": options.prompt,
        "instructions": options.instructions,
        "max_output_tokens": options.max_output_tokens,
        "temperature": options.temperature,
        "metadata": options.metadata,
    }
    return {name: value for name, value in fields.items() if value is not None} | chat_options(options)


def _files_of(turn: ImageTurn | DocumentTurn) -> Sequence[tuple[str, Upload]]:
    images = [("images", image) for image in turn.images]
    if isinstance(turn, ImageTurn):
        return images
    return [("file", turn.document), *(("file", other) for other in turn.others), *images]


def form_of(
    fields: Mapping[str, object], files: Sequence[tuple[str, Upload]]
) -> tuple[AsyncIterator[bytes], Mapping[str, str]]:
    """A form (RFC 7578), file by file as it is read, and the headers that belong to it."""
    boundary = token_hex(16)
    texts = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode()
        + (value.encode("utf-8", "replace") if isinstance(value, str) else to_json(value))
        + b"\r\n"
        for name, value in fields.items()
    )
    heads = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{_quoted(upload.name)}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode("utf-8", "replace")
        for field, upload in files
    ]
    end = f"--{boundary}--\r\n".encode()

    async def content() -> AsyncIterator[bytes]:
        yield texts
        for head, (_, upload) in zip(heads, files, strict=True):
            yield head
            async for piece in upload.read():
                yield piece
            yield b"\r\n"
        yield end

    size = len(texts) + sum(len(head) + 2 for head in heads) + sum(upload.size for _, upload in files) + len(end)
    return content(), {"Content-Type": f"multipart/form-data; boundary={boundary}", "Content-Length": str(size)}


def _quoted(name: str) -> str:
    """A file's name as browsers write it in a header."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
