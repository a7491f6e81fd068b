"""`/conversations` and what was said in them."""

from typing import Annotated, Any, Final, Literal

from litestar import Request, delete, patch, post
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from litestar.params import FromPath
from litestar.types import ASGIApp
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from textllm_core.application import Conversations
from textllm_core.chat.reply_log import last_reply
from textllm_core.conversations import MAX_LISTED, MAX_OFFSET
from textllm_core.errors import FileTooLargeError
from textllm_core.import_conversation import ExportedConversation, ImportedConversation, read_exported
from textllm_core.list_messages import MAX_MESSAGES, MessagePage
from textllm_core.records.conversations import (
    Conversation,
    ConversationChanges,
    ConversationFilter,
    ConversationPage,
    Deletion,
)
from textllm_core.records.messages import ReplyStarted
from textllm_http.admission import headers_of, idempotency_of, rate_limit_headers
from textllm_http.auth import any_caller, caller_of
from textllm_http.fields import After, ForUser, Labels, Limit, OfUser, TagList, Title
from textllm_http.links import with_absolute_links
from textllm_http.openapi_examples import CONVERSATION, CONVERSATION_ID, MESSAGE, REPLY_MESSAGE
from textllm_http.openapi_shapes import JSON, LIMITED, Content, Operation, json_answer
from textllm_http.openapi_turns import FAILURES, ON_TURNS, REPEATS
from textllm_http.reading import reading
from textllm_http.requests import JsonBody, QueryString, content_length_of, given, json_of
from textllm_http.responses import json_response
from textllm_http.services import IMPORTS_OF_TENANT, services_of


class ConversationRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new conversation; null is the same as left out."""

    user_id: ForUser | None = None
    title: Title | None = None
    tags: TagList | None = None
    metadata: Labels | None = None


class ChangeRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be different; what is left out stays, null empties it."""

    title: Title | UnsetType | None = UNSET
    tags: TagList | UnsetType | None = UNSET
    metadata: Labels | UnsetType | None = UNSET


class ListQuery(Struct, frozen=True):
    """Which conversations, as `ConversationFilter` has it."""

    user_id: OfUser | UnsetType = UNSET
    tag: Annotated[str | UnsetType, Meta(description="One of its tags.")] = UNSET
    q: Annotated[str | UnsetType, Meta(description="A part of the title; capital letters are as small ones.")] = UNSET
    search: Annotated[
        str | UnsetType,
        Meta(description="Words that one of its messages has, in any case; those in quotes follow each other."),
    ] = UNSET
    include_deleted: Annotated[bool, Meta(description="Also those that are deleted and could be restored.")] = False
    limit: Annotated[Limit, Meta(ge=1, le=MAX_LISTED)] = 50
    offset: Annotated[int, Meta(description="How many are left out at the beginning.", ge=0, le=MAX_OFFSET)] = 0


class DeleteQuery(Struct, frozen=True):
    """Whether it can be restored."""

    soft: Annotated[
        bool, Meta(description="True: it can be restored. False: it is erased for good, here and at the provider.")
    ] = True


class MessagesQuery(Struct, frozen=True):
    """Which messages, from the one behind `after` on."""

    limit: Annotated[Limit, Meta(ge=1, le=MAX_MESSAGES)] = 100
    order: Annotated[Literal["asc", "desc"], Meta(description="`asc`: the oldest first; `desc`: the newest first.")] = (
        "asc"
    )
    after: After | UnsetType = UNSET


class ImportQuery(Struct, frozen=True):
    """Whose it is to be."""

    user_id: Annotated[
        ForUser | UnsetType, Meta(description="Whose it is to be; left out, whose it was when it was exported.")
    ] = UNSET


_SLOW_BYTES_PER_S: Final = 128 * 1024  # of a line to the internet by which somebody sends what was said in years
_TAKEN_IN: Final = {
    "id": CONVERSATION_ID,
    "user_id": "ada",
    "imported_from": CONVERSATION_ID,
    "is_new": True,
    "is_deleted": False,
}
_ONE_CONVERSATION: Final = json_answer("The conversation.", Conversation, CONVERSATION)
_CREATE: Final = JsonBody(ConversationRequest)
_CHANGE: Final = JsonBody(ChangeRequest)
_IMPORT: Final = QueryString(ImportQuery)
_LIST: Final = QueryString(ListQuery)
_DELETE: Final = QueryString(DeleteQuery)
_MESSAGES: Final = QueryString(MessagesQuery)


@post(
    "/conversations",
    guards=[any_caller],
    status_code=201,
    described=Operation(
        tag="Conversations",
        body={JSON: Content(ConversationRequest, {"new": {"user_id": "ada", "title": "Rivers", "tags": ["geo"]}})},
        says="It counts as a turn does in the rate limit.",
        needs_body=False,
        answers={201: json_answer("The conversation.", Conversation, CONVERSATION, *LIMITED, "Location")},
        problems=("not_found", "forbidden"),
    ),
)
async def create(request: Request[Any, Any, Any]) -> ASGIApp:
    """Open a conversation before anything is said in it."""
    asked = await _CREATE.read_if_any(request, max_bytes=services_of(request).max_body_bytes)
    changes = ConversationChanges(title=asked.title, tags=asked.tags, metadata=asked.metadata).checked()
    conversations, caller = _conversations(request), caller_of(request)
    user_id = caller.acts_for(asked.user_id)
    allowance = await conversations.create.admit(caller, user_id)
    made = await conversations.create(caller, user_id, changes, allowance=allowance)
    headers = rate_limit_headers(allowance) | {"Location": f"/conversations/{made.id}"}
    return json_response(made, status_code=201, headers=headers)


@post(
    "/conversations/import",
    guards=[any_caller],
    status_code=201,
    before_request=_IMPORT.check,
    described=Operation(
        tag="Conversations",
        says="A line of an export: `textllm conversations export` writes them, and `GET /conversations/{id}` with its "
        "messages has the same. Nothing is charged; it counts as a turn does in the rate limit, unless it is there "
        "already. At most as large as a file may be (the setting max_file_size_mb).",
        body={JSON: Content(ExportedConversation, {"one line": CONVERSATION | {"messages": [MESSAGE, REPLY_MESSAGE]}})},
        answers={
            200: json_answer("It is there already, and stays as it is.", ImportedConversation, _TAKEN_IN, "Location"),
            201: json_answer("Where it is now.", ImportedConversation, _TAKEN_IN, "Location"),
        },
        problems=("not_found", "forbidden", "file_too_large", "rate_limited", "storage_unavailable"),
    ),
)
async def import_one(request: Request[Any, Any, Any]) -> ASGIApp:
    """Take in a conversation that was exported."""
    services, caller = services_of(request), caller_of(request)
    user_id = given(_IMPORT.read(request).user_id)
    with services.imports.taken({caller.tenant_id: IMPORTS_OF_TENANT}):
        try:
            line = await json_of(
                request,
                max_bytes=services.max_file_bytes,
                more_time_s=min(content_length_of(request), services.max_file_bytes) / _SLOW_BYTES_PER_S,
            )
        except RequestEntityTooLarge:
            raise FileTooLargeError.of_export(limit=services.max_file_bytes) from None
        exported = read_exported(line, max_bytes=services.max_file_bytes)
        taken_in = await services.textllm.conversations.import_one(caller, exported, user_id=user_id)
    headers = {"Location": f"/conversations/{taken_in.id}"}
    return json_response(taken_in, status_code=201 if taken_in.is_new else 200, headers=headers)


@reading(
    "/conversations",
    guards=[any_caller],
    before_request=_LIST.check,
    described=Operation(
        tag="Conversations",
        says="A user's, or all that the caller acts for; those with the newest turn first.",
        answers={
            200: json_answer(
                "A page of them.",
                ConversationPage,
                {"data": [CONVERSATION], "total": 1, "limit": 50, "offset": 0},
            )
        },
        problems=("not_found",),
    ),
)
async def listed(request: Request[Any, Any, Any]) -> ASGIApp:
    """List conversations."""
    asked = _LIST.read(request)
    wanted = ConversationFilter(
        user_id=given(asked.user_id),
        tag=given(asked.tag),
        q=given(asked.q),
        search=given(asked.search),
        include_deleted=asked.include_deleted,
    )
    page = await _conversations(request).list(caller_of(request), wanted, limit=asked.limit, offset=asked.offset)
    shown = replace(page, data=[with_absolute_links(request, each) for each in page.data])
    return json_response(shown)


@reading(
    "/conversations/{conversation_id:str}",
    guards=[any_caller],
    described=Operation(
        tag="Conversations",
        answers={200: _ONE_CONVERSATION},
        problems=("conversation_not_found",),
    ),
)
async def conversation(request: Request[Any, Any, Any], conversation_id: FromPath[str]) -> ASGIApp:
    """Show a conversation."""
    return _shown(request, await _conversations(request).get(caller_of(request), conversation_id))


@patch(
    "/conversations/{conversation_id:str}",
    guards=[any_caller],
    described=Operation(
        tag="Conversations",
        says="What is left out stays as it is; null empties it.",
        body={JSON: Content(ChangeRequest, {"new title, no tags": {"title": "Lakes", "tags": None}})},
        answers={200: _ONE_CONVERSATION},
        problems=("conversation_not_found",),
    ),
)
async def change(request: Request[Any, Any, Any], conversation_id: FromPath[str]) -> ASGIApp:
    """Name a conversation, tag it, or hang metadata on it."""
    asked = await _CHANGE.read(request, max_bytes=services_of(request).max_body_bytes)
    changes = ConversationChanges(title=asked.title, tags=asked.tags, metadata=asked.metadata)
    changed = await _conversations(request).update(caller_of(request), conversation_id, changes)
    return _shown(request, changed)


@delete(
    "/conversations/{conversation_id:str}",
    guards=[any_caller],
    status_code=200,
    before_request=_DELETE.check,
    described=Operation(
        tag="Conversations",
        says="With `soft=false` all that was said is erased, here at once and at the provider item by item; what it "
        "cost stays in the ledger.",
        answers={200: json_answer("It is deleted.", Deletion, {"id": CONVERSATION_ID, "soft": True, "deleted": True})},
        problems=("conversation_not_found", "conversation_busy"),
    ),
)
async def remove(request: Request[Any, Any, Any], conversation_id: FromPath[str]) -> ASGIApp:
    """Hide a conversation, or erase it."""
    soft = _DELETE.read(request).soft
    deletion = await _conversations(request).delete(caller_of(request), conversation_id, soft=soft)
    return json_response(deletion)


@post(
    "/conversations/{conversation_id:str}/restore",
    guards=[any_caller],
    status_code=200,
    described=Operation(
        tag="Conversations",
        answers={200: _ONE_CONVERSATION},
        problems=("conversation_not_found",),
    ),
)
async def restore(request: Request[Any, Any, Any], conversation_id: FromPath[str]) -> ASGIApp:
    """Show a hidden conversation again."""
    return _shown(request, await _conversations(request).restore(caller_of(request), conversation_id))


@post(
    "/conversations/{conversation_id:str}/summary",
    guards=[any_caller],
    status_code=200,
    described=Operation(
        tag="Conversations",
        says="It is charged like a turn, and kept in `summary`.",
        headers=ON_TURNS,
        answers={
            200: json_answer("The conversation.", Conversation, CONVERSATION, *LIMITED, "Idempotent-Replayed"),
        },
        problems=FAILURES + REPEATS,
    ),
)
async def summarize(request: Request[Any, Any, Any], conversation_id: FromPath[str]) -> ASGIApp:
    """Let the model sum a conversation up."""
    textllm = services_of(request).textllm
    caller = caller_of(request)
    events = textllm.summarize_conversation.stream(caller, conversation_id, idempotency_of(request, b""))
    started = await anext(events)  # a refusal is raised here, with headers of its own
    assert isinstance(started, ReplyStarted)
    await last_reply(events)
    summed_up = await textllm.conversations.get(caller, conversation_id)
    return json_response(summed_up, headers=headers_of(started))


@reading(
    "/conversations/{conversation_id:str}/messages",
    guards=[any_caller],
    before_request=_MESSAGES.check,
    described=Operation(
        tag="Conversations",
        answers={200: json_answer("A page of messages.", MessagePage, {"data": [MESSAGE], "has_more": False})},
        problems=(
            *("conversation_not_found", "conversation_lost"),
            *("provider_error", "provider_unavailable", "provider_timeout"),
        ),
    ),
)
async def messages(request: Request[Any, Any, Any], conversation_id: FromPath[str]) -> ASGIApp:
    """List what was said in a conversation."""
    asked = _MESSAGES.read(request)
    page = await _conversations(request).messages(
        caller_of(request), conversation_id, limit=asked.limit, order=asked.order, after=given(asked.after)
    )
    return json_response(page)


def _shown(request: Request[Any, Any, Any], conversation: Conversation) -> ASGIApp:
    return json_response(with_absolute_links(request, conversation))


def _conversations(request: Request[Any, Any, Any]) -> Conversations:
    return services_of(request).textllm.conversations
