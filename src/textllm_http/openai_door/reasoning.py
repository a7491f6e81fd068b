"""What a model thought before it said something, or asked for a call: items of a response, which may come back."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from textllm_core.records.parts import ContentPart, OutputText, Refusal
from textllm_core.records.thoughts import Reasoning
from textllm_core.records.tools import ToolCall
from textllm_core.wire import to_json
from textllm_http.openai_door.items import Item, ItemId, add_item, id_of_call

ENCRYPTED: Final = "reasoning.encrypted_content"
_OURS: Final = "textllm."  # what is behind it says whose it is, so that nobody else is sent it
_SAID: Final = {"type": "message"}
_BARE: Final = ("id", "type", "summary")  # of an item that tells nothing
_REASONING: Final = msgspec.json.Decoder(Reasoning)


def reply_items(
    message_id: str, parts: Sequence[ContentPart], *, status: str, returns: bool, sums_up: bool
) -> list[Item]:
    """The items that the parts of a reply are, each behind what was thought before it, as far as that is told.

    Args:
        status: of what is said.
        returns: reasoning is told in the form in which it comes back, too.
        sums_up: its words are told as a summary, where clients look for them that have asked for one.
    """
    items: list[Item] = []
    for part in parts:
        if isinstance(part, OutputText | Refusal | ToolCall) and part.reasoning:
            is_first = not any(item["type"] in ("reasoning", "message") for item in items)
            call_id = part.call_id if isinstance(part, ToolCall) and not is_first else None
            item = reasoning_item(message_id, part.reasoning, call_id=call_id, returns=returns, sums_up=sums_up)
            if item is not None:
                items.append(item)
        add_item(items, message_id, "assistant", part, status=status)
    return items


def reasoning_item(
    message_id: str, reasoning: Reasoning, *, call_id: str | None, returns: bool, sums_up: bool
) -> Item | None:
    """What was thought, as an item; None where nothing of it is told.

    Args:
        call_id: of the call that follows; None: the reply begins with it, whatever follows.
        returns, sums_up: as `reply_items` has them.
    """
    named = f"rs_{message_id}" if call_id is None else id_of_call(message_id, call_id).replace("fc_", "rs_", 1)
    item: Item = {"id": named, "type": "reasoning", "summary": []}
    if reasoning.words:
        item["summary" if sums_up else "content"] = [words_part(reasoning.words, sums_up=sums_up)]
    if returns and reasoning.content:
        kept = replace(reasoning, words=UNSET)
        item["encrypted_content"] = _OURS + urlsafe_b64encode(to_json(kept)).decode()
    return item if item["summary"] or len(item) > len(_BARE) else None


def words_part(words: str, *, sums_up: bool) -> Item:
    """What was thought, in words."""
    return {"type": "summary_text" if sums_up else "reasoning_text", "text": words}


def reasoning_before(items: Sequence[dict[str, Any]], follows: dict[str, Any]) -> Reasoning | UnsetType:
    """What was thought before a call, or before a message.

    Args:
        items: reasoning, and messages of the reply, which stand before it.
    """
    before: list[dict[str, Any]] = []
    for item in reversed(items):  # ours tells all that was thought until then
        content = item.get("encrypted_content")
        if isinstance(content, str) and content.startswith(_OURS):
            return _given_here(content)
    for item in items:
        content = item.get("encrypted_content")
        if item.get("type") != "reasoning":
            before.append(_SAID)
        elif content and isinstance(content, str):
            summary = item.get("summary")
            parts = summary if isinstance(summary, list) else []
            texts = [each.get("text") for each in parts if isinstance(each, dict)]
            told = [{"type": "summary_text", "text": text} for text in texts if isinstance(text, str)]
            known = {"id": item["id"]} if isinstance(item.get("id"), str) else {}
            before.append({"type": "reasoning", "summary": told, "encrypted_content": content} | known)
    if len(before) == before.count(_SAID):
        return UNSET
    item_id = follows.get("id")
    theirs = isinstance(item_id, str) and ItemId.of(item_id).call is None
    return Reasoning(made_by="", content=json.dumps({"before": before, "id": item_id if theirs else None}))


def _given_here(content: str) -> Reasoning | UnsetType:
    """What an item of ours has, as it went out.

    It is not signed, and names no container: OpenAI would go on in that, whoever's it is.
    """
    try:
        ours = _REASONING.decode(urlsafe_b64decode(content.removeprefix(_OURS)))
        known = msgspec.json.decode(ours.content) if ours.content else None
    except (ValueError, RecursionError):  # it is none that was given here
        return UNSET
    if isinstance(known, dict) and isinstance(before := known.get("before"), list):
        left = [item for item in before if isinstance(item, dict) and item.get("type") != "code_interpreter_call"]
        if len(left) < len(before):
            ours = replace(ours, content=to_json(known | {"before": left}).decode())
    return UNSET if "\0" in f"{ours.made_by}{ours.content}" else replace(ours, words=UNSET)
