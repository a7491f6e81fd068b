"""`/chat` and `/chat/stream`."""

import re
from collections.abc import AsyncGenerator
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal

from litestar import Request, get, post
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp
from msgspec import Meta, Struct

from textllm_core.application import TextLLM
from textllm_core.chat.exchange import last_reply
from textllm_core.chat.messages import Idempotency, ReplyEvent, ReplyStarted, TextTurn, TurnOptions
from textllm_core.errors import InvalidRequestError
from textllm_core.wire import to_json
from textllm_http.admission import headers_of, idempotency_of
from textllm_http.auth import any_caller, caller_of
from textllm_http.middleware import request_id_of
from textllm_http.requests import JsonBody, QueryString
from textllm_http.sse import EventFrames, EventStream, TextFrames, counted, framed


class ChatRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A text turn as clients send it; null is the same as left out.

    Args:
        stream: for `/chat` alone; `/chat/stream` always streams.
        stream_format: of a stream; `text` unless named.
    """

    message: str
    conversation_id: str | None = None
    user_id: str | None = None
    stream: bool | None = None
    stream_format: Literal["text", "events"] | None = None
    model: str | None = None
    prompt: str | None = None
    instructions: str | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    temperature: float | None = None
    metadata: dict[str, str] | None = None

    def turn(self, idempotency: Idempotency | None, *, is_resumable: bool) -> TextTurn:
        """The turn that is asked for."""
        options = TurnOptions(
            model=self.model,
            prompt=self.prompt,
            instructions=self.instructions,
            max_output_tokens=self.max_output_tokens,
            temperature=self.temperature,
            metadata=self.metadata,
        )
        return TextTurn(self.message, self.conversation_id, self.user_id, options, idempotency, is_resumable)


class Resumption(Struct, frozen=True):
    """How a stream is read on; only `events` has the numbers by which that can be done again."""

    stream_format: Literal["events", "text"] = "events"


_BODY: Final = JsonBody(ChatRequest)
_RESUMPTION: Final = QueryString(Resumption)
_EVENT_NUMBER: Final = re.compile(r"[0-9]{1,10}")


@post("/chat", status_code=200, guards=[any_caller])
async def chat(request: Request[Any, Any, Any]) -> ASGIApp:
    """Answer a text turn: the whole reply, or a stream where the body asks for one."""
    asked = await _BODY.read(request, max_bytes=request.app.state.max_body_bytes)
    if asked.stream:
        return await _stream(request, asked)
    events, started = await _begun(request, asked)
    reply = await last_reply(events)
    return ASGIResponse(body=to_json(reply), headers=headers_of(started))


@post("/chat/stream", status_code=200, guards=[any_caller])
async def chat_stream(request: Request[Any, Any, Any]) -> ASGIApp:
    """Answer a text turn while the reply is being written."""
    return await _stream(request, await _BODY.read(request, max_bytes=request.app.state.max_body_bytes))


@get("/chat/stream/{response_id:str}", guards=[any_caller], before_request=_RESUMPTION.check)
async def resume(request: Request[Any, Any, Any], response_id: FromPath[str]) -> ASGIApp:
    """Read a stream on from where it was lost, in whatever worker it runs."""
    textllm: TextLLM = request.app.state.textllm
    asked = _RESUMPTION.read(request)
    resumed = await textllm.resume_reply(caller_of(request), response_id, after=last_event_id_of(request))
    if resumed.is_over:
        await resumed.events.aclose()
        return ASGIResponse(status_code=HTTPStatus.NO_CONTENT)  # which tells an EventSource not to come again
    return _event_stream(request, resumed.started, resumed.events, asked.stream_format)


@post("/chat/stream/{response_id:str}/cancel", status_code=200, guards=[any_caller])
async def cancel(request: Request[Any, Any, Any], response_id: FromPath[str]) -> ASGIApp:
    """End a stream before the model does: what it came to by then, settled."""
    textllm: TextLLM = request.app.state.textllm
    return ASGIResponse(body=to_json(await textllm.cancel_reply(caller_of(request), response_id)))


def last_event_id_of(request: Request[Any, Any, Any]) -> int:
    """The number of the last event that the client has; 0 where it has none.

    Raises:
        InvalidRequestError: `Last-Event-ID` is no number of ours.
    """
    values = request.headers.getall("last-event-id", ["0"])
    if len(values) > 1 or not _EVENT_NUMBER.fullmatch(values[0]):
        raise InvalidRequestError.of("Last-Event-ID", "must be the id of an event of this stream")
    return int(values[0])


async def _begun(
    request: Request[Any, Any, Any], asked: ChatRequest, *, is_resumable: bool = False
) -> tuple[AsyncGenerator[ReplyEvent, None], ReplyStarted]:
    textllm: TextLLM = request.app.state.textllm
    turn = asked.turn(idempotency_of(request, to_json(asked)), is_resumable=is_resumable)
    events = textllm.send_message.stream(caller_of(request), turn)
    started = await anext(events)  # a refusal is raised here, and is a plain response
    assert isinstance(started, ReplyStarted)
    return events, started


async def _stream(request: Request[Any, Any, Any], asked: ChatRequest) -> EventStream:
    events, started = await _begun(request, asked, is_resumable=True)
    return _event_stream(request, started, counted(started, events), asked.stream_format or "text")


def _event_stream(
    request: Request[Any, Any, Any],
    started: ReplyStarted,
    events: AsyncGenerator[tuple[int, ReplyEvent], None],
    stream_format: str,
) -> EventStream:
    frames = EventFrames() if stream_format == "events" else TextFrames()
    ids = {
        "X-Conversation-ID": started.conversation_id,
        "X-Response-ID": started.response_id,
        "X-User-ID": started.user_id,
    }
    return EventStream(framed(events, frames, request_id=request_id_of(request.scope)), headers_of(started) | ids)
