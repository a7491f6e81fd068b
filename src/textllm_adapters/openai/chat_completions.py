"""The Chat Completions API, which nearly every compatible server speaks; the whole history goes with every call."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec import Struct
from openai import AsyncOpenAI

from textllm_adapters.openai.bodies import chat_content
from textllm_adapters.openai.client import RETRIES, Retries, drained, post_for_events
from textllm_adapters.openai.counts import chat_usage
from textllm_adapters.openai.errors import BROKEN_ANSWER, reported
from textllm_adapters.translation import translated
from textllm_core.chat.messages import FinishReason, TextDelta
from textllm_core.errors import ProviderError
from textllm_core.ports.llm import ModelEnded, ModelEvent, ModelRequest, ModelStarted

_NOTHING: Final = msgspec.Raw(b"null")
_OPENAI_HOSTS: Final = ("api.openai.com", ".api.openai.com", ".openai.azure.com")


class _Delta(Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Fault(Struct):
    code: str | int | None = None
    type: str | None = None


class _Chunk(Struct):
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = _NOTHING
    service_tier: str | None = None
    error: _Fault | None = None


_chunk = msgspec.json.Decoder(_Chunk).decode


@dataclass(frozen=True, slots=True)
class ChatCompletionsLLM:
    """The Chat Completions API as an `LLM`. It keeps no responses, so a broken one cannot be asked for."""

    client: AsyncOpenAI
    retries: Retries = RETRIES

    @property
    def reads_images(self) -> bool:
        """Keeps `LLM.reads_images`; a model that reads none refuses them itself."""
        return True

    @property
    def reads_files(self) -> bool:
        """Keeps `LLM.reads_files`: hardly any compatible server takes one."""
        return False

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Keeps `LLM.stream`."""
        started = refused = False
        said = ""  # grows in place; a buffer or a list would keep each of the many pieces
        finish = service_tier = usage = None
        body = _body(request, openai=self.client.base_url.host.endswith(_OPENAI_HOSTS))
        answer = post_for_events(self.client, "/chat/completions", request, body, self.retries)
        with translated(BROKEN_ANSWER):
            async with aclosing(answer) as events:
                async for event in events:
                    if event.data == b"[DONE]":
                        break
                    chunk = _chunk(event.data)
                    if chunk.error is not None:
                        raise reported(chunk.error.code if isinstance(chunk.error.code, str) else chunk.error.type)
                    if not started:
                        started = True
                        yield ModelStarted(None, chunk.model or request.model)
                    service_tier = chunk.service_tier or service_tier
                    usage = chat_usage(chunk.usage) or usage
                    for choice in chunk.choices or ():
                        finish = choice.finish_reason or finish
                        delta = choice.delta or _Delta()
                        refused = refused or bool(delta.refusal)
                        if text := delta.content or delta.refusal:
                            said += text
                            yield TextDelta(text)
                if finish is None:
                    raise ProviderError("The provider's stream ended before the reply did.")
                reason: FinishReason = "refusal" if refused else "length" if finish == "length" else "stop"
                yield ModelEnded(
                    status="incomplete" if finish in ("length", "content_filter") else "completed",
                    usage=usage,
                    text=said,
                    finish_reason=reason,
                    content_filtered=finish == "content_filter",
                    service_tier=service_tier,
                )
                await drained(events)

    async def outcome(self, provider_response_id: str) -> ModelEnded | None:  # noqa: ARG002 - nothing is kept
        """Keeps `LLM.outcome`."""
        return None


def _body(request: ModelRequest, *, openai: bool) -> dict[str, object]:
    instructions = [{"role": "system", "content": request.instructions}] if request.instructions else []
    body: dict[str, object] = {
        "model": request.model,
        "messages": [*instructions, *({"role": m.role, "content": chat_content(m)} for m in request.messages)],
        "stream": True,
        "stream_options": {"include_usage": True},
        # OpenAI's newer models refuse the old name, other servers may not know the new one.
        "max_completion_tokens" if openai else "max_tokens": request.max_output_tokens,
    }
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if openai and request.safety_identifier:
        body["safety_identifier"] = request.safety_identifier
    if openai and request.cache_key:
        body["prompt_cache_key"] = request.cache_key
    return body
