"""`/chat` and `/chat/stream`."""

import re
from http import HTTPStatus
from typing import Any, Final

from litestar import Request, get, post
from litestar.params import FromPath
from litestar.types import ASGIApp
from msgspec import Struct

from textllm_core.errors import InvalidRequestError
from textllm_core.records.messages import Reply, TextTurn
from textllm_core.wire import to_json
from textllm_http.admission import headers_of, idempotency_of
from textllm_http.auth import any_caller, caller_of
from textllm_http.fields import StreamFormat
from textllm_http.openapi_examples import CONVERSATION_ID, REPLY
from textllm_http.openapi_shapes import JSON, LIMITED, Answer, Content, Operation, json_answer
from textllm_http.openapi_turns import (
    FAILURES,
    ON_TURNS,
    REPEATS,
    STREAM_CONTENT,
    STREAM_IDS,
    STREAM_SAYS,
    reply_or_stream,
)
from textllm_http.requests import QueryString
from textllm_http.responses import WholeResponse
from textllm_http.services import services_of
from textllm_http.tools import results_of
from textllm_http.turns import TURN, TurnRequest, begins, event_stream, whole


class Resumption(Struct, frozen=True):
    """How a stream is read on; only `events` has the numbers by which that can be done again."""

    stream_format: StreamFormat = "events"


_RESUMPTION: Final = QueryString(Resumption)
_WEATHER: Final = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city now.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
_CHAT_BODY: Final = {
    JSON: Content(
        TurnRequest,
        {
            "first turn": {"message": "Name three rivers.", "user_id": "ada"},
            "next turn": {"message": "Which is longest?", "conversation_id": CONVERSATION_ID, "temperature": 0.2},
            "with a function": {"message": "Is it raining in Oslo?", "tools": [_WEATHER]},
            "its result": {
                "conversation_id": CONVERSATION_ID,
                "tool_results": [{"tool_call_id": "call_1", "content": "rain, 4 degrees"}],
                "tools": [_WEATHER],
            },
        },
    )
}
_EVENT_NUMBER: Final = re.compile(r"[0-9]{1,10}")


@post(
    "/chat",
    status_code=200,
    guards=[any_caller],
    described=Operation(
        tag="Chat",
        says="Without `conversation_id` it begins a conversation. With `stream: true` it is `POST /chat/stream`.",
        headers=ON_TURNS,
        body=_CHAT_BODY,
        answers={200: reply_or_stream(Reply, {}, "The reply, settled in the books; or, where asked for, a stream.")},
        problems=FAILURES + REPEATS,
    ),
)
async def chat(request: Request[Any, Any, Any]) -> ASGIApp:
    """Answer a text turn.

    The whole reply, or a stream where the body asks for one.
    """
    asked = await TURN.read(request, max_bytes=services_of(request).max_body_bytes)
    return await _answer(request, asked, stream=asked.stream)


@post(
    "/chat/stream",
    status_code=200,
    guards=[any_caller],
    described=Operation(
        tag="Chat",
        headers=ON_TURNS,
        body=_CHAT_BODY,
        answers={
            200: Answer(
                says=STREAM_SAYS,
                content=STREAM_CONTENT,
                headers=(*LIMITED, "Idempotent-Replayed", *STREAM_IDS),
            )
        },
        problems=FAILURES + REPEATS,
    ),
)
async def chat_stream(request: Request[Any, Any, Any]) -> ASGIApp:
    """Answer a text turn while the reply is being written."""
    asked = await TURN.read(request, max_bytes=services_of(request).max_body_bytes)
    return await _answer(request, asked, stream=True)


@get(
    "/chat/stream/{response_id:str}",
    guards=[any_caller],
    before_request=_RESUMPTION.check,
    described=Operation(
        tag="Chat",
        says="While it runs, and for an hour after its end (the setting `journal_hours`): what was missed, then live, "
        "from any worker.",
        headers=("Last-Event-ID",),
        answers={
            200: Answer(says=STREAM_SAYS, content=STREAM_CONTENT, headers=(*LIMITED, *STREAM_IDS)),
            204: Answer(says="There is nothing after `Last-Event-ID`: the stream is over."),
        },
        problems=FAILURES,
    ),
)
async def resume(request: Request[Any, Any, Any], response_id: FromPath[str]) -> ASGIApp:
    """Read a stream on from where it was lost.

    In whatever worker it runs.
    """
    textllm = services_of(request).textllm
    asked = _RESUMPTION.read(request)
    resumed = await textllm.resume_reply(caller_of(request), response_id, after=last_event_id_of(request))
    if resumed.is_over:
        await resumed.events.aclose()
        return WholeResponse(status_code=HTTPStatus.NO_CONTENT)  # which tells an EventSource not to come again
    return event_stream(request, resumed.started, resumed.events, asked.stream_format)


@post(
    "/chat/stream/{response_id:str}/cancel",
    status_code=200,
    guards=[any_caller],
    described=Operation(
        tag="Chat",
        says="What is written by then stays in the conversation, and what it cost is charged.",
        answers={
            200: json_answer("What it came to.", Reply, REPLY | {"finish_reason": "cancelled"}),
        },
        problems=FAILURES,
    ),
)
async def cancel(request: Request[Any, Any, Any], response_id: FromPath[str]) -> ASGIApp:
    """End a stream before the model does.

    The answer is what it came to by then, settled.
    """
    textllm = services_of(request).textllm
    return whole(request, await textllm.cancel_reply(caller_of(request), response_id))


def last_event_id_of(request: Request[Any, Any, Any]) -> int:
    """The number of the last event that the client has; 0 where it has none.

    Raises:
        InvalidRequestError: `Last-Event-ID` is no number of ours.
    """
    values = request.headers.getall("last-event-id", ["0"])
    if len(values) > 1 or not _EVENT_NUMBER.fullmatch(values[0]):
        raise InvalidRequestError.of("Last-Event-ID", "must be the id of an event of this stream")
    return int(values[0])


async def _answer(request: Request[Any, Any, Any], asked: TurnRequest, *, stream: bool | None) -> ASGIApp:
    textllm = services_of(request).textllm
    idempotency = idempotency_of(request, to_json(asked))
    turn = TextTurn(
        asked.text,
        asked.conversation_id,
        asked.user_id,
        asked.options,
        idempotency,
        is_resumable=bool(stream),
        tool_results=results_of(asked.tool_results or ()),
    )
    if not stream:
        started, reply = await textllm.send_message.answer(caller_of(request), turn)
        return whole(request, reply, headers_of(started))
    batches = textllm.send_message.batches(caller_of(request), turn)
    first = await anext(batches)  # a refusal is raised here, and is a plain response
    return event_stream(request, begins(first), batches, asked.stream_format or "text", first=first)
