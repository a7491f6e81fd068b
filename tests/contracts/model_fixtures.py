"""The models under test, each with a provider that can be told what to say, and records to talk to them with."""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.servers.openai import OpenAIStandIn
from tests.servers.openai_script import Fault
from tests.servers.openai_script import Reply as ProviderReply

from textllm_adapters.memory.llm import ScriptedLLM, ScriptedReply
from textllm_adapters.memory.transcript import MemoryTranscript
from textllm_adapters.openai.chat_completions import ChatCompletionsLLM
from textllm_adapters.openai.client import open_client
from textllm_adapters.openai.conversations import OpenAITranscript
from textllm_adapters.openai.http import Retries
from textllm_adapters.openai.responses import ResponsesLLM
from textllm_core.errors import ContextTooLongError, ProviderError, ProviderUnavailableError
from textllm_core.ports.llm import LLM
from textllm_core.ports.transcript import Transcript
from textllm_core.records.messages import InputText, Message, OutputText, TextDelta
from textllm_core.records.model import ModelEnded, ModelEvent, ModelRequest, ModelStarted

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
QUICK = Retries(first_wait_s=0.01, first_busy_wait_s=0.01)

Opener = Callable[[], None]


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


@dataclass(frozen=True, slots=True)
class ModelUnderTest:
    """A model, the transcript it reads from, and ways to script its next reply."""

    llm: LLM
    transcript: Transcript
    say: Callable[..., None]
    refuse: Callable[[str], None]
    stop_early: Callable[[str], None]
    filter_after: Callable[[str], None]
    fail: Callable[[], None]
    break_after: Callable[[int, Sequence[str]], None]
    be_overloaded: Callable[[], None]
    find_it_too_long: Callable[[], None]
    wait_after_first_delta: Callable[[], Opener]


@asynccontextmanager
async def scripted() -> AsyncIterator[ModelUnderTest]:
    transcript = MemoryTranscript()
    llm = ScriptedLLM(transcript=transcript)

    def wait() -> Opener:
        gate = asyncio.Event()
        llm.script(ScriptedReply(gate=gate))
        return gate.set

    yield ModelUnderTest(
        llm=llm,
        transcript=transcript,
        say=lambda *deltas: llm.script(ScriptedReply(deltas=deltas)),
        refuse=lambda text: llm.script(ScriptedReply(text=text, finish_reason="refusal")),
        stop_early=lambda text: llm.script(ScriptedReply(text=text, status="incomplete", finish_reason="length")),
        filter_after=lambda text: llm.script(ScriptedReply(text=text, status="incomplete", content_filtered=True)),
        fail=lambda: llm.script(ScriptedReply(text="so far", error=ProviderError("broken"), after=1)),
        break_after=lambda n, deltas: llm.script(
            ScriptedReply(deltas=tuple(deltas), error=ProviderError("broken"), after=n)
        ),
        be_overloaded=lambda: llm.script(ScriptedReply(error=ProviderUnavailableError("busy", may_have_run=False))),
        find_it_too_long=lambda: llm.script(ScriptedReply(error=ContextTooLongError())),
        wait_after_first_delta=wait,
    )


def _scripting(provider: OpenAIStandIn, llm: LLM, transcript: Transcript) -> ModelUnderTest:
    def wait() -> Opener:
        gate = threading.Event()
        provider.script(ProviderReply(gate=gate))
        return gate.set

    return ModelUnderTest(
        llm=llm,
        transcript=transcript,
        say=lambda *deltas: provider.script(ProviderReply(deltas=deltas)),
        refuse=lambda text: provider.script(ProviderReply(refusal=text)),
        stop_early=lambda text: provider.script(ProviderReply(text=text, end="incomplete:max_output_tokens")),
        filter_after=lambda text: provider.script(ProviderReply(text=text, end="incomplete:content_filter")),
        fail=lambda: provider.script(ProviderReply(text="so far", end="error_nested:server_error", end_after=1)),
        break_after=lambda n, deltas: provider.script(ProviderReply(deltas=tuple(deltas), end="cut", end_after=n)),
        be_overloaded=lambda: provider.script(Fault.http(503, retry_after_s=20)),
        find_it_too_long=lambda: provider.script(Fault.http(400, "context_length_exceeded", param="input")),
        wait_after_first_delta=wait,
    )


@asynccontextmanager
async def responses() -> AsyncIterator[ModelUnderTest]:
    with OpenAIStandIn() as provider:
        async with open_client("sk-test", provider.base_url) as client:
            yield _scripting(provider, ResponsesLLM(client, QUICK), OpenAITranscript(client, QUICK))


@asynccontextmanager
async def chat_completions() -> AsyncIterator[ModelUnderTest]:
    with OpenAIStandIn() as provider:
        async with open_client("sk-test", provider.base_url) as client:
            yield _scripting(provider, ChatCompletionsLLM(client, QUICK), OpenAITranscript(client, QUICK))


Builder = Callable[[], AbstractAsyncContextManager[ModelUnderTest]]

# Those in STATEFUL also continue a conversation that the provider keeps.
STATEFUL: dict[str, Builder] = {"scripted": scripted, "responses": responses}
MODELS: dict[str, Builder] = STATEFUL | {"chat_completions": chat_completions}
