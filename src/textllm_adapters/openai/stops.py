"""Texts that end a reply, for an API that has no such parameter: what the model says beyond them is not told."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from msgspec.structs import replace

from textllm_core.records.messages import TextDelta
from textllm_core.records.model import ModelEnded, ModelEvent, ModelThinking


async def stopped(events: AsyncGenerator[ModelEvent, None], stops: Sequence[str]) -> AsyncGenerator[ModelEvent, None]:
    """The events of a reply that ends where the first of the texts would be said.

    The call is read to its end all the same: only there the provider says what it cost.
    """
    said = held = ""  # held: it may be the beginning of one of the texts
    is_over = False
    async with aclosing(events):
        async for event in events:
            if isinstance(event, TextDelta):
                if is_over:
                    yield ModelThinking(len(event.text))
                    continue
                held += event.text
                place = _first(held, stops)
                is_over = place is not None
                told = held[:place] if place is not None else held[: len(held) - _begun(held, stops)]
                beyond, held = len(held) - len(told), held[len(told) :]
                if told:
                    said += told
                    yield replace(event, text=told)
                if is_over:
                    yield ModelThinking(beyond)
            elif isinstance(event, ModelEnded) and is_over:
                is_whole = event.status in ("completed", "incomplete")
                ended = replace(event, text=said, refusal="", tool_calls=(), content_filtered=False)
                yield replace(ended, status="completed", finish_reason="stop") if is_whole else ended
            else:
                if isinstance(event, ModelEnded) and held:
                    yield TextDelta(held, bool(event.refusal))
                yield event


def _first(text: str, stops: Sequence[str]) -> int | None:
    """Where the first of them stands in the text."""
    return min((place for stop in stops if (place := text.find(stop)) >= 0), default=None)


def _begun(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of the text may be the beginning of one of them."""
    longest = min(len(text), max(map(len, stops)) - 1)
    return next((n for n in range(longest, 0, -1) if any(stop.startswith(text[-n:]) for stop in stops)), 0)
