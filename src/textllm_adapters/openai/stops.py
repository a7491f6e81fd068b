"""Ends of a reply that an API takes no parameter for: what the model says beyond them is not told.

The call is read to its end all the same: only there the provider says what it cost.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from msgspec.structs import replace

from textllm_core.records.hosted import HostedOutput
from textllm_core.records.messages import FinishReason, TextDelta
from textllm_core.records.model import EndStatus, ModelEnded, ModelEvent, ModelRequest, ModelThinking
from textllm_core.rules.budgets import MIN_OUTPUT_TOKENS


def ending_here(events: AsyncGenerator[ModelEvent, None], request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
    """The events of a reply that the Responses API makes, no longer than it should be."""
    if request.max_output_tokens < MIN_OUTPUT_TOKENS:
        events = shortened(events, request.max_output_tokens)
    stops = request.sampling and request.sampling.stop
    return stopped(events, stops) if stops else events


async def stopped(events: AsyncGenerator[ModelEvent, None], stops: Sequence[str]) -> AsyncGenerator[ModelEvent, None]:
    """The events of a reply that ends where the first of the texts would be said."""
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
                yield _cut(event, said, "completed", "stop")
            else:
                if isinstance(event, ModelEnded) and held:
                    yield TextDelta(held, bool(event.refusal))
                yield event


async def shortened(events: AsyncGenerator[ModelEvent, None], pieces: int) -> AsyncGenerator[ModelEvent, None]:
    """The events of a reply that ends after so many pieces, of which each has a token or more."""
    said, is_over = "", False
    async with aclosing(events):
        async for event in events:
            if isinstance(event, TextDelta):
                is_over = pieces == 0
                if is_over:
                    yield ModelThinking(len(event.text))
                    continue
                pieces -= 1
                said += event.text
                yield event
            elif isinstance(event, ModelEnded) and is_over:
                yield _cut(event, said, "incomplete", "length")
            else:
                yield event


def _cut(ended: ModelEnded, said: str, status: EndStatus, finish_reason: FinishReason) -> ModelEnded:
    """The end of a reply of which no more is told than what was said; one that failed has failed all the same."""
    is_whole = ended.status in ("completed", "incomplete")
    ended = replace(
        ended,
        text=said,
        refusal="",
        tool_calls=(),
        hosted=HostedOutput(before=ended.hosted.items),
        content_filtered=False,
    )
    return replace(ended, status=status, finish_reason=finish_reason) if is_whole else ended


def _first(text: str, stops: Sequence[str]) -> int | None:
    """Where the first of them stands in the text."""
    return min((place for stop in stops if (place := text.find(stop)) >= 0), default=None)


def _begun(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of the text may be the beginning of one of them."""
    longest = min(len(text), max(map(len, stops)) - 1)
    return next((n for n in range(longest, 0, -1) if any(stop.startswith(text[-n:]) for stop in stops)), 0)
