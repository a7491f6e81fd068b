"""What a response of the Responses API says: its output, and the events that tell whole parts of it."""

from typing import Final

import msgspec
from msgspec import Struct

from textllm_adapters.openai.decoding import decoded
from textllm_adapters.openai.http import too_much
from textllm_adapters.openai.sse import MAX_EVENT_BYTES

_ITEM: Final = b"response.output_item.done"
_PART: Final = b"response.content_part.done"
# They say again what the deltas said; or they alone say it.
WHOLE: Final = frozenset({_ITEM, _PART, b"response.output_text.done", b"response.refusal.done"})


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

    def told(self) -> tuple[str, bool]:
        """The text of a reply, as `words_of_output` has it, out of them."""
        told = [(name, decoded(_done, data)) for name, data in self._events]
        text, refused = words_of_output([done.item for name, done in told if name == _ITEM])
        if not text:
            texts = [done.refusal or done.text for name, done in told if name not in (_ITEM, _PART)]
            text, refused = (
                "".join(each for each in texts if isinstance(each, str)),
                any(done.refusal for _, done in told),
            )
        if not text:
            text, refused = words_of_output([{"content": [done.part for _, done in told]}])
        return text, refused

    def items(self) -> list[object]:
        """The items that are told whole."""
        return [decoded(_done, data).item for name, data in self._events if name == _ITEM]


def words_of_output(output: object) -> tuple[str, bool]:
    """The text of all messages in the output, and whether any of it is a refusal. Reasoning comes before them."""
    text, refused = "", False
    for item in output if isinstance(output, list) else ():
        is_message = isinstance(item, dict) and item.get("type") in ("message", None)
        content = item.get("content") if is_message else None
        for part in content if isinstance(content, list) else [content]:
            match part:
                case {"type": "refusal", "refusal": str(words)}:
                    text, refused = text + words, True
                case str(words):  # as some servers have it
                    text += words
                case {"text": str(words), **more} if more.get("type") in ("output_text", "text", None):
                    text += words
    return text, refused
