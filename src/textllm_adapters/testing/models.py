"""A model under test: what its provider is told to say, what was heard of it, and records to talk to it with."""

import re
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from msgspec import Struct

from textllm_core.ports.llm import LLM
from textllm_core.ports.transcript import Transcript
from textllm_core.records.messages import Message, TextDelta
from textllm_core.records.model import ModelEnded, ModelEvent, ModelRequest, ModelStarted
from textllm_core.records.parts import InputText, OutputText

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)

EndOfReply = Literal["stop", "length", "refusal", "content_filter", "failure", "cut", "overloaded", "too_long"]


class Say(Struct, frozen=True):
    """What the provider does with the next call. A call that nothing was said for gets an `echo`.

    Args:
        deltas: the reply, piece by piece; None is the `echo`.
        end: how it ends. "stop", "length", "refusal" (the deltas are its words) and "content_filter" are ends of a
            reply; "failure" is one that the provider reports; "cut" is a connection that is lost. "overloaded" (try
            again later) and "too_long" (more input than the model takes) refuse the call before anything ran.
        after: how many deltas come before "failure" or "cut".
    """

    deltas: tuple[str, ...] | None = None
    end: EndOfReply = "stop"
    after: int = 0


@dataclass(frozen=True, slots=True)
class ModelUnderTest:
    """A model whose provider can be told what to say: a stand-in for the provider, in this process or beside it.

    The stand-in counts a token for some bytes of input and output, and cuts what is longer than the tokens allowed.

    Args:
        say: what the provider does with the next call.
        hold: the next reply waits after its first delta, until what is returned is called.
    """

    llm: LLM
    say: Callable[[Say], None]
    hold: Callable[[], Callable[[], None]]


@dataclass(frozen=True, slots=True)
class ConversingModel(ModelUnderTest):
    """A model whose provider keeps conversations, which `transcript` makes and reads."""

    transcript: Transcript


def echo(texts: Sequence[str], seen: str = "") -> tuple[str, ...]:
    """What the stand-in answers where it was told nothing: how many texts came before the last, and the last of them.

    Args:
        texts: of the messages, oldest first.
        seen: what `stored_files.seen` says, where images or files came along.
    Returns:
        The deltas: `("[2] ", "You ", "said: ", "Hello")`.
    """
    return tuple(re.findall(r"\S+\s*|\s+", f"[{len(texts) - 1}] You said: {texts[-1]}{seen and ' '}{seen}"))


def user(text: str) -> Message:
    return Message(id="msg_1", role="user", content=(InputText(text),), created_at=NOON)


def assistant(text: str) -> Message:
    return Message(id="msg_2", role="assistant", content=(OutputText(text),), created_at=NOON)


def request(*messages: Message | str, max_output_tokens: int = 200, **more: Any) -> ModelRequest:
    return ModelRequest(
        model="gpt-4o",
        messages=tuple(user(message) if isinstance(message, str) else message for message in messages),
        max_output_tokens=max_output_tokens,
        **{"instructions": None, "safety_identifier": "5afe", "cache_key": "conv_1"} | more,
    )


@dataclass(frozen=True, slots=True)
class Heard:
    """All events of a reply, and what it raised in place of its end."""

    events: Sequence[ModelEvent]
    error: Exception | None

    @property
    def started(self) -> ModelStarted:
        first = self.events[0]
        assert isinstance(first, ModelStarted)
        return first

    @property
    def deltas(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, TextDelta)]

    @property
    def ended(self) -> ModelEnded:
        assert self.error is None
        last = self.events[-1]
        assert isinstance(last, ModelEnded)
        return last


async def hear(stream: AsyncGenerator[ModelEvent, None]) -> Heard:
    """Listen to the very end, whatever it is."""
    events: list[ModelEvent] = []
    try:
        async for event in stream:
            events.append(event)  # noqa: PERF401 - what came before an error counts too
    except Exception as error:  # noqa: BLE001 - handed to the test
        return Heard(events, error)
    return Heard(events, None)


async def first_delta(stream: AsyncGenerator[ModelEvent, None]) -> str:
    """Read up to the first piece of text; the reply is then under way."""
    async for event in stream:
        if isinstance(event, TextDelta):
            return event.text
    raise AssertionError("the reply had no text")
