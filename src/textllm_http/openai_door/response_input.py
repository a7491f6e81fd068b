"""The input of a response, and the turn that it stands for."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from litestar import Request

from textllm_core.chat.approvals import answers_calls, is_of_server
from textllm_core.errors import InvalidRequestError
from textllm_core.records.edits import SaidMessage
from textllm_core.records.hosted import HostedItem
from textllm_core.records.messages import Message
from textllm_core.records.messages_turn import MessagesTurn
from textllm_core.records.parts import ContentPart, InputText
from textllm_core.records.response_turns import ResponseTurn
from textllm_core.records.tools import ToolCall, ToolResult
from textllm_core.wire import to_json
from textllm_http.auth import caller_of
from textllm_http.openai_door.bodies import DoorBody
from textllm_http.openai_door.charging import idempotency_at_door, named_user, user_in_header
from textllm_http.openai_door.given_items import Given, GivenMessage, GivenReference, given_items, join
from textllm_http.openai_door.hosted_items import PREFIXES
from textllm_http.openai_door.items import ItemId, id_of_call
from textllm_http.openai_door.response_request import ResponseRequest
from textllm_http.openai_door.taking import taken, texts_alone
from textllm_http.services import services_of

_NO_TIME: Final = datetime(1970, 1, 1, tzinfo=UTC)  # when its caller says that something was said, nobody asks
_Request = Request[Any, Any, Any]


async def given_of(request: _Request, asked: ResponseRequest, body: DoorBody) -> list[GivenMessage]:
    """The messages that the input stands for, oldest first; items that it names are looked up.

    Raises:
        InvalidRequestError: it says nothing, or one of its items cannot be.
    """
    said = asked.input
    if isinstance(said, str):
        if not said.strip():
            raise InvalidRequestError.of("input", "must not be blank")
        return [GivenMessage(role="user", parts=(InputText(said),))]
    found: list[Given] = []
    looked: dict[str, Sequence[ContentPart]] = {}
    # What is gone on with here has what servers did, and asks for the approvals.
    takes_servers = asked.conversation_id is None and asked.previous_response_id is None
    for each in given_items(said or (), body, place="input", passes_tools=True, takes_servers=takes_servers):
        if isinstance(each, GivenReference):
            await _look_up(request, asked, found, each, looked, takes_servers=takes_servers)
        elif isinstance(each, GivenMessage) and len(each.parts) == 1 and isinstance(each.parts[0], ToolCall):
            join(found, "assistant", each.parts[0])  # behind a reply that was named
        else:
            found.append(each)
    messages = [each for each in found if isinstance(each, GivenMessage)]
    if not messages:
        raise InvalidRequestError.of("input", "is required: a text, or a list of items")
    return messages


async def unkept_turn(
    request: _Request, asked: ResponseRequest, body: DoorBody, given: Sequence[GivenMessage]
) -> MessagesTurn:
    """The turn of a request of which nothing is kept: all that was said goes with it.

    Raises:
        TextLLMError: it cannot be answered.
    """
    textllm, caller = services_of(request).textllm, caller_of(request)
    named = _named(request, asked)
    user = named or caller.id
    past: Sequence[Message] = ()
    if asked.previous_response_id is not None:
        past = await textllm.responses.create.past(caller, asked.previous_response_id, named=named)
    content = await taken(request, body, [each.parts for each in given], user_id=user, model=asked.model, keeps=False)
    said = [
        Message(id="", role=each.role, content=parts, created_at=_NO_TIME)
        for each, parts in zip(given, content.parts.contents, strict=True)
    ]
    return MessagesTurn(
        messages=(*past, *said),
        user_id=user,
        options=asked.options,
        idempotency=idempotency_at_door(request, body),
        kind=content.parts.kind,
        files=content.parts.tokens,
        attached=content.parts.attached,
        allowance=content.allowance,
        is_streamed=bool(asked.stream),
    )


async def stored_turn(
    request: _Request,
    asked: ResponseRequest,
    body: DoorBody,
    given: Sequence[GivenMessage],
    told: dict[str, Any],
    *,
    is_stored: bool,
) -> ResponseTurn:
    """The turn that a request stands for: the last message, with the outputs right before it, behind all others.

    Raises:
        TextLLMError: it cannot be answered.
    """
    named, options = _named(request, asked), asked.options
    contents = [each.parts for each in given]
    kept = texts_alone(contents)
    if kept is None:
        user_id = await _owner(request, asked) or named or caller_of(request).id
        kept = await taken(request, body, contents, user_id=user_id, model=asked.model, keeps=True)
    parts = kept.parts
    said = [SaidMessage(role=each.role, content=it) for each, it in zip(given, parts.contents, strict=True)]
    *before, last = said
    if last.role != "user":
        raise InvalidRequestError.of("input", "must end with what the user says, or with outputs of calls")
    content = last.content
    if before and not _has_results(last) and _has_results(before[-1]):
        content = (*before.pop().content, *content)
    echo = told | {"asked_model": asked.model or ""}
    return ResponseTurn(
        content=content,
        before=tuple(before),
        conversation_id=asked.conversation_id,
        previous_response_id=asked.previous_response_id,
        user_id=named,
        options=options,
        idempotency=idempotency_at_door(request, body),
        is_stored=is_stored,
        is_background=bool(asked.background),
        is_resumable=bool(asked.stream),
        asked=to_json(echo).decode() if is_stored else "{}",
        kind=parts.kind,
        files=parts.tokens,
        show_files=parts.show_files,
        discard_files=parts.discard_files,
        allowance=kept.allowance,
    )


def _named(request: _Request, asked: ResponseRequest) -> str | None:
    """The user that a request names."""
    return named_user(
        caller_of(request),
        safety_identifier=asked.safety_identifier,
        user=asked.user,
        in_header=user_in_header(request),
    )


def _has_results(said: SaidMessage) -> bool:
    return answers_calls(said.content)


async def _owner(request: _Request, asked: ResponseRequest) -> str | None:
    """Whose is what the request goes on with, and so its files; None: it goes on with nothing."""
    textllm, caller = services_of(request).textllm, caller_of(request)
    if asked.conversation_id is not None:
        return (await textllm.conversations.get(caller, asked.conversation_id)).user_id
    if asked.previous_response_id is not None:
        return (await textllm.responses.get(caller, asked.previous_response_id)).stored.user_id
    return None


async def _look_up(
    request: _Request,
    asked: ResponseRequest,
    found: list[Given],
    named: GivenReference,
    looked: dict[str, Sequence[ContentPart]],
    *,
    takes_servers: bool,
) -> None:
    """Add an item that is kept here: of what a response said.

    Args:
        looked: what messages say, by their ids; takes_servers: as `given_items` has it.
    """
    item, caller = ItemId.of(named.item_id), caller_of(request)
    user = _named(request, asked)
    if item.message not in looked:
        reply = await services_of(request).textllm.responses.create.reply(caller, item.message, named=user)
        looked[item.message] = () if reply is None else reply.content
    parts = looked[item.message]
    if item.call is None:
        said = tuple(part for part in parts if not isinstance(part, ToolCall | ToolResult | HostedItem))
        if said:
            found.append(GivenMessage(role="assistant", parts=said))
            return
    for part in parts:
        if isinstance(part, ToolCall) and id_of_call(item.message, part.call_id) == named.item_id:
            join(found, "assistant", part)
            return
        is_it = isinstance(part, HostedItem) and part.id_in(item.message) == named.item_id
        if isinstance(part, HostedItem) and is_it and takes_servers and is_of_server(part):
            join(found, "assistant", HostedItem({**part.item, "id": named.item_id}))
            return
    if named.item_id.startswith(("rs_", *PREFIXES)):  # what a model thought is not kept; of tools the reply tells
        return
    raise InvalidRequestError.of(named.place, "is no item that is kept here; send what it says")
