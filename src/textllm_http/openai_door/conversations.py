"""`/v1/conversations`: conversations of the service, in the shapes of OpenAI's API."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from litestar import Request
from litestar.params import FromPath
from litestar.types import ASGIApp
from msgspec import UNSET, Meta, Struct, UnsetType, field

from textllm_core.application import Conversations
from textllm_core.cancellation import carried_through
from textllm_core.errors import InvalidRequestError, NotFoundError
from textllm_core.file_names import key_of
from textllm_core.list_messages import ListedMessage, Order
from textllm_core.records.conversations import Conversation, ConversationChanges
from textllm_core.records.edits import SaidMessage
from textllm_http.auth import caller_of
from textllm_http.fields import After, Limit
from textllm_http.links import absolute
from textllm_http.openai_door.bodies import DoorBody, door_body
from textllm_http.openai_door.charging import NAMES_USER, charged_user, user_in_header
from textllm_http.openai_door.declaring import MAX_TEXT_BYTES, door_delete, door_post, door_reading
from textllm_http.openai_door.given_items import GivenMessage, given_items
from textllm_http.openai_door.item_pages import Asked, page_of
from textllm_http.openai_door.items import Item, ItemId, items_of, kept_images, listed, places_of
from textllm_http.openai_door.queries import DoorQuery
from textllm_http.openai_door.taking import taken
from textllm_http.openapi_examples import CONVERSATION_ID
from textllm_http.openapi_shapes import JSON, Content, Operation, json_answer
from textllm_http.requests import JsonBody, content_length_of, given, has_body
from textllm_http.responses import json_response
from textllm_http.services import services_of

MAX_ITEMS_AT_ONCE: Final = 20  # as OpenAI has it
MAX_LISTED: Final = 100  # likewise
IMAGE_URLS: Final = "message.input_image.image_url"

Include = Annotated[
    list[str],
    Meta(description=f"What items are to have besides; `{IMAGE_URLS}` is heeded, all else has nothing to add."),
]


class CreateConversation(Struct, frozen=True, kw_only=True):
    """A conversation that is to begin."""

    items: list[Any] | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    user: str | None = None


class UpdateConversation(Struct, frozen=True, kw_only=True):
    """What is to be different."""

    metadata: dict[str, str] | UnsetType | None = UNSET


class AddItems(Struct, frozen=True, kw_only=True):
    """Items that are to come to a conversation."""

    items: list[Any]


class Page(Struct, frozen=True, kw_only=True):
    """Which part of a list."""

    limit: Limit = 20
    order: Annotated[Order, Meta(description="`desc`: the newest first.")] = "desc"
    after: After | UnsetType = UNSET
    include: Include | UnsetType = field(default=UNSET, name="include[]")


class Including(Struct, frozen=True, kw_only=True):
    """What is to be told besides."""

    include: Include | UnsetType = field(default=UNSET, name="include[]")


PAGE: Final = DoorQuery(Page)
INCLUDING: Final = DoorQuery(Including)
_CREATE, _UPDATE, _ADD = JsonBody(CreateConversation), JsonBody(UpdateConversation), JsonBody(AddItems)
_OBJECT: Final = {"type": "object", "description": "As OpenAI's API has it."}
_SHOWN: Final = {"id": CONVERSATION_ID, "object": "conversation", "created_at": 1773480413, "metadata": {}}
_ITEM: Final = {
    "id": "msg_9d0c1b2a3f4e5d6c7b8a9f0e",
    "type": "message",
    "status": "completed",
    "role": "user",
    "content": [{"type": "input_text", "text": "Name three rivers."}],
}
_ONE: Final = json_answer("The conversation.", _OBJECT, _SHOWN)
ITEMS: Final = json_answer("Some of its items.", _OBJECT, listed([_ITEM], has_more=False))
_CHANGES: Final = ("conversation_not_found", "conversation_busy", "forbidden")


@door_post(
    "/v1/conversations",
    described=Operation(
        tag="OpenAI",
        says="It is of the user that `safety_identifier`, `user` or `X-User-ID` names, else of the key; it counts as a "
        "turn does in the rate limit.",
        headers=(NAMES_USER,),
        body={JSON: Content(_OBJECT, {"empty": {"metadata": {"topic": "rivers"}}})},
        answers={200: _ONE},
        problems=("not_found", "rate_limited", "storage_unavailable", *_CHANGES),
    ),
)
async def create(request: Request[Any, Any, Any]) -> ASGIApp:
    """Begin a conversation."""
    services, caller = services_of(request), caller_of(request)
    conversations, in_header = services.textllm.conversations, user_in_header(request)
    if content_length_of(request) == 0 and not has_body(request):
        user = charged_user(caller, safety_identifier=None, user=None, in_header=in_header)
        return json_response(_shown(await conversations.create(caller, user)))
    with await door_body(request, max_text_bytes=MAX_TEXT_BYTES) as body:
        asked = _CREATE.decode(body.content)
        given = _given(asked.items or [], body)
        user = charged_user(caller, safety_identifier=asked.safety_identifier, user=asked.user, in_header=in_header)
        changes = ConversationChanges(metadata=asked.metadata or {})
        made = await conversations.create(caller, user, changes)
        if given:
            await _add(request, body, given, made.id, user, is_counted=True)
    return json_response(_shown(made))


@door_reading(
    "/v1/conversations/{conversation_id:str}",
    described=Operation(tag="OpenAI", headers=(NAMES_USER,), answers={200: _ONE}, problems=("conversation_not_found",)),
)
async def one(request: Request[Any, Any, Any], conversation_id: FromPath[str]) -> ASGIApp:
    """Show a conversation as OpenAI's API does."""
    return json_response(_shown(await _conversations(request).get(caller_of(request), conversation_id)))


@door_post(
    "/v1/conversations/{conversation_id:str}",
    described=Operation(
        tag="OpenAI",
        headers=(NAMES_USER,),
        says="Its metadata as a whole.",
        body={JSON: Content(_OBJECT, {"new metadata": {"metadata": {"topic": "lakes"}}})},
        answers={200: _ONE},
        problems=("conversation_not_found",),
    ),
)
async def change(request: Request[Any, Any, Any], conversation_id: FromPath[str]) -> ASGIApp:
    """Hang metadata on a conversation."""
    asked = await _UPDATE.read(request, max_bytes=services_of(request).max_body_bytes)
    changes = ConversationChanges(metadata=asked.metadata)
    return json_response(_shown(await _conversations(request).update(caller_of(request), conversation_id, changes)))


@door_delete(
    "/v1/conversations/{conversation_id:str}",
    described=Operation(
        tag="OpenAI",
        headers=(NAMES_USER,),
        says="All that was said in it goes, here and at the provider; what it cost stays in the ledger.",
        answers={
            200: json_answer(
                "It is gone.",
                _OBJECT,
                {"id": CONVERSATION_ID, "object": "conversation.deleted", "deleted": True},
            )
        },
        problems=("conversation_not_found", "conversation_busy"),
    ),
)
async def remove(request: Request[Any, Any, Any], conversation_id: FromPath[str]) -> ASGIApp:
    """Erase a conversation."""
    gone = await _conversations(request).delete(caller_of(request), conversation_id, soft=False)
    return json_response({"id": gone.id, "object": "conversation.deleted", "deleted": True})


@door_post(
    "/v1/conversations/{conversation_id:str}/items",
    before_request=INCLUDING.check,
    described=Operation(
        tag="OpenAI",
        headers=(NAMES_USER,),
        says=f"At most {MAX_ITEMS_AT_ONCE} of them; no model is asked, and nothing is charged. They count as one turn "
        "does in the rate limit.",
        body={JSON: Content(_OBJECT, {"a message": {"items": [{"role": "user", "content": "Name three rivers."}]}})},
        answers={200: ITEMS},
        problems=("rate_limited", "storage_unavailable", *_CHANGES),
    ),
)
async def add_items(request: Request[Any, Any, Any], conversation_id: FromPath[str]) -> ASGIApp:
    """Add items to a conversation."""
    conversations = _conversations(request)
    with await door_body(request, max_text_bytes=MAX_TEXT_BYTES) as body:
        asked = _ADD.decode(body.content)
        if not asked.items:
            raise InvalidRequestError.of("items", "must not be empty")
        given = _given(asked.items, body)
        owner = (await conversations.get(caller_of(request), conversation_id)).user_id
        added = await _add(request, body, given, conversation_id, owner)
    items = [item for message in added for item in items_of(message)]
    return json_response(listed(await with_links(request, items, INCLUDING.read(request).include), has_more=False))


@door_reading(
    "/v1/conversations/{conversation_id:str}/items",
    before_request=PAGE.check,
    described=Operation(
        tag="OpenAI",
        headers=(NAMES_USER,),
        answers={200: ITEMS},
        problems=(
            *("conversation_not_found", "not_found", "conversation_lost"),
            *("provider_error", "provider_unavailable", "provider_timeout"),
        ),
    ),
)
async def list_items(request: Request[Any, Any, Any], conversation_id: FromPath[str]) -> ASGIApp:
    """List the items of a conversation."""
    asked = PAGE.read(request)
    items, has_more = await page_of(
        _conversations(request).messages, caller_of(request), conversation_id, asked_of(asked)
    )
    return json_response(listed(await with_links(request, items, asked.include), has_more=has_more))


@door_reading(
    "/v1/conversations/{conversation_id:str}/items/{item_id:str}",
    before_request=INCLUDING.check,
    described=Operation(
        tag="OpenAI",
        headers=(NAMES_USER,),
        answers={200: json_answer("The item.", _OBJECT, _ITEM)},
        problems=(
            *("conversation_not_found", "not_found", "conversation_lost"),
            *("provider_error", "provider_unavailable", "provider_timeout"),
        ),
    ),
)
async def one_item(request: Request[Any, Any, Any], conversation_id: FromPath[str], item_id: FromPath[str]) -> ASGIApp:
    """Show an item of a conversation."""
    message = await _conversations(request).messages.one(
        caller_of(request), conversation_id, ItemId.of(item_id).message
    )
    for item in items_of(message):
        if item["id"] == item_id:
            await with_links(request, [item], INCLUDING.read(request).include)
            return json_response(item)
    raise _no_such_item()


@door_delete(
    "/v1/conversations/{conversation_id:str}/items/{item_id:str}",
    described=Operation(tag="OpenAI", headers=(NAMES_USER,), answers={200: _ONE}, problems=("not_found", *_CHANGES)),
)
async def remove_item(
    request: Request[Any, Any, Any], conversation_id: FromPath[str], item_id: FromPath[str]
) -> ASGIApp:
    """Remove an item from a conversation."""
    conversations, caller, item = _conversations(request), caller_of(request), ItemId.of(item_id)
    message = await conversations.messages.one(caller, conversation_id, item.message)
    places = places_of(message, item)
    if not places:
        raise _no_such_item()
    await conversations.remove_part(caller, conversation_id, message.id, places)
    return json_response(_shown(await conversations.get(caller, conversation_id)))


async def with_links(
    request: Request[Any, Any, Any], items: Sequence[Item], include: Sequence[str] | UnsetType
) -> Sequence[Item]:
    """The items, their images with links where these are asked for."""
    images = (
        {}
        if include is UNSET or IMAGE_URLS not in include
        else {key: part for part in kept_images(items) if (key := key_of(part["file_id"])) is not None}
    )
    if images:
        files, caller = services_of(request).textllm.files, caller_of(request)
        for key, file in (await files.get.all(caller, list(images))).items():
            images[key]["image_url"] = absolute(request, await files.link(caller, file))
    return items


def _shown(conversation: Conversation) -> Mapping[str, object]:
    return {
        "id": conversation.id,
        "object": "conversation",
        "created_at": int(conversation.created_at.timestamp()),
        "metadata": conversation.metadata,
    }


def _given(items: Sequence[Any], body: DoorBody) -> list[GivenMessage]:
    """The messages that items stand for.

    Raises:
        InvalidRequestError: there are too many, or one cannot be.
    """
    if len(items) > MAX_ITEMS_AT_ONCE:
        raise InvalidRequestError.of("items", f"may be {MAX_ITEMS_AT_ONCE} at most")
    given = []
    for each in given_items(items, body, place="items", passes_tools=True, takes_servers=True):
        if not isinstance(each, GivenMessage):
            raise InvalidRequestError.of(each.place, "is an item that is kept already; send what it says")
        given.append(each)
    if items and not given:
        raise InvalidRequestError.of(
            "items[0].type", "is of an item that is not kept here by itself; add what was said"
        )
    return given


async def _add(
    request: Request[Any, Any, Any],
    body: DoorBody,
    messages: Sequence[GivenMessage],
    conversation_id: str,
    owner: str,
    *,
    is_counted: bool = False,
) -> Sequence[ListedMessage]:
    """Add messages to a conversation; their files become its user's."""
    caller, contents = caller_of(request), [each.parts for each in messages]
    kept = await taken(request, body, contents, user_id=owner, model=None, keeps=True, is_counted=is_counted)
    parts, is_counted = kept.parts, is_counted or kept.allowance is not None
    said = [SaidMessage(role=each.role, content=it) for each, it in zip(messages, parts.contents, strict=True)]
    try:
        added = await _conversations(request).add_messages(
            caller, conversation_id, said, file_tokens=parts.tokens.most, is_counted=is_counted
        )
        if parts.show_files is not None:
            await parts.show_files()
    except BaseException:
        if parts.discard_files is not None:
            await carried_through(parts.discard_files())
        raise
    return added


def asked_of(page: Page) -> Asked:
    """
    Raises:
        InvalidRequestError: more are asked for than are listed.
    """
    if not 1 <= page.limit <= MAX_LISTED:
        raise InvalidRequestError.of("limit", f"must be a whole number from 1 to {MAX_LISTED}")
    return Asked(page.limit, page.order, given(page.after))


def _no_such_item() -> NotFoundError:
    return NotFoundError("This conversation has no such item.")


def _conversations(request: Request[Any, Any, Any]) -> Conversations:
    return services_of(request).textllm.conversations
