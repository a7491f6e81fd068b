"""The Chat Completions API, which nearly every compatible server speaks; the whole history goes with every call."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct

from textllm_adapters.openai.bodies import chat_content
from textllm_adapters.openai.client import Client
from textllm_adapters.openai.counts import counted, fuller
from textllm_adapters.openai.decoding import anything, decoded, word
from textllm_adapters.openai.errors import Asked, ended_early, hearing, told_in_stream, wants_tool
from textllm_adapters.openai.faults import fault_of
from textllm_adapters.openai.http import RETRIES, EventStream, Retries
from textllm_adapters.openai.sse import ServerSentEvent
from textllm_core.errors import TextLLMError
from textllm_core.records.messages import FinishReason, Message, TextDelta
from textllm_core.records.model import (
    EndStatus,
    ModelCounted,
    ModelEnded,
    ModelEvent,
    ModelRequest,
    ModelStarted,
    ModelThinking,
)

_OPENAI_HOSTS: Final = ("api.openai.com", ".api.openai.com", ".openai.azure.com")


class _Finish(NamedTuple):
    status: EndStatus = "completed"
    reason: FinishReason = "stop"
    content_filtered: bool = False


_CUT: Final = _Finish("incomplete", "length")
_FILTERED: Final = _Finish("incomplete", content_filtered=True)
_BROKEN: Final = _Finish("failed")
_TOOL: Final = _Finish()  # nobody has offered one; text that stands beside the call is whole
# In lower case. What is not named here is no end that anybody foresaw: the reply is told as cut short.
_FINISHES: Final = (
    dict.fromkeys(("stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete", "completed"), _Finish())
    | dict.fromkeys(("length", "max_tokens", "max_length", "model_length"), _CUT)
    | dict.fromkeys(("content_filter", "safety", "recitation", "blocklist", "prohibited_content", "spii"), _FILTERED)
    | dict.fromkeys(("content_filtered", "guardrail_intervened", "sensitive", "image_safety", "error_toxic"), _FILTERED)
    | dict.fromkeys(("error", "failed", "timeout", "abort", "aborted", "cancelled", "canceled"), _BROKEN)
    | dict.fromkeys(("engine_error", "internal_error", "model_error", "preempted"), _BROKEN)
    | dict.fromkeys(("tool_calls", "tool_call", "tool_use", "function_call"), _TOOL)
    | {"network_error": _BROKEN, "refusal": _Finish(reason="refusal")}
)
_NO_REASON: Final = ("", "null", "none")  # as some write that there is none yet


# Only what is read; compatible servers leave out or add what they like, in any shape.
class _Delta(Struct):
    content: object = None
    refusal: object = None
    reasoning_content: object = None
    reasoning: object = None
    reasoning_text: object = None
    reasoning_details: object = None
    thinking: object = None  # of Ollama
    usage: object = None

    @property
    def reasons(self) -> bool:
        """It is about reasoning, even where it tells nothing of it: some send an empty one while the model reasons."""
        told = (self.reasoning_content, self.reasoning, self.reasoning_text, self.reasoning_details, self.thinking)
        return any(each is not None for each in told)


class _Choice(Struct):
    delta: _Delta | None = None
    message: _Delta | None = None  # of a server that does not stream, or that says it all again at the end
    text: object = None  # of one that answers as its completions of old did
    finish_reason: object = None
    native_finish_reason: object = None  # of a gateway: in the words of the server behind it
    error: object = None
    usage: object = None

    @property
    def stated(self) -> object:
        """Its account of the usage; None where it has none."""
        places = (self.usage, self.delta and self.delta.usage, self.message and self.message.usage)
        return next((stated for stated in places if stated), None)

    @property
    def said(self) -> _Delta:
        """Where it says something; an empty delta may stand beside it."""
        delta = self.delta
        if delta is not None and (delta.content or (self.message is None and self.text is None)):
            return delta
        return delta if delta is not None and delta.reasons else self.message or _Delta(content=self.text)


class _Chunk(Struct):
    kind: object = msgspec.field(name="object", default=None)
    model: object = None
    choices: list[_Choice] | None = None
    usage: object = None
    x_groq: object = None
    service_tier: object = None
    error: object = None
    # As Ollama's own API writes it, and Gemini's.
    message: object = None
    done: object = None
    done_reason: object = None
    prompt_eval_count: object = None
    eval_count: object = None
    gemini_usage: object = msgspec.field(name="usageMetadata", default=None)

    @property
    def stated(self) -> object:
        """Its account of the usage; None where it has none."""
        groq = self.x_groq.get("usage") if isinstance(self.x_groq, dict) else None
        stated = self.usage or groq or self.gemini_usage
        for choice in self.choices or ():
            stated = stated or choice.stated
        if stated is None and (self.prompt_eval_count is not None or self.eval_count is not None):
            stated = {"prompt_eval_count": self.prompt_eval_count, "eval_count": self.eval_count}
        return stated


_chunk: Final = msgspec.json.Decoder(_Chunk)


@dataclass(slots=True)
class _Heard:
    """What has come of a reply so far."""

    text: str = ""  # at its end
    thought: int = 0  # characters
    refused: bool = False
    finish: str | None = None
    usage: object = None  # as stated; what says most
    service_tier: str | None = None
    error: TextLLMError | None = None
    aside: object = None  # the last that was neither a part of a reply nor a failure in any form it should have
    has_begun: bool = False

    def ended(self, finish: _Finish) -> ModelEnded:
        """The end; a failure without usage is raised, so that what came is charged as what it is: broken off."""
        usage = counted(self.usage, seen=len(self.text) + self.thought)
        if finish.status == "failed" and self.error is not None and usage is None:
            raise self.error
        return ModelEnded(
            status=finish.status,
            usage=usage.usage if usage else None,
            is_estimate=usage is not None and usage.is_estimate,
            text=self.text,
            finish_reason="refusal" if self.refused else finish.reason,
            content_filtered=finish.content_filtered,
            service_tier=self.service_tier,
            error=self.error if finish.status == "failed" else None,
        )


@dataclass(frozen=True, slots=True)
class ChatCompletionsLLM:
    """The Chat Completions API as an `LLM`. It keeps no responses, so a broken one cannot be asked for."""

    client: Client
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
        heard = _Heard()
        written = ""  # grows in place, as only a local can; a buffer or a list would keep each of the many pieces
        told: object = None  # the usage
        asked = Asked.of(self.client.base_url, "/chat/completions", request)
        body = _body(request, openai=self.client.url.host.endswith(_OPENAI_HOSTS))
        with hearing(asked):
            answer = await EventStream.of(self.client, asked, request, body, self.retries)
            del body  # there are thousands of answers at once, and each may last
            try:
                async for event in answer:
                    if event.data.strip() == b"[DONE]":
                        break
                    chunk = _read(event, asked, heard)
                    if heard.error is not None and not heard.has_begun:
                        break
                    if not heard.has_begun:
                        heard.has_begun = True
                        yield ModelStarted(None, word(chunk.model, request.model), asked.request_id, answer.has_come)
                    if heard.usage is not told and heard.finish is None:
                        told = heard.usage
                        if (so_far := counted(told, seen=0)) is not None:
                            yield ModelCounted(so_far.usage)
                    for choice in chunk.choices or ():
                        said = choice.said
                        if said.refusal:
                            heard.refused = True
                        text, thought = _told(said)
                        if said is not choice.delta:
                            text = text.removeprefix(written)
                        if thought is not None:
                            heard.thought += thought
                            yield ModelThinking(thought)
                        if text:
                            written += text
                            yield TextDelta(text)
                    if heard.error is not None:
                        break
                heard.text = written
                if heard.error is not None:  # what it cost may follow
                    await answer.drain(lambda event: _read(event, asked, heard))
                yield _end(heard, asked)
                await answer.drain()
            finally:
                answer.close()

    async def outcome(self, provider_response_id: str) -> ModelEnded | None:  # noqa: ARG002 - nothing is kept
        """Keeps `LLM.outcome`."""
        return None


def _read(event: ServerSentEvent, asked: Asked, heard: _Heard) -> _Chunk:
    """The chunk; what it states beside text goes into `heard`."""
    if event.name == b"error" or event.data.lstrip()[:1] not in (b"{", b""):
        chunk = _Chunk(error=anything(event.data))
    else:
        chunk = _chunk_of(event.data)
        if chunk.kind == "error":
            chunk.error = anything(event.data)
        elif not chunk.choices and isinstance(chunk.message, dict):
            why = chunk.done_reason or ("stop" if chunk.done is True else None)
            chunk.choices = [msgspec.convert({"delta": chunk.message, "finish_reason": why}, _Choice)]
    if heard.service_tier is None and chunk.service_tier is not None:
        heard.service_tier = word(chunk.service_tier, "") or None
    usage, error = chunk.stated, chunk.error
    for choice in chunk.choices or ():
        error = error or choice.error
        if isinstance(choice.finish_reason, str):
            heard.finish = _finish(heard.finish, word(choice.finish_reason.strip(), ""))
        native = choice.native_finish_reason
        if isinstance(native, str) and (heard.finish is None or _is_bad(native)):  # it knows nothing better
            heard.finish = _finish(heard.finish, word(native.strip(), ""))
    if not chunk.choices and not error:
        aside = anything(event.data)
        if heard.aside is None or not usage:  # what states the usage follows a failure
            heard.aside = aside
    if usage is not None:
        heard.usage = fuller(heard.usage, usage)
    if error and heard.error is None:
        heard.error = told_in_stream(fault_of({"error": error}), asked, has_begun=heard.has_begun)
    return chunk


def _finish(known: str | None, said: str) -> str | None:
    """Why the reply ended: what is `said` now, unless a bad end is known already, which nothing makes good."""
    return known if said.lower() in _NO_REASON or (known is not None and _is_bad(known)) else said


def _is_bad(reason: str) -> bool:
    return _finish_of(reason) not in (None, _Finish())


def _finish_of(reason: str) -> _Finish | None:
    """What a reason means; None for one that nobody foresaw."""
    known = _FINISHES.get(reason.lower())
    return _BROKEN if known is None and fault_of({"code": reason}).meaning() != "other" else known


def _chunk_of(data: bytes) -> _Chunk:
    """What the chunk says; choices and deltas of a shape of their own say nothing.

    Raises:
        msgspec.DecodeError: it is no JSON.
    """
    try:
        return decoded(_chunk, data)
    except msgspec.DecodeError:
        said = anything(data)
        if not isinstance(said, dict):
            raise
    choices = said.get("choices")
    listed = choices if isinstance(choices, list) else []
    return msgspec.convert(said | {"choices": [_shaped(each) for each in listed if isinstance(each, dict)]}, _Chunk)


def _shaped(choice: dict[str, object]) -> dict[str, object]:
    return {
        name: value for name, value in choice.items() if name not in ("delta", "message") or isinstance(value, dict)
    }


def _told(said: _Delta) -> tuple[str, int | None]:
    """The text of a delta, and how many characters of reasoning it tells; None where it is not about reasoning.

    Some servers tell the same under two names, some only in secret.
    """
    text, thought = said.content, None
    if said.reasons:
        names = (said.reasoning_content, said.reasoning, said.reasoning_text, said.thinking)
        thought = max(len(told) if isinstance(told, str) else 0 for told in names)
    if isinstance(text, list):  # in parts
        parts = [{"text": part} if isinstance(part, str) else part for part in text if isinstance(part, str | dict)]
        if any("thinking" in part for part in parts):
            thought = sum(len(str(part["thinking"])) for part in parts if "thinking" in part)
        text = "".join(part["text"] for part in parts if isinstance(part.get("text"), str))
    if not (isinstance(text, str) and text):
        text = said.refusal if isinstance(said.refusal, str) else ""
    return text, thought


def _end(heard: _Heard, asked: Asked) -> ModelEnded:
    """
    Raises:
        TextLLMError: the reply broke off, and nobody says what it cost.
    """
    finish = _BROKEN
    if heard.error is None and heard.finish is None:
        heard.error = ended_early(heard.aside, asked, has_begun=heard.has_begun)
    elif heard.error is None and heard.finish is not None:
        finish = _finish_of(heard.finish) or _CUT
        if finish is _TOOL and not heard.text:
            finish, heard.error = _BROKEN, wants_tool(heard.finish, asked)
        elif finish is _BROKEN:
            heard.error = told_in_stream(fault_of({"code": heard.finish}), asked, has_begun=True)
    return heard.ended(finish)


def _in_turns(messages: Sequence[Message]) -> list[dict[str, object]]:
    """The messages, what one role says twice in a row as one: many models' templates take nothing else.

    A reply that was cut off before its first word leaves such a pair.
    """
    turns: list[dict[str, object]] = []
    for message in messages:
        content = chat_content(message)
        if turns and turns[-1]["role"] == message.role:
            turns[-1]["content"] = _joined(turns[-1]["content"], content)
        else:
            turns.append({"role": message.role, "content": content})
    return turns


def _joined(first: object, second: object) -> object:
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return [*_in_parts(first), *_in_parts(second)]


def _in_parts(content: object) -> list[object]:
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def _body(request: ModelRequest, *, openai: bool) -> dict[str, object]:
    instructions = [{"role": "system", "content": request.instructions}] if request.instructions else []
    body: dict[str, object] = {
        "model": request.model,
        "messages": [*instructions, *_in_turns(request.messages)],
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
