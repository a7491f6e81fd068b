"""`/v1/responses`: turns of the engine, in the shapes of OpenAI's API."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from time import time
from typing import Annotated, Any, Final

from litestar import Request
from litestar.params import FromPath
from litestar.types import ASGIApp
from msgspec import UNSET, Meta, Struct, UnsetType, field
from msgspec.structs import replace

from textllm_core.chat.respond import Begun
from textllm_core.errors import InvalidRequestError, NotFoundError
from textllm_core.records.messages import ReplyStarted
from textllm_core.records.response_turns import KeptResponse
from textllm_http.auth import caller_of
from textllm_http.openai_door.bodies import DoorBody, door_body
from textllm_http.openai_door.charging import NAMES_USER
from textllm_http.openai_door.conversations import ITEMS, PAGE, asked_of, with_links
from textllm_http.openai_door.declaring import MAX_TEXT_BYTES, door_delete, door_post, door_reading
from textllm_http.openai_door.errors import admitted_headers
from textllm_http.openai_door.given_items import GivenMessage
from textllm_http.openai_door.item_pages import part_of
from textllm_http.openai_door.items import items_of, listed
from textllm_http.openai_door.models import naming
from textllm_http.openai_door.queries import DoorQuery
from textllm_http.openai_door.reasoning import ENCRYPTED
from textllm_http.openai_door.response_events import ResponseFrames
from textllm_http.openai_door.response_input import given_of, stored_turn, unkept_turn
from textllm_http.openai_door.response_object import Shown, as_begun, kept_object
from textllm_http.openai_door.response_request import RESPONSE, ResponseRequest
from textllm_http.openapi_shapes import DOOR_LIMITED, JSON, LIMITED, Answer, Content, Operation, json_answer
from textllm_http.openapi_turns import FAILURES, ON_DOOR_TURNS, REPEATS
from textllm_http.responses import json_response
from textllm_http.services import services_of
from textllm_http.sse import EventStream
from textllm_http.turns import begins, stream_of

_OF_FILES: Final = ("file_too_large", "document_too_large", "unreadable_document", "unsupported_media_type")
_OBJECT: Final = {"type": "object", "description": "As OpenAI's API has it."}
_IDS: Final = ("X-Conversation-ID", "X-Response-ID", "X-User-ID")
_ASKED: Final = {"model": "gpt-4o", "input": "Name three rivers."}
_ANSWERED: Final = {
    "id": "resp_3c5d7e9f0a1b2c3d4e5f6071",
    "object": "response",
    "created_at": 1773480413,
    "status": "completed",
    "model": "gpt-4o-2024-11-20",
    "output": [
        {
            "id": "msg_3c5d7e9f0a1b2c3d4e5f6071",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [
                {
                    "type": "output_text",
                    "text": "The Nile, the Amazon and the Rhine.",
                    "annotations": [],
                    "logprobs": [],
                }
            ],
        }
    ],
}
_EVENTS: Final = (
    'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":4,'
    '"item_id":"msg_3c5d7e9f0a1b2c3d4e5f6071","output_index":0,"content_index":0,"delta":"The Nile","logprobs":[]}\n\n'
)
_ONE: Final = Answer(
    says="The response.",
    content={
        JSON: Content(_OBJECT, {"response": _ANSWERED}),
        "text/event-stream": Content({"description": "Server-sent events."}, {"events": _EVENTS}),
    },
    headers=("X-Accel-Buffering", *_IDS),
)
_NEW: Final = replace(_ONE, headers=(*LIMITED, *DOOR_LIMITED, "Idempotent-Replayed", *_ONE.headers))


class Retrieval(Struct, frozen=True, kw_only=True):
    """How a response is shown again."""

    stream: Annotated[bool, Meta(description="True: as its events.")] = False
    starting_after: Annotated[int, Meta(description="The number of the last event that you have.")] = -1
    include: (
        Annotated[
            list[str],
            Meta(description="`reasoning.encrypted_content`: what was thought, in the form in which it goes back."),
        ]
        | UnsetType
    ) = field(default=UNSET, name="include[]")


# What a turn has by other names than this API.
_FIELDS: Final = {
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "reasoning_summary": "reasoning.summary",
    "conversation_id": "conversation",
}
_RETRIEVAL: Final = DoorQuery(Retrieval)
_NO_HEADERS: Final[Mapping[str, str]] = {}


@door_post(
    "/v1/responses",
    described=Operation(
        tag="OpenAI",
        says="It is kept for `response_days` unless `store` is false, and can be gone on with: `previous_response_id`, "
        "`conversation`. With `stream: true` it comes as events, with `background: true` it is answered at "
        "once, and runs on.",
        headers=ON_DOOR_TURNS,
        body={JSON: Content(_OBJECT, {"a text": _ASKED})},
        answers={200: _NEW},
        problems=(*FAILURES, *REPEATS, *_OF_FILES, "storage_unavailable"),
    ),
)
async def create(request: Request[Any, Any, Any]) -> ASGIApp:
    """Answer a turn as OpenAI's Responses API does."""
    try:
        return await _answer(request)
    except InvalidRequestError as refusal:
        refusal.rename(_FIELDS)
        raise


async def _answer(request: Request[Any, Any, Any]) -> ASGIApp:
    with await door_body(request, max_text_bytes=MAX_TEXT_BYTES) as body:
        asked = RESPONSE.shaped(body.content)
        given = await given_of(request, asked, body)
        create = services_of(request).textllm.responses.create
        is_stored = asked.store is not False and create.keeps
        if asked.background and not is_stored:
            raise InvalidRequestError.of("background", "needs a response that is kept: leave store out")
        told = asked.told(created_at=int(time()), is_stored=is_stored)
        if not is_stored and asked.conversation_id is None:
            return await _answer_unkept(request, asked, body, given, told)
        turn = await stored_turn(request, asked, body, given, told, is_stored=is_stored)
        caller, named = caller_of(request), naming(asked.model, request=request)
        if asked.background:
            begun = await create.begin(caller, turn)
            returns = asked.returns_reasoning
            return await _in_background(request, begun, stream=bool(asked.stream), returns=returns)
        if not asked.stream:
            started, end, named_id = await create.answer(caller, turn)
            if started.is_replayed:
                told = await _told_first(request, started, told)
            named_id = named_id if started.conversation_id == named_id else None
            shown = Shown(started.response_id, told, named_id, named, asked.returns_reasoning)
            ended = shown.ended(end)
            return json_response(ended, headers=admitted_headers(started) | _ids(started))
        first, batches, named_id = await create.stream(caller, turn)  # a refusal is a plain response
    started = begins(first)
    if started.is_replayed:
        told = await _told_first(request, started, told)
    frames = ResponseFrames(told, named, conversation_id=named_id, returns=asked.returns_reasoning)
    return stream_of(request, started, batches, frames, admitted_headers(started) | _ids(started), first=first)


@door_reading(
    "/v1/responses/{response_id:str}",
    before_request=_RETRIEVAL.check,
    described=Operation(
        tag="OpenAI",
        headers=(NAMES_USER,),
        says="With `stream: true` the events of one that was streamed, or runs in the background, while it runs and "
        "for an hour after its end (the setting `journal_hours`).",
        answers={200: _ONE},
        problems=FAILURES,
    ),
)
async def one(request: Request[Any, Any, Any], response_id: FromPath[str]) -> ASGIApp:
    """Show a response again."""
    asked = _RETRIEVAL.read(request)
    returns = ENCRYPTED in (asked.include or ())
    if asked.stream:
        return await _resumed(request, response_id, after=asked.starting_after, returns=returns)
    kept = await services_of(request).textllm.responses.get(caller_of(request), response_id)
    return json_response(_shown(request, kept, returns=returns))


@door_delete(
    "/v1/responses/{response_id:str}",
    described=Operation(
        tag="OpenAI",
        headers=(NAMES_USER,),
        says="What was said goes with the last response of a conversation that was made for it.",
        answers={
            200: json_answer("It is gone.", _OBJECT, {"id": _ANSWERED["id"], "object": "response", "deleted": True})
        },
        problems=("not_found", "conversation_busy"),
    ),
)
async def remove(request: Request[Any, Any, Any], response_id: FromPath[str]) -> ASGIApp:
    """Forget a response."""
    await services_of(request).textllm.responses.delete(caller_of(request), response_id)
    return json_response({"id": response_id, "object": "response", "deleted": True})


@door_post(
    "/v1/responses/{response_id:str}/cancel",
    described=Operation(
        tag="OpenAI",
        headers=(NAMES_USER,),
        says="One that runs in the background. What it said by then stays, and is charged.",
        answers={200: json_answer("What it came to.", _OBJECT, _ANSWERED | {"status": "cancelled"})},
        problems=FAILURES,
    ),
)
async def cancel(request: Request[Any, Any, Any], response_id: FromPath[str]) -> ASGIApp:
    """Cut a response short."""
    kept = await services_of(request).textllm.responses.cancel(caller_of(request), response_id)
    return json_response(_shown(request, kept))


@door_reading(
    "/v1/responses/{response_id:str}/input_items",
    before_request=PAGE.check,
    described=Operation(
        tag="OpenAI",
        headers=(NAMES_USER,),
        says="Once it has ended: until then nothing of it is kept as items.",
        answers={200: ITEMS},
        problems=("not_found",),
    ),
)
async def input_items(request: Request[Any, Any, Any], response_id: FromPath[str]) -> ASGIApp:
    """List the items that a response answers."""
    page = PAGE.read(request)
    asked = asked_of(page)
    messages = await services_of(request).textllm.responses.get.inputs(caller_of(request), response_id)
    items, has_more = part_of([item for message in messages for item in items_of(message)], asked)
    return json_response(listed(await with_links(request, items, page.include), has_more=has_more))


async def _in_background(request: Request[Any, Any, Any], begun: Begun, *, stream: bool, returns: bool) -> ASGIApp:
    response_id = begun.response_id
    headers = {"Idempotent-Replayed": "true"} if begun.is_replayed else {}
    if stream:
        return await _resumed(request, response_id, after=-1, returns=returns, headers=headers)
    kept = await services_of(request).textllm.responses.get(caller_of(request), response_id)
    shown = _shown(request, kept)
    if not begun.is_replayed:  # however quick it was meanwhile: clients expect one that has begun
        shown = as_begun(shown)
    return json_response(shown, headers=headers | {"X-Response-ID": response_id})


async def _resumed(
    request: Request[Any, Any, Any],
    response_id: str,
    *,
    after: int,
    returns: bool,
    headers: Mapping[str, str] = _NO_HEADERS,
) -> EventStream:
    """The events of a response behind the one numbered `after`; `returns` as `reply_items` has it."""
    textllm, caller = services_of(request).textllm, caller_of(request)
    kept = await textllm.responses.get(caller, response_id)
    try:
        resumed = await textllm.resume_reply(caller, response_id)  # from its beginning: ours are numbered otherwise
    except NotFoundError:
        raise await textllm.responses.get.why_not_told(caller, response_id) from None
    shown = _shown(request, kept)
    conversation = shown.pop("conversation")
    told = {name: value for name, value in shown.items() if name in _TOLD}
    is_background = kept.stored.is_background
    frames = ResponseFrames(
        told,
        naming(shown["model"], request=request),
        conversation_id=None if conversation is None else conversation["id"],
        is_background=is_background,
        returns=returns,
        after=after,
    )
    return stream_of(request, resumed.started, resumed.events, frames, {**_ids(resumed.started), **headers})


_TOLD: Final = frozenset(ResponseRequest(user="").told(created_at=0, is_stored=True))


async def _told_first(request: Request[Any, Any, Any], started: ReplyStarted, told: dict[str, Any]) -> dict[str, Any]:
    """What was told of a request the first time, where that is kept; else what its repeat tells."""
    with suppress(NotFoundError):
        kept = await services_of(request).textllm.responses.get(caller_of(request), started.response_id)
        return {name: value for name, value in _shown(request, kept).items() if name in _TOLD}
    return told


async def _answer_unkept(
    request: Request[Any, Any, Any],
    asked: ResponseRequest,
    body: DoorBody,
    given: Sequence[GivenMessage],
    told: dict[str, Any],
) -> ASGIApp:
    """The response to a request of which nothing is kept."""
    textllm, caller = services_of(request).textllm, caller_of(request)
    turn, named = await unkept_turn(request, asked, body, given), naming(asked.model, request=request)
    if not asked.stream:
        started, end = await textllm.answer_messages.answer(caller, turn)
        shown = Shown(started.response_id, told, None, named, asked.returns_reasoning)
        ended = shown.ended(end)
        return json_response(ended, headers=admitted_headers(started))
    batches = textllm.answer_messages.batches(caller, turn)
    first = await anext(batches)  # a refusal is raised here, and is a plain response
    started = begins(first)
    frames = ResponseFrames(told, named, conversation_id=None, returns=asked.returns_reasoning)
    return stream_of(request, started, batches, frames, admitted_headers(started), first=first)


def _shown(request: Request[Any, Any, Any], kept: KeptResponse, *, returns: bool = False) -> dict[str, Any]:
    return kept_object(kept, partial(naming, request=request), returns=returns)


def _ids(started: ReplyStarted) -> dict[str, str]:
    return {
        "X-Conversation-ID": started.conversation_id,
        "X-Response-ID": started.response_id,
        "X-User-ID": started.user_id,
    }
