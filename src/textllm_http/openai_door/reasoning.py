"""What a model thought before it asked for a call: items of a response of which nothing is kept, that come back."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from textllm_core.records.parts import ContentPart
from textllm_core.records.tools import Reasoning, ToolCall
from textllm_core.wire import to_json
from textllm_http.openai_door.items import Item, ItemId, add_item, id_of_call

ENCRYPTED: Final = "reasoning.encrypted_content"
_OURS: Final = "textllm."  # what is behind it says whose it is, so that nobody else is sent it
_SAID: Final = {"type": "message"}
_REASONING: Final = msgspec.json.Decoder(Reasoning)


def reply_items(message_id: str, parts: Sequence[ContentPart], *, status: str) -> list[Item]:
    """The items that the parts of a reply are, each behind what was thought before it.

    Args:
        status: of what is said.
    """
    items: list[Item] = []
    for part in parts:
        if isinstance(part, ToolCall) and part.reasoning and _is_encrypted(part.reasoning):
            items.append(_reasoning_item(message_id, part.call_id, part.reasoning))
        add_item(items, message_id, "assistant", part, status=status)
    return items


def _reasoning_item(message_id: str, call_id: str, reasoning: Reasoning) -> Item:
    """What was thought before a call, as an item."""
    content = _OURS + urlsafe_b64encode(to_json(reasoning)).decode()
    item_id = id_of_call(message_id, call_id).replace("fc_", "rs_", 1)
    return {"id": item_id, "type": "reasoning", "summary": [], "encrypted_content": content}


def _is_encrypted(reasoning: Reasoning) -> bool:
    """Whether its provider has encrypted it: what a model says to itself in words is shown to nobody."""
    return reasoning.content.startswith('{"before":') and '"encrypted_content":' in reasoning.content


def reasoning_before(items: Sequence[dict[str, Any]], call: dict[str, Any]) -> Reasoning | UnsetType:
    """What was thought before a call.

    Args:
        items: reasoning, and messages of the reply, which stand before it.
    """
    before: list[dict[str, Any]] = []
    for item in items:
        content = item.get("encrypted_content")
        if item.get("type") != "reasoning":
            before.append(_SAID)
        elif isinstance(content, str) and content.startswith(_OURS):
            try:
                ours = _REASONING.decode(urlsafe_b64decode(content.removeprefix(_OURS)))
            except ValueError:  # it is none that was given here
                return UNSET
            return UNSET if "\0" in f"{ours.made_by}{ours.content}" else ours
        elif content and isinstance(content, str):
            summary = item.get("summary")
            parts = summary if isinstance(summary, list) else []
            texts = [each.get("text") for each in parts if isinstance(each, dict)]
            told = [{"type": "summary_text", "text": text} for text in texts if isinstance(text, str)]
            known = {"id": item["id"]} if isinstance(item.get("id"), str) else {}
            before.append({"type": "reasoning", "summary": told, "encrypted_content": content} | known)
    if len(before) == before.count(_SAID):
        return UNSET
    item_id = call.get("id")
    theirs = isinstance(item_id, str) and ItemId.of(item_id).call is None
    return Reasoning(made_by="", content=json.dumps({"before": before, "id": item_id if theirs else None}))
