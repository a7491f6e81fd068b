"""`/v1/chat/completions`: the API that nearly every client speaks."""

from typing import Any, Final, cast

from litestar import Request
from litestar.types import ASGIApp
from msgspec.structs import replace

from textllm_core.chat.given_parts import has_files
from textllm_core.records.messages_turn import MessagesTurn
from textllm_core.records.parts import ContentPart
from textllm_http.auth import caller_of
from textllm_http.openai_door.bodies import DoorBody, door_body
from textllm_http.openai_door.charging import charged_user, idempotency_at_door, user_in_header
from textllm_http.openai_door.completions_reply import ChunkFrames, completion
from textllm_http.openai_door.completions_request import (
    COMPLETION,
    CompletionRequest,
    Role,
    kept_by_caller,
    messages_of,
)
from textllm_http.openai_door.declaring import MAX_TEXT_BYTES, door_post
from textllm_http.openai_door.errors import admitted_headers
from textllm_http.openai_door.models import naming
from textllm_http.openapi_shapes import DOOR_LIMITED, JSON, LIMITED, Answer, Content, Operation
from textllm_http.openapi_turns import FAILURES, ON_DOOR_TURNS, REPEATS
from textllm_http.responses import WholeResponse
from textllm_http.services import services_of
from textllm_http.turns import begins, stream_of

_OF_FILES: Final = ("file_too_large", "document_too_large", "unreadable_document", "unsupported_media_type")
_OBJECT: Final = {"type": "object", "description": "As OpenAI's API has it."}
_ASKED: Final = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Name three rivers."}]}
_ANSWERED: Final = {
    "id": "chatcmpl-3c5d7e9f0a1b2c3d4e5f6071",
    "object": "chat.completion",
    "created": 1773480413,
    "model": "gpt-4o-2024-11-20",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "The Nile, the Amazon and the Rhine.",
                "refusal": None,
                "annotations": [],
            },
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 12,
        "completion_tokens": 10,
        "total_tokens": 22,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
        "cost": 0.00013,
    },
}
_CHUNKS: Final = (
    'data: {"id":"chatcmpl-3c5d7e9f0a1b2c3d4e5f6071","object":"chat.completion.chunk","created":1773480413,'
    '"model":"gpt-4o","choices":[{"index":0,"delta":{"content":"The Nile"},"logprobs":null,"finish_reason":null}]}\n\n'
    "data: [DONE]\n\n"
)


@door_post(
    "/v1/chat/completions",
    described=Operation(
        tag="OpenAI",
        says="All that was said comes with the request, and nothing of it is kept. With `stream: true` the reply comes "
        "in chunks, and a failure in their midst as an `error`.",
        headers=ON_DOOR_TURNS,
        body={JSON: Content(_OBJECT, {"one message": _ASKED})},
        answers={
            200: Answer(
                says="The reply, settled in the books.",
                content={
                    JSON: Content(_OBJECT, {"reply": _ANSWERED}),
                    "text/event-stream": Content({"description": "Server-sent events."}, {"chunks": _CHUNKS}),
                },
                headers=(*LIMITED, *DOOR_LIMITED, "Idempotent-Replayed", "X-Accel-Buffering"),
            )
        },
        problems=(*FAILURES, *REPEATS, *_OF_FILES, "storage_unavailable"),
    ),
)
async def create(request: Request[Any, Any, Any]) -> ASGIApp:
    """Answer a conversation that its client keeps."""
    textllm, caller = services_of(request).textllm, caller_of(request)
    with await door_body(request, max_text_bytes=MAX_TEXT_BYTES) as body:
        asked = COMPLETION.shaped(body.content)
        turn = await _turn_of(request, asked, body)
        named = naming(asked.model, request=request)
        if not asked.stream:
            started, end = await textllm.answer_messages.answer(caller, turn)
            return WholeResponse(completion(end, model=named(end.reply.model)), headers=admitted_headers(started))
        batches = textllm.answer_messages.batches(caller, turn)
        first = await anext(batches)  # a refusal is raised here, and is a plain response
    frames = ChunkFrames(named, wants_usage=asked.wants_usage)
    started = begins(first)
    return stream_of(request, started, batches, frames, admitted_headers(started), first=first)


async def _turn_of(request: Request[Any, Any, Any], asked: CompletionRequest, body: DoorBody) -> MessagesTurn:
    """The turn that a request stands for; its files are looked at, and stored nowhere.

    Raises:
        TextLLMError: it cannot be answered.
    """
    textllm, caller = services_of(request).textllm, caller_of(request)
    said = messages_of(asked, body)
    turn = MessagesTurn(
        messages=(),
        user_id=charged_user(
            caller,
            safety_identifier=asked.safety_identifier,
            user=asked.user,
            in_header=user_in_header(request),
        ),
        options=asked.options,
        idempotency=idempotency_at_door(request, body),
        is_streamed=bool(asked.stream),
    )
    if not any(has_files(parts) for _, parts in said):
        return replace(turn, messages=kept_by_caller(cast("list[tuple[Role, tuple[ContentPart, ...]]]", said)))
    assert turn.user_id is not None
    allowance = await textllm.files.admit(caller, turn.user_id)
    taken = await textllm.take_parts(
        caller,
        [parts for _, parts in said],
        user_id=turn.user_id,
        model=turn.options.model,
        held=body.held_in(services_of(request).spool),
    )
    return replace(
        turn,
        messages=kept_by_caller([(role, content) for (role, _), content in zip(said, taken.contents, strict=True)]),
        kind=taken.kind,
        files=taken.tokens,
        attached=taken.attached,
        allowance=allowance,
    )
