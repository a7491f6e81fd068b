"""What the routes that take turns share: how a turn is asked for, and how its reply goes out."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, Final

from litestar import Request
from litestar.types import ASGIApp
from msgspec import UNSET, Meta, Struct, UnsetType

from textllm_core.chat.reply_log import last_reply
from textllm_core.errors import InvalidRequestError, TextLLMError, UnauthenticatedError
from textllm_core.records.messages import Reply, ReplyEvent, ReplyStarted, TurnOptions
from textllm_http.admission import headers_of
from textllm_http.auth import caller_of, refuse_if_revoked
from textllm_http.fields import (
    ConversationToGoOn,
    ForUser,
    Labels,
    MaxOutputTokens,
    StreamFormat,
    Temperature,
    UserMessage,
    WantedModel,
)
from textllm_http.links import with_absolute_links
from textllm_http.middleware import request_id_of
from textllm_http.requests import JsonBody
from textllm_http.responses import json_response
from textllm_http.services import services_of
from textllm_http.sse import EventFrames, EventStream, Frames, Numbered, TextFrames, framed
from textllm_http.tools import (
    Choice,
    Effort,
    Format,
    Parallel,
    Results,
    Tools,
    choice_of,
    format_of,
    functions_of,
)


class TurnRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A turn as clients send it, but for its files; null is the same as left out."""

    message: UserMessage | UnsetType = UNSET
    conversation_id: ConversationToGoOn | None = None
    user_id: ForUser | None = None
    stream: Annotated[
        bool | None, Meta(description="True: the reply comes as server-sent events. `/chat/stream` always streams.")
    ] = None
    stream_format: StreamFormat | None = None
    model: WantedModel | None = None
    prompt: Annotated[str | None, Meta(description="The name of one of the operator's system prompts.")] = None
    instructions: Annotated[
        str | None,
        Meta(description="A system prompt for this turn, in place of the operator's; not together with `prompt`."),
    ] = None
    max_output_tokens: MaxOutputTokens | None = None
    temperature: Temperature | None = None
    metadata: Labels | None = None
    # What is left out stays out of the digest of the request, by which a repeat is known.
    tools: Tools | UnsetType | None = UNSET
    tool_choice: Choice | UnsetType | None = UNSET
    parallel_tool_calls: Parallel | UnsetType | None = UNSET
    response_format: Format | UnsetType | None = UNSET
    reasoning_effort: Effort | UnsetType | None = UNSET
    tool_results: Results | UnsetType | None = UNSET

    @property
    def text(self) -> str:
        """The message.

        Raises:
            InvalidRequestError: it was left out, and there are no results of calls in its place.
        """
        if self.message is UNSET and not self.tool_results:
            raise InvalidRequestError.of("message", "is required")
        return self.message or ""

    @property
    def options(self) -> TurnOptions:
        """How the turn is to be answered."""
        return TurnOptions(
            model=self.model,
            prompt=self.prompt,
            instructions=self.instructions,
            max_output_tokens=self.max_output_tokens,
            temperature=self.temperature,
            metadata=self.metadata,
            tools=functions_of(self.tools) if self.tools else (),
            tool_choice=choice_of(self.tool_choice) if self.tool_choice else None,
            parallel_tool_calls=None if self.parallel_tool_calls is UNSET else self.parallel_tool_calls,
            response_format=format_of(self.response_format) if self.response_format else None,
            reasoning_effort=self.reasoning_effort or None,
        )


TURN: Final = JsonBody(TurnRequest)


async def begun(events: AsyncGenerator[ReplyEvent, None]) -> ReplyStarted:
    """The first event of a reply; a refusal is raised here, and is a plain response."""
    return begins([await anext(events)])


def begins(first: Sequence[ReplyEvent]) -> ReplyStarted:
    """What the first events of a reply begin with."""
    started = first[0]
    assert isinstance(started, ReplyStarted)
    return started


async def answer(
    request: Request[Any, Any, Any],
    started: ReplyStarted,
    events: AsyncGenerator[ReplyEvent, None],
    *,
    stream: bool | None,
    stream_format: str | None,
) -> ASGIApp:
    """The response to a turn whose reply has begun: the whole reply, or a stream."""
    if stream:
        return event_stream(request, started, events, stream_format or "text", first=[started])
    return whole(request, await last_reply(events), headers_of(started))


def whole(request: Request[Any, Any, Any], reply: Reply, headers: dict[str, str] | None = None) -> ASGIApp:
    """A reply that has ended."""
    return json_response(with_absolute_links(request, reply), headers=headers or {})


def event_stream(
    request: Request[Any, Any, Any],
    started: ReplyStarted,
    events: AsyncGenerator[ReplyEvent | Numbered | list[ReplyEvent], None],
    stream_format: str,
    *,
    first: Sequence[ReplyEvent] = (),
) -> EventStream:
    """Events of a reply, as they come, for as long as the key that asks for them is in force.

    Args:
        first: what has been read of them already; then it is the turn of this very request.
    """
    ids = {
        "X-Conversation-ID": started.conversation_id,
        "X-Response-ID": started.response_id,
        "X-User-ID": started.user_id,
    }
    frames: Frames = EventFrames() if stream_format == "events" else TextFrames()
    shown = partial(with_absolute_links, request)
    return stream_of(request, started, events, frames, headers_of(started) | ids, first=first, shown=shown)


def stream_of(
    request: Request[Any, Any, Any],
    started: ReplyStarted,
    events: AsyncGenerator[ReplyEvent | Numbered | list[ReplyEvent], None],
    frames: Frames,
    headers: Mapping[str, str],
    *,
    first: Sequence[ReplyEvent] = (),
    shown: Callable[[Reply], Reply] | None = None,
) -> EventStream:
    """The same in any frames.

    Args:
        first: as `event_stream` has it; shown: as `framed` has it.
    """

    async def check() -> None:
        try:
            await refuse_if_revoked(request)
        except UnauthenticatedError:
            if first:  # it is the turn of this very key; what others asked for goes on
                with suppress(TextLLMError):
                    await services_of(request).textllm.cancel_reply(caller_of(request), started.response_id)
            raise

    chunks = framed(
        events,
        frames,
        request_id=request_id_of(request.scope),
        first=first,
        shown=shown,
        check=check,
    )
    return EventStream(chunks, headers)
