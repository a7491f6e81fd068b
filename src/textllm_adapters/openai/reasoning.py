"""What a model thinks before it asks for a function: kept with the call, for the provider and model that made it.

OpenAI's reasoning models think anew, and some servers refuse the call, where its result comes without that.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct
from msgspec.structs import replace

from textllm_adapters.openai.decoding import decoded, object_in
from textllm_core.records.hosted import APPROVAL_REQUEST, ITEMS
from textllm_core.records.messages import Message
from textllm_core.records.parts import OutputText, Refusal
from textllm_core.records.thoughts import Reasoning, Thought
from textllm_core.records.tools import ToolCall
from textllm_core.texts import well_formed

ENCRYPTED: Final = "reasoning.encrypted_content"
_MOST: Final = 262_144  # characters of one reply: OpenAI's are some thousand, of the longest thoughts 100,000
_ITEM_FIELDS: Final = ("id", "type", "summary", "content", "encrypted_content")
_OF_TOOLS: Final = ITEMS - {APPROVAL_REQUEST}  # which would need its answer
_SAID: Final[dict[str, object]] = {"type": "message"}  # where the text of the reply stands among what was thought
# By the names of DeepSeek, Kimi and llama.cpp; of vLLM, Groq and Ollama.
_TEXTS: Final = ("reasoning_content", "reasoning")
_DETAILS: Final = "reasoning_details"  # of OpenRouter and MiniMax; it says all that the others say, and its signatures
_PIECES: Final = ("text", "summary", "data")  # of a detail: they come bit by bit
_CUMULATIVE: Final = "MiniMax"  # each of its pieces begins with those before it


def made_by(base_url: str, model: str | None = None) -> str:
    """What stands for the server at an address, and for one of its models; the first is how all the others begin."""
    return _server(base_url) if model is None else f"{_server(base_url)}{model}/"


@lru_cache
def _server(base_url: str) -> str:
    return f"{sha256(base_url.encode(errors='replace')).hexdigest()[:16]}/"


def _known(part: ToolCall | OutputText | Refusal, by: str | None) -> Mapping[str, Any] | None:
    """What was thought before the part, for `by`; None where there is nothing, or nothing of theirs."""
    said = part.reasoning
    if said is UNSET or by is None or len(said.content) > _MOST:
        return None
    # What nobody knows is tried with a model, which can be asked again without it; no provider is to keep it.
    is_theirs = said.made_by.startswith(by) if said.made_by else by.count("/") > 1
    if not is_theirs:
        return None
    return object_in(said.content)


def _kept(content: Mapping[str, object], by: str) -> Reasoning | None:
    """The same, to be kept; None where it is too much."""
    written = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return Reasoning(made_by=by, content=well_formed(written)) if len(written) <= _MOST else None


# The Responses API


class _Words(Struct):
    delta: object = None
    text: object = None
    summary_index: object = None
    item: object = None


_words: Final = msgspec.json.Decoder(_Words)


def sums_up(name: bytes) -> bool:
    """Whether an event is of a summary: its words are none that the model has written, and nobody pays for them."""
    return b"reasoning_summary" in name


class ThoughtInWords:
    """What events tell of what a model thinks: in pieces, as most have it, or whole where no pieces came, as LM Studio
    has it, and servers that tell of items alone."""

    def __init__(self) -> None:
        self._in_pieces = self._in_texts = False

    def told(self, name: bytes, data: bytes) -> str:
        """The words of an event about it, or about a call that it writes."""
        told = decoded(_words, data)
        if isinstance(told.delta, str):
            self._in_pieces = self._in_pieces or b"reasoning" in name
            return told.delta
        if name == b"response.reasoning_summary_part.added":
            return "\n\n" if told.summary_index else ""  # between the parts
        if self._in_pieces or not (name.endswith(b"text.done") and isinstance(told.text, str)):
            return ""
        self._in_texts = True
        return told.text

    def told_whole(self, name: bytes, data: bytes) -> str:
        """The words of an item that has come whole."""
        if self._in_pieces or self._in_texts or name != b"response.output_item.done" or b"reasoning" not in data:
            return ""
        item = decoded(_words, data).item
        if not isinstance(item, dict) or item.get("type") != "reasoning":
            return ""
        parts = next(
            (said for said in (item.get("summary"), item.get("content")) if isinstance(said, list) and said), ()
        )
        texts = [part.get("text") for part in parts if isinstance(part, dict)]
        return "\n\n".join(text for text in texts if isinstance(text, str))


def thought_before(output: object, calls: Sequence[ToolCall], by: str) -> list[ToolCall]:
    """The calls of a response's output, each with the reasoning items that stand before it."""
    before: list[Mapping[str, object]] = []
    kept: dict[str, Reasoning] = {}
    for item in output if isinstance(output, list) else ():
        match item:
            case {"type": "reasoning"} if (thought := _item(item)) is not None:
                before.append(thought)
            case {"type": "message"} if before:
                before.append(_SAID)
            case {"type": str(kind)} if before and kind in _OF_TOOLS:  # what a tool did is a part of what it thought
                before.append(item)
            case {"type": "function_call"} if before:
                reasoning, call_id = _kept({"before": before, "id": item.get("id")}, by), item.get("call_id")
                if reasoning is not None and isinstance(call_id, str):
                    kept[call_id] = reasoning
                before = []
    return [replace(call, reasoning=kept[call.call_id]) if call.call_id in kept else call for call in calls]


def thought_before_text(output: object, by: str) -> list[Thought]:
    """The encrypted reasoning items that stand before the message of a response's output, if there are any."""
    before: list[Mapping[str, object]] = []
    for item in output if isinstance(output, list) else ():
        match item:
            case {"type": "reasoning"} if (thought := _item(item)) is not None:
                before.append(thought)
            case {"type": str(kind)} if before and kind in _OF_TOOLS:  # as before a call
                before.append(item)
            case {"type": "message"}:
                break
    if not any(item.get("encrypted_content") for item in before):
        return []
    reasoning = _kept({"before": before}, by)
    return [] if reasoning is None else [Thought(reasoning)]


def _item(item: Mapping[str, object]) -> dict[str, object] | None:
    """A reasoning item as it is sent back; None where nobody can make anything of it."""
    if not (isinstance(item.get("encrypted_content"), str) and item["encrypted_content"]) and not item.get("content"):
        return None
    kept: dict[str, object] = {"summary": []}
    for name in _ITEM_FIELDS:
        match item.get(name):
            case str(text):
                kept[name] = text
            case list(parts):
                kept[name] = [_flat(part) for part in parts if isinstance(part, dict)]
    return kept


def _flat(part: Mapping[str, Any]) -> dict[str, Any]:
    """A part without what no part has: of an import, or of a client, it may be anything."""
    return {name: value for name, value in part.items() if not isinstance(value, dict | list)}


def items_before(
    part: ToolCall | OutputText | Refusal, by: str | None
) -> tuple[list[dict[str, object]], dict[str, object]]:
    """What is sent before a part, with `SAID` where the text of its message stands, and what is sent with it."""
    known = _known(part, by)
    if known is None or not isinstance(given := known.get("before"), list):
        return [], {}
    items: list[dict[str, object]] = []
    for each in given:  # of an import it may be anything
        match each:
            case {"type": "message"}:
                items.append(_SAID)
            case {"type": "reasoning"} if (thought := _item(each)) is not None:
                items.append(thought)
            case {"type": str(kind)} if kind in _OF_TOOLS:
                items.append(each)
    return items, {"id": known["id"]} if items and isinstance(known.get("id"), str) else {}


def is_said(item: Mapping[str, object]) -> bool:
    """Whether the item only stands for the text of its message."""
    return item is _SAID


# The Chat Completions API


def beside_calls(message: Message, by: str | None, *, demanded: bool) -> dict[str, object]:
    """What goes beside the calls of a message.

    Args:
        demanded: the server takes no calls without `reasoning_content`, so that an empty one stands for none.
    """
    for call in message.tool_calls:
        known = _known(call, by) or {}
        found: dict[str, object] = {name: known[name] for name in _TEXTS if isinstance(known.get(name), str)}
        if isinstance(details := known.get(_DETAILS), list):
            found[_DETAILS] = [_flat(detail) for detail in details if isinstance(detail, dict)]
        if found:
            return found
    return {"reasoning_content": ""} if demanded else {}


class ReasoningInPieces:
    """What a chat completion tells of its reasoning."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._details: list[dict[str, Any]] = []
        self._size = 0

    def __bool__(self) -> bool:
        return self._size > 0

    def take(self, texts: Mapping[str, object], details: object) -> None:
        """Hear a delta: its texts, by the names in the API, and its details."""
        for name, text in texts.items():
            if isinstance(text, str) and text and self._fits(len(text)):
                self._texts.setdefault(name, []).append(text)
        for detail in details if isinstance(details, list) else ():
            if isinstance(detail, dict) and self._fits(len(str(detail))):
                self._take(detail)

    def _fits(self, size: int) -> bool:
        self._size += size
        return self._size <= 2 * _MOST  # the same may come under two names

    def _take(self, detail: dict[str, Any]) -> None:
        last = self._details[-1] if self._details else {}
        if not last or any(last.get(name) != detail.get(name) for name in ("type", "index")):
            self._details.append(detail)
            return
        grows = str(detail.get("format") or "").startswith(_CUMULATIVE)
        for name, value in detail.items():
            known = last.get(name)
            if name in _PIECES and isinstance(known, str) and isinstance(value, str):
                last[name] = value if grows and value.startswith(known) else known + value
            elif value is not None:
                last[name] = value

    def with_calls(self, calls: Sequence[ToolCall], by: str) -> Sequence[ToolCall]:
        """The calls, with what was thought before the first of them."""
        if not calls or not self or self._size > 2 * _MOST:
            return calls
        content: dict[str, object] = (
            {_DETAILS: self._details}
            if self._details
            else {name: "".join(pieces) for name, pieces in self._texts.items()}
        )
        reasoning = _kept(content, by)
        return calls if reasoning is None else [replace(calls[0], reasoning=reasoning), *calls[1:]]


def has_any(body: Mapping[str, object]) -> bool:
    """Whether the body of a request brings reasoning back, over either API."""
    items, messages = body.get("input"), body.get("messages")
    return _any(items, "type", ["reasoning"]) or any(_any(messages, name, None) for name in (*_TEXTS, _DETAILS))


def _any(entries: object, name: str, values: Iterable[object] | None) -> bool:
    listed = entries if isinstance(entries, list) else ()
    return any(name in each and (values is None or each[name] in values) for each in listed if isinstance(each, dict))
