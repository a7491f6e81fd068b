"""What a response of the Responses API says: its output, and the events that tell whole parts of it."""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from textllm_adapters.openai.decoding import decoded
from textllm_adapters.openai.functions import calls_in
from textllm_adapters.openai.http import too_much
from textllm_adapters.openai.reasoning import thought_before
from textllm_adapters.openai.sse import MAX_EVENT_BYTES
from textllm_core.records.hosted import ITEMS
from textllm_core.records.messages import TextDelta
from textllm_core.records.tools import ToolCall

_ITEM: Final = b"response.output_item.done"
_PART: Final = b"response.content_part.done"
# They say again what the deltas said; or they alone say it.
WHOLE: Final = frozenset({_ITEM, _PART, b"response.output_text.done", b"response.refusal.done"})
_CUT: Final = ("incomplete", "failed", "cancelled")


class _Done(Struct):
    text: object = None
    refusal: object = None
    item: object = None
    part: object = None


_done: Final = msgspec.json.Decoder(_Done)


class Whole:
    """Events that tell of whole items, or whole texts, unread: mostly nobody needs them."""

    def __init__(self) -> None:
        self._events: list[tuple[bytes, bytes]] = []
        self._size = 0

    def __bool__(self) -> bool:
        return bool(self._events)

    def add(self, name: bytes, data: bytes) -> None:
        """Keep an event whose name is in `WHOLE`.

        Raises:
            ProviderError: they have no end.
        """
        self._events.append((name, data))
        self._size += len(data)
        if self._size > MAX_EVENT_BYTES:
            raise too_much()

    def told(self) -> tuple[str, str]:
        """The text of a reply, as `words_of_output` has it, out of them."""
        told = [(name, decoded(_done, data)) for name, data in self._events]
        text, refusal = words_of_output([done.item for name, done in told if name == _ITEM])
        if not text:
            whole = (done for name, done in told if name not in (_ITEM, _PART))
            parts = [
                {"type": "refusal", "refusal": done.refusal} if done.refusal else {"text": done.text} for done in whole
            ]
            text, refusal = words_of_output([{"content": parts}])
        if not text:
            text, refusal = words_of_output([{"content": [done.part for _, done in told]}])
        return text, refusal

    def items(self) -> list[object]:
        """The items that are told whole."""
        return [decoded(_done, data).item for name, data in self._events if name == _ITEM]


def words_of_response(output: object, output_text: object) -> tuple[str, str]:
    """As `words_of_output`; some say nothing there, and all of the text in a field of its own, as SDKs show it."""
    text, refusal = words_of_output(output)
    if not text and isinstance(output_text, str):
        text = output_text
    return text, refusal


def words_of_output(output: object) -> tuple[str, str]:
    """The text of all messages in the output, and its end from where the model refuses on, if it does.

    Reasoning comes before them.
    """
    text, answered = "", None
    for item in output if isinstance(output, list) else ():
        is_message = isinstance(item, dict) and item.get("type") in ("message", None)
        content = item.get("content") if is_message else None
        for part in content if isinstance(content, list) else [content]:
            match part:
                case {"type": "refusal", "refusal": str(words)}:
                    answered = len(text) if answered is None else answered
                    text += words
                case str(words):  # as some servers have it
                    text += words
                case {"text": str(words), **more} if more.get("type") in ("output_text", "text", None):
                    text += words
    return text, "" if answered is None else text[answered:]


def rest_of(text: str, heard: int, answered: int | None) -> Iterator[TextDelta]:
    """What of the text was not heard.

    Args:
        heard: so many characters were; answered: from so many on the model refuses; None: it does not.
    """
    ends = len(text) if answered is None else max(heard, answered)
    for piece, is_refusal in ((text[heard:ends], False), (text[ends:], True)):
        if piece:
            yield TextDelta(piece, is_refusal)


def is_cut(output: object) -> bool:
    """A message or a call of the output is no whole one, whatever is said of the response."""
    items = [item for item in output if isinstance(item, dict)] if isinstance(output, list) else []
    return any(item.get("status") in _CUT and item.get("type") not in ITEMS for item in items)


def calls_of(output: object, whole: Whole, by: str) -> Sequence[ToolCall]:
    """The calls of a reply, with what was thought before them; some say nothing of it at the end, or only there."""
    calls = thought_before(output, calls_in(output), by)
    if not calls or not any(call.reasoning for call in calls):
        items = whole.items()
        calls = thought_before(items, calls or calls_in(items), by)
    return calls
