"""What is said of all operations that answer turns."""

from typing import Final

from msgspec import Struct

from textllm_http.openapi_examples import REPLY, STREAMED
from textllm_http.openapi_shapes import JSON, LIMITED, Answer, Content

_STREAM: Final = "text/event-stream"
STREAM_SAYS: Final = (
    "With `stream_format: text` one event is one piece of the text, a line break in it a further `data:` line, and "
    "`data: [DONE]` is the end; a failure is `event: error` with the problem document, and no `[DONE]`. "
    "With `stream_format: events` they are named, numbered and JSON: `reply.started` with the ids, `reply.delta` with "
    "`text`, and at the end `reply.completed` with the whole reply, or `reply.failed` with the problem document. "
    "A comment line comes every 15 seconds while nothing else does. What is refused before the first byte is a plain "
    "problem response. Where the model has not begun after 10 seconds, headers and a comment go out; a failure after "
    "that is an event. Who leaves in the middle is charged for the reply, which is read to its end and kept."
)
STREAM_IDS: Final = ("X-Conversation-ID", "X-Response-ID", "X-User-ID", "X-Accel-Buffering")
# No type: what reads documents takes the shape for that of the whole body, or for that of one event.
STREAM_CONTENT: Final = {_STREAM: Content({"description": "Server-sent events, in UTF-8."}, STREAMED)}
ON_TURNS: Final = ("Idempotency-Key",)
ON_DOOR_TURNS: Final = (*ON_TURNS, "X-User-ID")
FAILURES: Final = (
    *("budget_exceeded", "not_found", "conversation_not_found", "conversation_busy", "conversation_lost"),
    *("forbidden", "context_too_long", "content_refused", "rate_limited", "input_too_long"),
    *("provider_error", "provider_unavailable", "provider_timeout", "service_unavailable"),
)
REPEATS: Final = ("idempotency_in_progress", "idempotency_mismatch")


def reply_or_stream(shape: type[Struct], more: dict[str, object], says: str) -> Answer:
    """A whole reply of this shape, or its events."""
    return Answer(
        says=f"{says} {STREAM_SAYS}",
        content={JSON: Content(shape, {"reply": REPLY | more}), **STREAM_CONTENT},
        headers=(*LIMITED, "Idempotent-Replayed", *STREAM_IDS),
    )
