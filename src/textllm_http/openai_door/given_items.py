"""Items as clients of OpenAI's API send them: read and put together to messages, or refused by their names."""

from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct

from textllm_core.errors import InvalidRequestError
from textllm_core.records.parts import ContentPart, InputText, OutputText, Refusal
from textllm_core.records.tools import ToolCall, ToolResult

Role: TypeAlias = Literal["user", "assistant", "system", "developer"]
MAX_ITEMS: Final = 2000  # of one request, which may bring all that was said before
_ROLES: Final = ("user", "assistant", "system", "developer")
_HIDDEN: Final = ("reasoning", "compaction")  # what a model thought is not told to it here; clients send it back


class GivenMessage(Struct, frozen=True, kw_only=True):
    """What somebody is said to have said."""

    role: Role
    parts: tuple[ContentPart, ...]


class GivenReference(Struct, frozen=True):
    """An item that is kept here, by its id; `place`: where it stands in the request."""

    item_id: str
    place: str


Given: TypeAlias = GivenMessage | GivenReference


def given_items(items: Sequence[Any], *, place: str) -> list[Given]:
    """The messages that items stand for, and those that they name.

    A call of a function belongs to the reply before it, results that follow each other make one message.

    Args:
        place: where they stand in the request, such as `input`.
    Raises:
        InvalidRequestError: one of them is malformed, or of a kind that is not served here.
    """
    if len(items) > MAX_ITEMS:
        raise InvalidRequestError.of(place, f"may have {MAX_ITEMS} items at most")
    given: list[Given] = []
    for number, item in enumerate(items):
        at = f"{place}[{number}]"
        if not isinstance(item, dict):
            raise InvalidRequestError.of(at, "must be an object")
        kind = item.get("type") or "message"
        match kind:
            case "message":
                _add_message(given, item, at)
            case "function_call":
                call = ToolCall(
                    call_id=_text(item, "call_id", at),
                    name=_text(item, "name", at),
                    arguments=_text(item, "arguments", at),
                )
                _join(given, "assistant", call, with_what=(OutputText, Refusal, ToolCall))
            case "function_call_output":
                _join(given, "user", _result(item, at), with_what=(ToolResult,))
            case "item_reference":
                given.append(GivenReference(_text(item, "id", at), at))
            case _ if kind not in _HIDDEN:
                told = kind if isinstance(kind, str) and kind.isascii() and len(kind) <= 64 else "this"
                raise InvalidRequestError.of(
                    f"{at}.type", f"{told} is not served here; there are messages, function calls and their outputs"
                )
    return given


def _add_message(given: list[Given], item: dict[str, Any], at: str) -> None:
    role = item.get("role")
    if role not in _ROLES:
        raise InvalidRequestError.of(f"{at}.role", f"must be one of {', '.join(_ROLES)}")
    parts = parts_of(item.get("content"), role=role, place=f"{at}.content")
    given.append(GivenMessage(role=role, parts=parts))


def _join(given: list[Given], role: Role, part: ToolCall | ToolResult, *, with_what: tuple[type, ...]) -> None:
    last = given[-1] if given else None
    if isinstance(last, GivenMessage) and last.role == role and all(isinstance(each, with_what) for each in last.parts):
        given[-1] = GivenMessage(role=role, parts=(*last.parts, part))
    else:
        given.append(GivenMessage(role=role, parts=(part,)))


def _result(item: dict[str, Any], at: str) -> ToolResult:
    output = item.get("output")
    if not isinstance(output, str):
        parts = parts_of(output, role="user", place=f"{at}.output")
        if not all(isinstance(part, InputText) for part in parts):
            raise InvalidRequestError.of(f"{at}.output", "may have text alone")
        output = "".join(part.text for part in parts if isinstance(part, InputText))
    return ToolResult(call_id=_text(item, "call_id", at), output=output)


def parts_of(content: object, *, role: Role, place: str) -> tuple[ContentPart, ...]:
    """The parts of a message.

    Raises:
        InvalidRequestError: they are malformed, or of a kind that is not served here.
    """
    if isinstance(content, str):
        content = [{"type": "output_text" if role == "assistant" else "input_text", "text": content}]
    if not isinstance(content, list) or not content:
        raise InvalidRequestError.of(place, "must be a text, or a list of parts")
    return tuple(_part(part, role, f"{place}[{number}]") for number, part in enumerate(content))


def _part(part: object, role: Role, at: str) -> ContentPart:
    if not isinstance(part, dict):
        raise InvalidRequestError.of(at, "must be an object")
    match part.get("type"):
        case "input_text" | "output_text" | "text":
            text = _text(part, "text", at)
            return OutputText(text) if role == "assistant" else InputText(text)
        case "refusal" if role == "assistant":
            return Refusal(_text(part, "refusal", at))
    raise InvalidRequestError.of(f"{at}.type", "is no part that is served here")


def _text(item: dict[str, Any], name: str, at: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise InvalidRequestError.of(f"{at}.{name}", "must be a string")
    return value
