"""Items of OpenAI's API for messages of ours: each is one item, or several where it has calls or their results."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from msgspec import UNSET, Struct, UnsetType

from textllm_core.file_names import file_id_of
from textllm_core.list_messages import ListedFile, ListedMessage
from textllm_core.records.hosted import Approval, HostedItem, short_digest
from textllm_core.records.parts import InputImage, InputLink, InputText, ShownRefusal, ShownText
from textllm_core.records.tools import ShownCall, ToolResult
from textllm_http.openai_door.hosted_items import APPROVAL_PREFIX, PREFIXES, item_of_approval, item_of_hosted

_OF_PART: Final = re.compile(rf"(?:fc|fco|{'|'.join(PREFIXES)})_(?P<call>[0-9a-f]{{12}})_(?P<message>.+)")

Item = dict[str, Any]


class ItemId(Struct, frozen=True):
    """Of which message an item is; `call`: stands for the id of the call, where it is one, or the result of one."""

    message: str
    call: str | None = None

    @classmethod
    def of(cls, item_id: str) -> "ItemId":
        found = _OF_PART.fullmatch(item_id)
        return cls(item_id) if found is None else cls(found["message"], found["call"])


def id_of_call(message_id: str, call_id: str) -> str:
    """The id of the item that a call of a function is: a part of a message has none of its own."""
    return f"fc_{short_digest(call_id)}_{message_id}"


def items_of(message: ListedMessage) -> list[Item]:
    """The items that a message is, in their order."""
    items: list[Item] = []
    for part in message.content:
        add_item(items, message.id, message.role, part, status=message.status)
    return items


def add_item(items: list[Item], message_id: str, role: str, part: object, *, status: str) -> None:
    """Add an item for a part of a message, or the part to the item of what was said.

    Args:
        items: those of its other parts; status: of what was said.
    """
    match part:
        case ShownCall():
            items.append(_call_item(message_id, part))
        case ToolResult():
            items.append(_result_item(message_id, part))
        case HostedItem():
            items.append(hosted_item(message_id, part, number=len(items)))
        case Approval():
            digest = short_digest(part.approval_request_id)
            items.append(item_of_approval(part, f"{APPROVAL_PREFIX}_{digest}_{message_id}"))
        case _:
            said = next((item for item in items if item["type"] == "message"), None)
            if said is None:
                said = message_item(message_id, role, [], status=status)
                items.append(said)
            said["content"].append(_part(role, part))


def places_of(message: ListedMessage, item: ItemId) -> Sequence[int]:
    """Which parts of its message an item is; none: the message has no such item."""
    return [place for place, part in enumerate(message.content) if _call_of(part, place) == item.call]


def _call_of(part: object, place: int) -> str | None:
    """What stands for the part in the id of its item; None: nothing, its item is its message."""
    match part:
        case ShownCall() | ToolResult():
            return short_digest(part.call_id)
        case HostedItem():
            return short_digest(part.id or str(place))
        case Approval():
            return short_digest(part.approval_request_id)
    return None


def message_item(message_id: str, role: str, content: list[Any], *, status: str) -> Item:
    """What was said."""
    return {"id": message_id, "type": "message", "status": status, "role": role, "content": content}


def _call_item(message_id: str, call: ShownCall) -> Item:
    told = {"call_id": call.call_id, "name": call.name, "arguments": call.arguments}
    return {"id": id_of_call(message_id, call.call_id), "type": "function_call", "status": "completed", **told}


def hosted_item(message_id: str, part: HostedItem, *, number: int) -> Item:
    """What a tool of the provider's did; `number`: of the parts before it."""
    return item_of_hosted(part, part.id_in(message_id, number=number))


def text_part(text: str, annotations: Sequence[Mapping[str, object]] | UnsetType = UNSET) -> Item:
    """What the model has said."""
    return {"type": "output_text", "text": text, "annotations": list(annotations or ()), "logprobs": []}


def _result_item(message_id: str, part: ToolResult) -> Item:
    told = {"call_id": part.call_id, "output": part.output}
    item_id = f"fco_{short_digest(part.call_id)}_{message_id}"
    return {"id": item_id, "type": "function_call_output", "status": "completed", **told}


def _part(role: str, part: object) -> Item:
    match part:
        case ShownText(text, annotations) if role == "assistant":
            return text_part(text, annotations)
        case ShownRefusal(refusal):
            return {"type": "refusal", "refusal": refusal}
        case InputText(text) | ShownText(text):
            return {"type": "input_text", "text": text}
        case InputLink(kind="image"):
            return {"type": "input_image", "detail": part.detail, "image_url": part.url}
        case InputLink():
            return {"type": "input_file", "file_url": part.url}
        case InputImage():
            return {"type": "input_image", "detail": part.detail, "file_id": file_id_of(part.key)}
        case ListedFile():
            return {"type": "input_file", "file_id": file_id_of(part.key), "filename": part.name}
    raise TypeError(f"there is no item for {type(part).__name__}")


def listed(items: Sequence[Item], *, has_more: bool) -> dict[str, Any]:
    """A page of items."""
    ids = [item["id"] for item in items] or [""]
    return {"object": "list", "data": items, "first_id": ids[0], "last_id": ids[-1], "has_more": has_more}


def kept_images(items: Sequence[Item]) -> Iterator[Item]:
    """The parts of items that are images of ours."""
    for item in items:
        for part in item.get("content", ()):
            if part["type"] == "input_image" and "file_id" in part:
                yield part
