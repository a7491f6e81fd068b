"""`/chat` and `/chat/stream`."""

from collections.abc import AsyncGenerator
from typing import Annotated, Any, Final, Literal

from litestar import Request, post
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp
from msgspec import Meta, Struct

from textllm_core.application import TextLLM
from textllm_core.chat.exchange import last_reply
from textllm_core.chat.messages import Idempotency, ReplyEvent, ReplyStarted, TextTurn, TurnOptions
from textllm_core.wire import to_json
from textllm_http.admission import headers_of, idempotency_of
from textllm_http.auth import any_caller, caller_of
from textllm_http.middleware import request_id_of
from textllm_http.requests import JsonBody
from textllm_http.sse import EventFrames, EventStream, TextFrames, framed


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

    def turn(self, idempotency: Idempotency | None) -> TextTurn:
        """The turn that is asked for."""
        options = TurnOptions(
            model=self.model,
            prompt=self.prompt,
            instructions=self.instructions,
            max_output_tokens=self.max_output_tokens,
            temperature=self.temperature,
            metadata=self.metadata,
        )
        return TextTurn(self.message, self.conversation_id, self.user_id, options, idempotency)


_BODY: Final = JsonBody(ChatRequest)


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


async def _begun(
    request: Request[Any, Any, Any], asked: ChatRequest
) -> tuple[AsyncGenerator[ReplyEvent, None], ReplyStarted]:
    textllm: TextLLM = request.app.state.textllm
    turn = asked.turn(idempotency_of(request, to_json(asked)))
    events = textllm.send_message.stream(caller_of(request), turn)
    started = await anext(events)  # a refusal is raised here, and is a plain response
    assert isinstance(started, ReplyStarted)
    return events, started


async def _stream(request: Request[Any, Any, Any], asked: ChatRequest) -> EventStream:
    events, started = await _begun(request, asked)
    frames = EventFrames() if asked.stream_format == "events" else TextFrames()
    return EventStream(
        framed(started, events, frames, request_id=request_id_of(request.scope)),
        headers_of(started) | {"X-Conversation-ID": started.conversation_id, "X-User-ID": started.user_id},
    )
