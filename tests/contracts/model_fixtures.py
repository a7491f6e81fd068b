"""The models under test, each with a provider that can be told what to say."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

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
from textllm_adapters.testing.models import ConversingModel, ModelUnderTest, Say
from textllm_core.errors import ContextTooLongError, ProviderError, ProviderUnavailableError

QUICK = Retries(first_wait_s=0.01, first_busy_wait_s=0.01)


@asynccontextmanager
async def scripted() -> AsyncIterator[ConversingModel]:
    transcript = MemoryTranscript()
    llm = ScriptedLLM(transcript=transcript)

    def hold() -> Callable[[], None]:
        gate = asyncio.Event()
        llm.script(ScriptedReply(gate=gate))
        return gate.set

    yield ConversingModel(llm, lambda say: llm.script(_scripted_reply(say)), hold, transcript)


def _scripted_reply(say: Say) -> ScriptedReply:
    match say.end:
        case "stop" | "refusal":
            return ScriptedReply(deltas=say.deltas, finish_reason=say.end)
        case "length":
            return ScriptedReply(deltas=say.deltas, status="incomplete", finish_reason="length")
        case "content_filter":
            return ScriptedReply(deltas=say.deltas, status="incomplete", content_filtered=True)
        case "failure" | "cut":
            return ScriptedReply(deltas=say.deltas, error=ProviderError("broken"), after=say.after)
        case "overloaded":
            return ScriptedReply(error=ProviderUnavailableError("busy", may_have_run=False))
        case "too_long":
            return ScriptedReply(error=ContextTooLongError())


ENDS = {
    "stop": "completed",
    "length": "incomplete:max_output_tokens",
    "content_filter": "incomplete:content_filter",
    "failure": "error_nested:server_error",
    "cut": "cut",
}


def _provider_reply(say: Say) -> ProviderReply | Fault:
    match say.end:
        case "overloaded":
            return Fault.http(503, retry_after_s=20)
        case "too_long":
            return Fault.http(400, "context_length_exceeded", param="input")
        case "refusal":
            return ProviderReply(refusal="".join(say.deltas or ()))
        case "failure" | "cut":
            return ProviderReply(deltas=say.deltas, end=ENDS[say.end], end_after=say.after)
        case end:
            return ProviderReply(deltas=say.deltas, end=ENDS[end])


def _holding(provider: OpenAIStandIn) -> Callable[[], None]:
    gate = threading.Event()
    provider.script(ProviderReply(gate=gate))
    return gate.set


@asynccontextmanager
async def responses() -> AsyncIterator[ConversingModel]:
    with OpenAIStandIn() as provider:
        async with open_client("sk-test", provider.base_url) as client:
            yield ConversingModel(
                ResponsesLLM(client, QUICK),
                lambda say: provider.script(_provider_reply(say)),
                lambda: _holding(provider),
                OpenAITranscript(client, QUICK),
            )


@asynccontextmanager
async def chat_completions() -> AsyncIterator[ModelUnderTest]:
    with OpenAIStandIn() as provider:
        async with open_client("sk-test", provider.base_url) as client:
            yield ModelUnderTest(
                ChatCompletionsLLM(client, QUICK),
                lambda say: provider.script(_provider_reply(say)),
                lambda: _holding(provider),
            )


# Those in CONVERSING also continue a conversation that the provider keeps.
CONVERSING: dict[str, Callable[[], AbstractAsyncContextManager[ConversingModel]]] = {
    "scripted": scripted,
    "responses": responses,
}
MODELS: dict[str, Callable[[], AbstractAsyncContextManager[ModelUnderTest]]] = {
    **CONVERSING,
    "chat_completions": chat_completions,
}
