"""Every operation of the service in words, by its route. What can be derived from the route is not repeated here."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from textllm_core.file_links import FileView
from textllm_core.list_messages import MessagePage
from textllm_core.records.api_keys import ApiKeyPage, IssuedApiKey
from textllm_core.records.conversations import Conversation, ConversationPage, Deletion
from textllm_core.records.messages import DocumentReply, ImageReply, Reply
from textllm_core.records.sessions import Session
from textllm_core.records.usage_reports import UsageReport
from textllm_http.openapi_examples import (
    API_KEY,
    CONVERSATION,
    CONVERSATION_ID,
    FILE_KEY,
    FILE_VIEW,
    MESSAGE,
    NOT_READY,
    READY,
    REPLY,
    SESSION,
    STATS,
    STREAMED,
)
from textllm_http.openapi_shapes import (
    Answer,
    ConfigInForce,
    Content,
    FileDeletion,
    FileList,
    Health,
    KeyRevocation,
    Operation,
    SessionList,
)
from textllm_http.openapi_words import Schema
from textllm_http.routes.chat import Resumption
from textllm_http.routes.conversations import (
    ChangeRequest,
    ConversationRequest,
    DeleteQuery,
    ListQuery,
    MessagesQuery,
)
from textllm_http.routes.files import FilesQuery, LinkQuery
from textllm_http.routes.keys import KeyRequest, KeysQuery
from textllm_http.routes.sessions import SessionsQuery
from textllm_http.routes.usage import StatsQuery
from textllm_http.turns import TurnRequest

JSON: Final = "application/json"
STREAM: Final = "text/event-stream"


_STREAM_SAYS: Final = (
    "With `stream_format: text` one event is one piece of the text, a line break in it a further `data:` line, and "
    "`data: [DONE]` is the end; a failure is `event: error` with the problem document, and no `[DONE]`. "
    "With `stream_format: events` they are named, numbered and JSON: `reply.started` with the ids, `reply.delta` with "
    "`text`, and at the end `reply.completed` with the whole reply, or `reply.failed` with the problem document. "
    "A comment line comes every 15 seconds while nothing else does. What is refused before the first byte is a plain "
    "problem response. Where the model has not begun after 10 seconds, headers and a comment go out; a failure after "
    "that is an event. Who leaves in the middle is charged for the reply, which is read to its end and kept."
)
_LIMITED: Final = ("RateLimit", "RateLimit-Policy")
_STREAM_IDS: Final = ("X-Conversation-ID", "X-Response-ID", "X-User-ID", "X-Accel-Buffering")
# No type: what reads documents takes the shape for that of the whole body, or for that of one event.
_STREAM_CONTENT: Final = {STREAM: Content({"description": "Server-sent events, in UTF-8."}, STREAMED)}
_ON_TURNS: Final = ("Idempotency-Key",)
_FAILURES: Final = (
    *("budget_exceeded", "not_found", "conversation_not_found", "conversation_busy", "conversation_lost"),
    *("forbidden", "context_too_long", "content_refused", "rate_limited", "input_too_long"),
    *("provider_error", "provider_unavailable", "provider_timeout", "service_unavailable"),
)
_REPEATS: Final = ("idempotency_in_progress", "idempotency_mismatch")
_CHAT: Final = {
    JSON: Content(
        TurnRequest,
        {
            "first turn": {"message": "Name three rivers.", "user_id": "ada"},
            "next turn": {"message": "Which is longest?", "conversation_id": CONVERSATION_ID, "temperature": 0.2},
        },
    )
}


def _reply_or_stream(shape: type[Struct], more: dict[str, object], says: str) -> Answer:
    return Answer(
        says=f"{says} {_STREAM_SAYS}",
        content={JSON: Content(shape, {"reply": REPLY | more}), **_STREAM_CONTENT},
        headers=(*_LIMITED, "Idempotent-Replayed", *_STREAM_IDS),
    )


def _json(says: str, shape: type[Struct] | Schema, example: Any, *headers: str) -> Answer:
    return Answer(says=says, content={JSON: Content(shape, {"answer": example})}, headers=headers)


def _form(*fields: str, required: Sequence[str], **files: Schema) -> Mapping[str, Content]:
    """A form with files; its other fields are strings."""
    properties: Schema = {name: {"type": "string"} for name in fields} | files
    return {
        "multipart/form-data": Content(
            {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}
        )
    }


_TURN_FIELDS: Final = tuple(TurnRequest.__struct_fields__)
_FILE: Final[Schema] = {"type": "string", "format": "binary"}

_ONE_CONVERSATION: Final = _json("The conversation.", Conversation, CONVERSATION)
_BYTES: Final[Mapping[str, Content]] = {"*/*": Content({"type": "string", "format": "binary"})}
_FILE_HEADERS: Final = ("ETag", "Content-Disposition", "Accept-Ranges", "Cache-Control")
_PAGE: Final = {"text/html": Content({"type": "string"})}
_ON_HEALTH: Final[Mapping[int, Answer]] = {
    200: _json("All that the service stands on answers.", Health, READY),
    503: _json("Something does not answer, or the service is stopping.", Health, NOT_READY, "Retry-After"),
}

OPERATIONS: Final[Mapping[str, Operation]] = {
    "POST /chat": Operation(
        tag="Chat",
        summary="Answer a text turn",
        says="Without `conversation_id` it begins a conversation. With `stream: true` it is `POST /chat/stream`.",
        headers=_ON_TURNS,
        body=_CHAT,
        answers={200: _reply_or_stream(Reply, {}, "The reply, settled in the books; or, where asked for, a stream.")},
        problems=_FAILURES + _REPEATS,
    ),
    "POST /chat/stream": Operation(
        tag="Chat",
        summary="Answer a text turn while the reply is being written",
        headers=_ON_TURNS,
        body=_CHAT,
        answers={
            200: Answer(
                says=_STREAM_SAYS,
                content=_STREAM_CONTENT,
                headers=(*_LIMITED, "Idempotent-Replayed", *_STREAM_IDS),
            )
        },
        problems=_FAILURES + _REPEATS,
    ),
    "GET /chat/stream/{response_id}": Operation(
        tag="Chat",
        summary="Read a stream on from where it was lost",
        says="While it runs, and for ten minutes after its end: what was missed, then live, from any worker.",
        query=Resumption,
        headers=("Last-Event-ID",),
        answers={
            200: Answer(says=_STREAM_SAYS, content=_STREAM_CONTENT, headers=(*_LIMITED, *_STREAM_IDS)),
            204: Answer(says="There is nothing after `Last-Event-ID`: the stream is over."),
        },
        problems=_FAILURES,
    ),
    "POST /chat/stream/{response_id}/cancel": Operation(
        tag="Chat",
        summary="End a stream before the model does",
        says="What is written by then stays in the conversation, and what it cost is charged.",
        answers={
            200: _json("What it came to.", Reply, REPLY | {"finish_reason": "cancelled"}),
        },
        problems=_FAILURES,
    ),
    "POST /chat/image": Operation(
        tag="Chat",
        summary="Answer a turn with images",
        says="As `POST /chat`, from a form.",
        headers=_ON_TURNS,
        body=_form(
            *_TURN_FIELDS,
            required=("message", "images"),
            images={"type": "array", "items": _FILE, "minItems": 1, "maxItems": 10},
        ),
        answers={
            200: _reply_or_stream(
                ImageReply,
                {"image_urls": [FILE_VIEW["url"]], "image_count": 1},
                "The reply; or, where asked for, a stream.",
            )
        },
        problems=(*_FAILURES, *_REPEATS, "file_too_large"),
    ),
    "POST /chat/file": Operation(
        tag="Chat",
        summary="Answer a turn with a document",
        says="As `POST /chat`, from a form: PDF, DOCX, TXT, MD, CSV, JSON or HTML.",
        headers=_ON_TURNS,
        body=_form(*_TURN_FIELDS, required=("message", "file"), file=_FILE),
        answers={
            200: _reply_or_stream(
                DocumentReply,
                {"file_url": FILE_VIEW["url"], "file_type": ".pdf", "pages": 3},
                "The reply; or, where asked for, a stream.",
            )
        },
        problems=(*_FAILURES, *_REPEATS, "file_too_large", "document_too_large", "unreadable_document"),
    ),
    "POST /conversations": Operation(
        tag="Conversations",
        summary="Open a conversation before anything is said in it",
        body={JSON: Content(ConversationRequest, {"new": {"user_id": "ada", "title": "Rivers", "tags": ["geo"]}})},
        says="It counts as a turn does in the rate limit.",
        needs_body=False,
        answers={201: _json("The conversation.", Conversation, CONVERSATION, *_LIMITED, "Location")},
        problems=("not_found", "forbidden"),
    ),
    "GET /conversations": Operation(
        tag="Conversations",
        summary="List conversations",
        says="A user's, or all that the caller acts for; those with the newest turn first.",
        query=ListQuery,
        answers={
            200: _json(
                "A page of them.",
                ConversationPage,
                {"data": [CONVERSATION], "total": 1, "limit": 50, "offset": 0},
            )
        },
        problems=("not_found",),
    ),
    "GET /conversations/{conversation_id}": Operation(
        tag="Conversations",
        summary="Show a conversation",
        answers={200: _ONE_CONVERSATION},
        problems=("conversation_not_found",),
    ),
    "PATCH /conversations/{conversation_id}": Operation(
        tag="Conversations",
        summary="Name a conversation, tag it, or hang metadata on it",
        says="What is left out stays as it is; null empties it.",
        body={JSON: Content(ChangeRequest, {"new title, no tags": {"title": "Lakes", "tags": None}})},
        answers={200: _ONE_CONVERSATION},
        problems=("conversation_not_found",),
    ),
    "DELETE /conversations/{conversation_id}": Operation(
        tag="Conversations",
        summary="Hide a conversation, or erase it",
        says="With `soft=false` all that was said is erased, here at once and at the provider item by item; what it "
        "cost stays in the ledger.",
        query=DeleteQuery,
        answers={200: _json("It is deleted.", Deletion, {"id": CONVERSATION_ID, "soft": True, "deleted": True})},
        problems=("conversation_not_found", "conversation_busy"),
    ),
    "POST /conversations/{conversation_id}/restore": Operation(
        tag="Conversations",
        summary="Show a hidden conversation again",
        answers={200: _ONE_CONVERSATION},
        problems=("conversation_not_found",),
    ),
    "POST /conversations/{conversation_id}/summary": Operation(
        tag="Conversations",
        summary="Let the model sum a conversation up",
        says="It is charged like a turn, and kept in `summary`.",
        headers=_ON_TURNS,
        answers={
            200: _json("The conversation.", Conversation, CONVERSATION, *_LIMITED, "Idempotent-Replayed"),
        },
        problems=_FAILURES + _REPEATS,
    ),
    "GET /conversations/{conversation_id}/messages": Operation(
        tag="Conversations",
        summary="List what was said in a conversation",
        query=MessagesQuery,
        answers={200: _json("A page of messages.", MessagePage, {"data": [MESSAGE], "has_more": False})},
        problems=(
            *("conversation_not_found", "conversation_lost"),
            *("provider_error", "provider_unavailable", "provider_timeout"),
        ),
    ),
    "GET /sessions/{session_id}": Operation(
        tag="Usage",
        summary="Show a session: what a user used in one UTC day",
        answers={200: _json("The session.", Session, SESSION)},
        problems=("session_not_found",),
    ),
    "POST /sessions/{session_id}/end": Operation(
        tag="Usage",
        summary="Mark a session as ended",
        says="Until the user's next turn of that day. It refills no budget.",
        answers={200: _json("The session.", Session, SESSION | {"is_active": False})},
        problems=("session_not_found",),
    ),
    "GET /users/{user_id}/sessions": Operation(
        tag="Usage",
        summary="Show a user's session of today, or list those of the last days",
        query=SessionsQuery,
        answers={
            200: Answer(
                says="Without `days` the session of today, with it a list, newest first.",
                content={
                    JSON: Content(
                        {"anyOf": [Session, SessionList]}, {"today": SESSION, "with days": {"data": [SESSION]}}
                    )
                },
            )
        },
        problems=("session_not_found", "not_found"),
    ),
    "GET /users/{user_id}/stats": Operation(
        tag="Usage",
        summary="Report what a user used in the last days",
        query=StatsQuery,
        answers={200: _json("Totals, by day and by model.", UsageReport, STATS)},
        problems=("not_found",),
    ),
    "POST /files/upload": Operation(
        tag="Files",
        summary="Store a file",
        body=_form("user_id", required=("file",), file=_FILE, folder={"const": "uploads"}),
        answers={201: _json("The file is stored.", FileView, FILE_VIEW, *_LIMITED, "Location", "X-User-ID")},
        problems=("file_too_large", "not_found", "rate_limited"),
    ),
    "GET /files": Operation(
        tag="Files",
        summary="List files",
        says="A user's, or all that the caller acts for; newest first.",
        query=FilesQuery,
        answers={200: _json("A page of files.", FileList, {"data": [FILE_VIEW], "has_more": False})},
        problems=("not_found",),
    ),
    "GET /files/{key}": Operation(
        tag="Files",
        summary="Show a file's record, as the list has it",
        route="/files/{_}",
        answers={200: _json("The file.", FileView, FILE_VIEW)},
        problems=("file_not_found",),
    ),
    "DELETE /files/{key}": Operation(
        tag="Files",
        summary="Delete a file",
        route="/files/{_}",
        answers={200: _json("The file is gone.", FileDeletion, {"success": True, "key": FILE_KEY})},
        problems=("file_not_found",),
    ),
    "GET /files/{key}/content": Operation(
        tag="Files",
        summary="Download a file",
        says="Its owner asks with a key; a signed link, with `tenant`, `expires` and `signature`, needs none. "
        "It is always a download, of the type that its content has.",
        route="/files/{_}",
        query=LinkQuery,
        headers=("Range", "If-Match", "If-None-Match", "If-Range"),
        answers={
            200: Answer(says="The bytes of the file.", content=_BYTES, headers=_FILE_HEADERS),
            206: Answer(says="The bytes of `Range`.", content=_BYTES, headers=(*_FILE_HEADERS, "Content-Range")),
            304: Answer(says="You have it already.", headers=_FILE_HEADERS),
        },
        problems=("file_not_found", "precondition_failed", "range_not_satisfiable"),
    ),
    "POST /keys": Operation(
        tag="Keys",
        summary="Make an API key",
        body={JSON: Content(KeyRequest, {"for one user": {"role": "user", "user_id": "ada", "name": "Ada's phone"}})},
        answers={
            201: _json(
                "The key; its secret is in this answer and nowhere else.",
                IssuedApiKey,
                API_KEY | {"secret": "tllm_4fG7…"},
                "Location",
            )
        },
    ),
    "GET /keys": Operation(
        tag="Keys",
        summary="List the API keys of the tenant",
        says="Newest first, revoked ones too; never a secret.",
        query=KeysQuery,
        answers={200: _json("A page of keys.", ApiKeyPage, {"data": [API_KEY], "has_more": False})},
    ),
    "DELETE /keys/{key_id}": Operation(
        tag="Keys",
        summary="Revoke an API key",
        says="Every worker refuses it within a second.",
        answers={200: _json("It is revoked.", KeyRevocation, {"id": API_KEY["id"], "deleted": True})},
        problems=("not_found",),
    ),
    "GET /health": Operation(tag="Operations", summary="Tell how the service and its parts do", answers=_ON_HEALTH),
    "GET /health/live": Operation(
        tag="Operations",
        summary="Tell that the process answers",
        answers={200: _json("It does.", Health, {"status": "alive"})},
    ),
    "GET /health/ready": Operation(
        tag="Operations",
        summary="Tell whether the service can do its work",
        says="What is wrong is told only where no keys are required.",
        answers=_ON_HEALTH,
    ),
    "GET /config": Operation(
        tag="Operations",
        summary="Show the operator's settings in force, without secrets",
        answers={200: _json("The settings.", ConfigInForce, {"config": {"model": "gpt-4o", "auth": "required"}})},
    ),
    "GET /metrics": Operation(
        tag="Operations",
        summary="Count for Prometheus",
        answers={200: Answer(says="Counters and histograms.", content={"text/plain": Content({"type": "string"})})},
    ),
    "GET /openapi.json": Operation(
        tag="Documentation",
        summary="Get this document",
        answers={200: Answer(says="OpenAPI 3.1.", content={JSON: Content({"type": "object"})})},
    ),
    "GET /docs": Operation(
        tag="Documentation",
        summary="Read and try the service with Swagger UI",
        answers={200: Answer(says="A page.", content=_PAGE)},
    ),
    "GET /redoc": Operation(
        tag="Documentation",
        summary="Read about the service with Redoc",
        answers={200: Answer(says="A page.", content=_PAGE)},
    ),
    "GET /": Operation(
        tag="Documentation",
        summary="Find the documentation",
        answers={307: Answer(says="To `/docs`.", headers=("Location",))},
    ),
    "GET /problems/{code}": Operation(
        tag="Documentation",
        summary="Read what a problem means, and what to do about it",
        says="It is where the `type` of a problem document leads.",
        answers={200: Answer(says="A page.", content=_PAGE)},
        problems=("not_found",),
    ),
    "GET /docs/assets/{name}": Operation(
        tag="Documentation",
        summary="Get a script or a style of these pages",
        answers={
            200: Answer(
                says="The file.",
                content={"text/javascript": Content({"type": "string"}), "text/css": Content({"type": "string"})},
            )
        },
        problems=("not_found",),
    ),
}
