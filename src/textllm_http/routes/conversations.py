"""`/conversations` and what was said in them."""

from typing import Annotated, Any, Final, Literal

from litestar import Request, delete, patch, post
from litestar.params import FromPath
from litestar.types import ASGIApp
from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from textllm_core.application import Conversations
from textllm_core.chat.exchange import last_reply
from textllm_core.conversations import MAX_LISTED, MAX_OFFSET
from textllm_core.list_messages import MAX_MESSAGES
from textllm_core.records.conversations import Conversation, ConversationChanges, ConversationFilter
from textllm_core.records.messages import ReplyStarted
from textllm_http.admission import headers_of, idempotency_of, rate_limit_headers
from textllm_http.auth import any_caller, caller_of
from textllm_http.links import with_absolute_links
from textllm_http.requests import JsonBody, QueryString, given
from textllm_http.responses import json_response
from textllm_http.routes.reading import reading
from textllm_http.services import services_of


class ConversationRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new conversation; null is the same as left out."""

    user_id: str | None = None
    title: str | None = None
    tags: list[str] | None = None
    metadata: dict[str, str] | None = None


class ChangeRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be different; what is left out stays, null empties it."""

    title: str | UnsetType | None = UNSET
    tags: list[str] | UnsetType | None = UNSET
    metadata: dict[str, str] | UnsetType | None = UNSET


class ListQuery(Struct, frozen=True):
    """Which conversations, as `ConversationFilter` has it."""

    user_id: str | UnsetType = UNSET
    tag: str | UnsetType = UNSET
    q: str | UnsetType = UNSET
    include_deleted: bool = False
    limit: Annotated[int, Meta(ge=1, le=MAX_LISTED)] = 50
    offset: Annotated[int, Meta(ge=0, le=MAX_OFFSET)] = 0


class DeleteQuery(Struct, frozen=True):
    """Whether it can be restored."""

    soft: bool = True


class MessagesQuery(Struct, frozen=True):
    """Which messages, from the one behind `after` on."""

    limit: Annotated[int, Meta(ge=1, le=MAX_MESSAGES)] = 100
    order: Literal["asc", "desc"] = "asc"
    after: str | UnsetType = UNSET


_CREATE: Final = JsonBody(ConversationRequest)
_CHANGE: Final = JsonBody(ChangeRequest)
_LIST: Final = QueryString(ListQuery)
_DELETE: Final = QueryString(DeleteQuery)
_MESSAGES: Final = QueryString(MessagesQuery)


@post("/conversations", guards=[any_caller], status_code=201)
async def create(request: Request[Any, Any, Any]) -> ASGIApp:
    """A new conversation, before anything is said in it."""
    asked = await _CREATE.read_if_any(request, max_bytes=services_of(request).max_body_bytes)
    changes = ConversationChanges(title=asked.title, tags=asked.tags, metadata=asked.metadata).checked()
    conversations, caller = _conversations(request), caller_of(request)
    user_id = caller.acts_for(asked.user_id)
    allowance = await conversations.create.admit(caller, user_id)
    made = await conversations.create(caller, user_id, changes, allowance=allowance)
    headers = rate_limit_headers(allowance) | {"Location": f"/conversations/{made.id}"}
    return json_response(made, status_code=201, headers=headers)


@reading("/conversations", guards=[any_caller], before_request=_LIST.check)
async def listed(request: Request[Any, Any, Any]) -> ASGIApp:
    """A user's conversations, or all of the tenant, the newest turn first."""
    asked = _LIST.read(request)
    wanted = ConversationFilter(
        user_id=given(asked.user_id), tag=given(asked.tag), q=given(asked.q), include_deleted=asked.include_deleted
    )
    page = await _conversations(request).list(caller_of(request), wanted, limit=asked.limit, offset=asked.offset)
    shown = replace(page, data=[with_absolute_links(request, each) for each in page.data])
    return json_response(shown)


@reading("/conversations/{conversation_id:str}", guards=[any_caller])
async def conversation(request: Request[Any, Any, Any], conversation_id: FromPath[str]) -> ASGIApp:
    """One conversation."""
    return _shown(request, await _conversations(request).get(caller_of(request), conversation_id))


@patch("/conversations/{conversation_id:str}", guards=[any_caller])
async def change(request: Request[Any, Any, Any], conversation_id: FromPath[str]) -> ASGIApp:
    """Name it, tag it, or hang metadata on it; the conversation as it is then."""
    asked = await _CHANGE.read(request, max_bytes=services_of(request).max_body_bytes)
    changes = ConversationChanges(title=asked.title, tags=asked.tags, metadata=asked.metadata)
    changed = await _conversations(request).update(caller_of(request), conversation_id, changes)
    return _shown(request, changed)


@delete("/conversations/{conversation_id:str}", guards=[any_caller], status_code=200, before_request=_DELETE.check)
async def remove(request: Request[Any, Any, Any], conversation_id: FromPath[str]) -> ASGIApp:
    """Hide it; with `soft=false` erase it, here and on the provider's side."""
    soft = _DELETE.read(request).soft
    deletion = await _conversations(request).delete(caller_of(request), conversation_id, soft=soft)
    return json_response(deletion)


@post("/conversations/{conversation_id:str}/restore", guards=[any_caller], status_code=200)
async def restore(request: Request[Any, Any, Any], conversation_id: FromPath[str]) -> ASGIApp:
    """Show a hidden one again."""
    return _shown(request, await _conversations(request).restore(caller_of(request), conversation_id))


@post("/conversations/{conversation_id:str}/summary", guards=[any_caller], status_code=200)
async def summarize(request: Request[Any, Any, Any], conversation_id: FromPath[str]) -> ASGIApp:
    """Have the model sum it up; the conversation with its new summary."""
    textllm = services_of(request).textllm
    caller = caller_of(request)
    events = textllm.summarize_conversation.stream(caller, conversation_id, idempotency_of(request, b""))
    started = await anext(events)  # a refusal is raised here, with headers of its own
    assert isinstance(started, ReplyStarted)
    await last_reply(events)
    summed_up = await textllm.conversations.get(caller, conversation_id)
    return json_response(summed_up, headers=headers_of(started))


@reading("/conversations/{conversation_id:str}/messages", guards=[any_caller], before_request=_MESSAGES.check)
async def messages(request: Request[Any, Any, Any], conversation_id: FromPath[str]) -> ASGIApp:
    """What was said in it, page by page."""
    asked = _MESSAGES.read(request)
    page = await _conversations(request).messages(
        caller_of(request), conversation_id, limit=asked.limit, order=asked.order, after=given(asked.after)
    )
    return json_response(page)


def _shown(request: Request[Any, Any, Any], conversation: Conversation) -> ASGIApp:
    return json_response(with_absolute_links(request, conversation))


def _conversations(request: Request[Any, Any, Any]) -> Conversations:
    return services_of(request).textllm.conversations
