"""Items as clients of OpenAI's API send them: read and put together to messages, or refused by their names."""

from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Struct
from msgspec.structs import replace

from textllm_core.chat.given_parts import GivenPart
from textllm_core.chat.tool_use import check_ids
from textllm_core.errors import InvalidRequestError
from textllm_core.records.hosted import ITEMS, MCP_ITEMS, Approval, HostedItem
from textllm_core.records.parts import InputText, OutputText, Refusal
from textllm_core.records.tools import ToolCall, ToolResult
from textllm_http.openai_door.bodies import DoorBody
from textllm_http.openai_door.bounds import check_parts
from textllm_http.openai_door.client_tools import text_arguments, wire_name
from textllm_http.openai_door.parts import WirePart, parts_of
from textllm_http.openai_door.reasoning import reasoning_before
from textllm_http.openai_door.shaping import shaped_at
from textllm_http.requests import JsonBody

Role: TypeAlias = Literal["user", "assistant", "system", "developer"]
MAX_ITEMS: Final = 2000  # of one request, which may bring all that was said before
_MOST_REFERENCES: Final = 500  # each costs a look into the database
_ROLES: Final = ("user", "assistant", "system", "developer")
_AFTER_RESULTS: Final = ("message", "function_call", "custom_tool_call", "item_reference")
_SHOWN: Final = "It is shown below."  # of a result that is an image, or a file
_HIDDEN: Final = ("compaction",)  # what a model thought is not told to it here; clients send it back


class GivenMessage(Struct, frozen=True, kw_only=True):
    """What somebody is said to have said."""

    role: Role
    parts: tuple[GivenPart, ...]


class GivenReference(Struct, frozen=True):
    """An item that is kept here, by its id; `place`: where it stands in the request."""

    item_id: str
    place: str


class ServerTool(Struct, frozen=True, kw_only=True):
    """What an MCP server offers."""

    name: str
    input_schema: dict[str, Any]
    description: str | None = None
    annotations: dict[str, Any] | None = None


class ListedTools(Struct, frozen=True, kw_only=True):
    """All that an MCP server offers."""

    id: str
    server_label: str
    tools: list[ServerTool]
    error: str | dict[str, Any] | None = None


class ServerCall(Struct, frozen=True, kw_only=True):
    """What an MCP server was asked, or is to be."""

    id: str
    server_label: str
    name: str
    arguments: str
    output: str | None = None
    error: str | dict[str, Any] | None = None
    status: str | None = None
    approval_request_id: str | None = None


Given: TypeAlias = GivenMessage | GivenReference
_LISTED, _SERVER_CALL = JsonBody(ListedTools), JsonBody(ServerCall)


def given_items(
    items: Sequence[Any], body: DoorBody, *, place: str, passes_tools: bool = False, takes_servers: bool = False
) -> list[Given]:
    """The messages that items stand for, and those that they name.

    A call of a function belongs to the reply before it, results that follow each other make one message. Images and
    files among the results come behind them all: most providers take text alone as a result.

    Args:
        body: that they stood in; place: where, such as `input`.
        passes_tools: items of tools of the provider's are passed over: nothing is kept of them. What is decided of
            calls of MCP servers is taken.
        takes_servers: what such servers did is taken, too.
    Raises:
        InvalidRequestError: one of them is malformed, or of a kind that is not served here; or two calls of a reply,
            or two of the results that follow it, have the same id.
    """
    if len(items) > MAX_ITEMS:
        raise InvalidRequestError.of(place, f"may have {MAX_ITEMS} items at most")
    objects = [item for item in items if isinstance(item, dict)]
    check_parts([item.get(name) for item in objects for name in ("content", "output")], place=place)
    if sum(item.get("type") == "item_reference" for item in objects) > _MOST_REFERENCES:
        raise InvalidRequestError.of(
            place, f"may refer to {_MOST_REFERENCES} items at most; send what they say instead"
        )
    given: list[Given] = []
    shown: list[GivenPart] = []  # of the results that have just come
    before: list[dict[str, Any]] = []  # the call that may come: what was thought, and said by the same reply
    for number, item in enumerate(items):
        at = f"{place}[{number}]"
        if not isinstance(item, dict):
            raise InvalidRequestError.of(at, "must be an object")
        kind = item.get("type") or "message"
        if shown and kind in _AFTER_RESULTS and item.get("role") != "user":
            _show(given, shown)
        match kind:
            case "message":
                message, is_reply = _message(item, body, at), item.get("role") == "assistant"
                if shown:
                    message = GivenMessage(role=message.role, parts=(*shown, *message.parts))
                    shown.clear()
                given.append(_behind(before, item, message) if before and is_reply else message)
                before = [*before, item] if before and is_reply else []
            case "function_call" | "custom_tool_call":
                call = ToolCall(
                    call_id=_name(item, "call_id", at),
                    name=wire_name(_name(item, "name", at), _group(item, at)),
                    arguments=_arguments(item, at),
                    reasoning=reasoning_before(before, item) if before else UNSET,
                )
                before = []
                join(given, "assistant", call)
            case "function_call_output" | "custom_tool_call_output":
                before = []
                result, parts = _result(item, body, at)
                join(given, "user", result)
                shown += parts
            case "item_reference":
                given.append(GivenReference(_text(item, "id", at), at))
            case "reasoning":
                before.append(item)
            case "mcp_approval_response" if passes_tools:
                before = []
                join(given, "user", _approval(item, at))
            case str() if takes_servers and kind in MCP_ITEMS:
                join(given, "assistant", _server_item(item, at))
            case str() if passes_tools and kind in ITEMS:  # what came of it, the reply says
                pass
            case _ if kind not in _HIDDEN:
                told = kind if isinstance(kind, str) and kind.isascii() and len(kind) <= 64 else "this"
                raise InvalidRequestError.of(
                    f"{at}.type", f"{told} is not served here; there are messages, function calls and their outputs"
                )
    if shown:
        _show(given, shown)
    for each in given:
        if isinstance(each, GivenMessage):
            check_ids(each.parts, field=place)
    return given


def _show(given: list[Given], shown: list[GivenPart]) -> None:
    """Have the user show what came with results."""
    given.append(GivenMessage(role="user", parts=tuple(shown)))
    shown.clear()


def _behind(before: list[dict[str, Any]], item: dict[str, Any], message: GivenMessage) -> GivenMessage:
    """The reply, with what was thought before it."""
    first, *others = message.parts
    if not isinstance(first, OutputText | Refusal):
        return message
    return GivenMessage(role=message.role, parts=(replace(first, reasoning=reasoning_before(before, item)), *others))


def join(given: list[Given], role: Role, part: ToolCall | ToolResult | HostedItem | Approval) -> None:
    """Add a call to the reply before it, a result to those before it; or a message that is nothing else."""
    kinds = (OutputText, Refusal, ToolCall, HostedItem) if role == "assistant" else (ToolResult, Approval)
    last = given[-1] if given else None
    # All parts of a message are of these kinds if the last one is: only results come behind results.
    if isinstance(last, GivenMessage) and last.role == role and isinstance(last.parts[-1], kinds):
        given[-1] = GivenMessage(role=role, parts=(*last.parts, part))
    else:
        given.append(GivenMessage(role=role, parts=(part,)))


def _message(item: dict[str, Any], body: DoorBody, at: str) -> GivenMessage:
    role = item.get("role")
    if role not in _ROLES:
        raise InvalidRequestError.of(f"{at}.role", f"must be one of {', '.join(_ROLES)}")
    parts = _parts(item.get("content"), body, role=role, place=f"{at}.content")
    if not parts:
        raise InvalidRequestError.of(f"{at}.content", "must say something")
    return GivenMessage(role=role, parts=parts)


def _result(item: dict[str, Any], body: DoorBody, at: str) -> tuple[ToolResult, list[GivenPart]]:
    """A result, and the images and files that it came with."""
    output, shown = item.get("output"), list[GivenPart]()
    if not isinstance(output, str):
        parts = _parts(output, body, role="user", place=f"{at}.output")
        output = "".join(part.text for part in parts if isinstance(part, InputText))
        shown = [part for part in parts if not isinstance(part, InputText)]
    return ToolResult(call_id=_name(item, "call_id", at), output=output or (_SHOWN if shown else "")), shown


def _approval(item: dict[str, Any], at: str) -> Approval:
    approve, reason = item.get("approve"), item.get("reason")
    if not isinstance(approve, bool):
        raise InvalidRequestError.of(f"{at}.approve", "must be true or false")
    if not isinstance(reason, str | None):
        raise InvalidRequestError.of(f"{at}.reason", "must be a string")
    return Approval(approval_request_id=_name(item, "approval_request_id", at), approve=approve, reason=reason or UNSET)


def _server_item(item: dict[str, Any], at: str) -> HostedItem:
    """What an MCP server did, or is to do, as a reply told it that was given here or by the provider itself."""
    if item["type"] == "mcp_list_tools":
        shaped_at(_LISTED, item, at)
    else:
        shaped_at(_SERVER_CALL, item, at)
    return HostedItem(item)


def _parts(content: object, body: DoorBody, *, role: Role, place: str) -> tuple[GivenPart, ...]:
    try:
        said = msgspec.convert(content, str | list[WirePart])
    except msgspec.ValidationError as error:
        raise InvalidRequestError.of(place, "must be a text, or a list of parts, each with its type") from error
    return parts_of(said, body, role=role, place=place)


def _group(item: dict[str, Any], at: str) -> str | None:
    return None if item.get("namespace") is None else _name(item, "namespace", at)


def _arguments(item: dict[str, Any], at: str) -> str:
    if item["type"] == "custom_tool_call":
        return text_arguments(_text(item, "input", at))
    return _text(item, "arguments", at)


def _name(item: dict[str, Any], name: str, at: str) -> str:
    value = _text(item, name, at)
    if not value:
        raise InvalidRequestError.of(f"{at}.{name}", "must not be empty")
    return value


def _text(item: dict[str, Any], name: str, at: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise InvalidRequestError.of(f"{at}.{name}", "must be a string")
    return value
