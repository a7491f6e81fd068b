"""The Chat Completions API, which nearly every compatible server speaks; the whole history goes with every call."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from typing import Final, NamedTuple, Self

from textllm_adapters.openai.bodies import chat_content
from textllm_adapters.openai.chat_chunks import Chunk, chunk_of, told
from textllm_adapters.openai.client import Client
from textllm_adapters.openai.counts import counted, fuller, stated_cost
from textllm_adapters.openai.decoding import anything, word
from textllm_adapters.openai.deployments import NO_DEPLOYMENTS, Deployments
from textllm_adapters.openai.dialect import Dialect, Lessons
from textllm_adapters.openai.errors import Asked, ended_early, hearing, told_in_stream, wants_tool
from textllm_adapters.openai.faults import fault_of
from textllm_adapters.openai.functions import CallsInPieces, chat_calls, chat_options, shorten_call_ids
from textllm_adapters.openai.http import ONCE, RETRIES, EventStream, Retries
from textllm_adapters.openai.reasoning import ReasoningInPieces, beside_calls, made_by
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


class _Finish(NamedTuple):
    status: EndStatus = "completed"
    reason: FinishReason = "stop"
    content_filtered: bool = False


_CUT: Final = _Finish("incomplete", "length")
_FILTERED: Final = _Finish("incomplete", content_filtered=True)
_BROKEN: Final = _Finish("failed")
_TOOL: Final = _Finish()  # where nobody has offered one, text that stands beside the call is whole
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
_COST_WITHIN_S: Final = 5.0  # gateways that count after the reply take a second; whoever waits for its end waits, too
_NO_REASON: Final = ("", "null", "none")  # as some write that there is none yet


@dataclass(slots=True)
class _Heard:
    """What has come of a reply so far; `by`: of whom, as `made_by` has it."""

    by: str
    text: str = ""  # at its end
    thought: int = 0  # characters
    refused: bool = False
    answered: int | None = None  # characters of the text, from which on the model refuses
    finish: str | None = None
    usage: object = None  # as stated; what says most
    service_tier: str | None = None
    offers_tools: bool = False
    trusts_cost: bool = False
    cost: Decimal | None = None
    calls: CallsInPieces = field(default_factory=CallsInPieces)
    reasoning: ReasoningInPieces = field(default_factory=ReasoningInPieces)
    error: TextLLMError | None = None
    aside: object = None  # the last that was neither a part of a reply nor a failure in any form it should have
    has_begun: bool = False

    def ended(self, finish: _Finish) -> ModelEnded:
        """The end; a failure without usage is raised, so that what came is charged as what it is: broken off."""
        usage = counted(self.usage, seen=len(self.text) + self.thought)
        if finish.status == "failed" and self.error is not None and usage is None:
            raise self.error
        calls = self.calls.all() if self.offers_tools and finish.status == "completed" else ()
        calls = self.reasoning.with_calls(calls, self.by)
        reason: FinishReason = "tool_calls" if calls else finish.reason
        return ModelEnded(
            status=finish.status,
            usage=usage.usage if usage else None,
            is_estimate=usage is not None and usage.is_estimate,
            text=self.text,
            finish_reason="refusal" if self.refused else reason,
            refusal="" if self.answered is None else self.text[self.answered :],
            tool_calls=calls,
            content_filtered=finish.content_filtered,
            service_tier=self.service_tier,
            cost=self.cost,
            error=self.error if finish.status == "failed" else None,
        )


@dataclass(frozen=True, slots=True)
class ChatCompletionsLLM:
    """The Chat Completions API as an `LLM`. It keeps no responses, so a broken one cannot be asked for."""

    client: Client
    retries: Retries = RETRIES
    dialect: Dialect | None = None
    deployments: Deployments = NO_DEPLOYMENTS
    _lessons: Lessons = field(init=False)

    def __post_init__(self) -> None:
        dialect = self.dialect or Dialect.of_chat(self.client.url.host)
        object.__setattr__(self, "_lessons", Lessons(dialect))

    def trying_once(self) -> Self:
        """The same, which tries once, and learns with this one."""
        other = replace(self, retries=ONCE)
        object.__setattr__(other, "_lessons", self._lessons)
        return other

    def learn(self, model: str, context: int) -> None:
        """As `Lessons.learn`."""
        self._lessons.learn(model, context)

    @property
    def reads_images(self) -> bool:
        """Keeps `LLM.reads_images`; a model that reads none refuses them itself, unless it is known not to."""
        return self._lessons.first.images

    @property
    def reads_files(self) -> bool:
        """Keeps `LLM.reads_files`: hardly any compatible server takes one."""
        return self._lessons.first.files

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Keeps `LLM.stream`."""
        by = made_by(self.client.base_url, request.model)
        heard = _Heard(by, offers_tools=bool(request.tools), trusts_cost=self._lessons.first.trusts_cost)
        written = ""  # grows in place, as only a local can; a buffer or a list would keep each of the many pieces
        so_far: object = None  # of the usage, as it was told
        asked = Asked.of(self.client.base_url, "/chat/completions", request)
        with hearing(asked):
            answer = await self._lessons.taught(asked, request, partial(self._ask, asked, request))
            try:
                async for event in _Events(answer, heard):
                    if event.data.strip() == b"[DONE]":
                        break
                    chunk = _read(event, asked, heard)
                    if heard.error is not None and not heard.has_begun:
                        break
                    if not heard.has_begun and chunk.is_of_reply:
                        heard.has_begun = True
                        yield ModelStarted(None, word(chunk.model, request.model), asked.request_id, answer.has_come)
                    if heard.usage is not so_far:
                        so_far = heard.usage
                        used = counted(so_far, seen=0)
                        if used is not None and heard.finish is None:
                            yield ModelCounted(used.usage)
                        elif used is not None and not used.is_estimate and not chunk.choices:
                            break  # as OpenAI has it, the last chunk: what else there may be is not waited for
                    for choice in chunk.choices or ():
                        said = choice.said
                        if said.refusal:
                            heard.refused = True
                        text, is_refusal, thought = told(said)
                        if said is not choice.delta:
                            text = text.removeprefix(written)
                        if thought is not None:
                            again = said is not choice.delta and heard.thought > 0  # at the end some say it all again
                            heard.thought += len(thought)
                            if heard.offers_tools and (said is choice.delta or not heard.reasoning):
                                heard.reasoning.take(said.thoughts, said.reasoning_details)
                            yield ModelThinking(len(thought), "" if again else thought)
                        if said.tool_calls is not None and (said is choice.delta or not heard.calls):  # as above
                            characters = heard.calls.take(said.tool_calls)
                            heard.thought += characters
                            yield ModelThinking(characters)
                        if text:
                            if is_refusal and heard.answered is None:
                                heard.answered = len(written)
                            written += text
                            yield TextDelta(text, heard.answered is not None)
                    if heard.error is not None:
                        break
                heard.text = written
                if heard.error is not None or heard.usage is None:  # what it cost may follow, and nothing else
                    error = heard.error
                    await answer.drain(lambda event: _read(event, asked, heard))
                    heard.error = error
                ended = _end(heard, asked)
                if not heard.has_begun:
                    yield ModelStarted(None, request.model, asked.request_id, answer.has_come)
                yield ended
                await answer.drain()
            finally:
                answer.close()

    async def _ask(self, asked: Asked, request: ModelRequest, dialect: Dialect, sent: dict[str, object]) -> EventStream:
        """The answer; `sent` is what was asked, once it is."""
        sent.update(_body(request, dialect, made_by(self.client.base_url, request.model)))
        sent["model"] = self.deployments.name(request.model)
        place = self.deployments.chat_completions(request.model)
        return await EventStream.of(self.client, asked, request, sent, self.retries, place)

    async def outcome(self, provider_response_id: str) -> ModelEnded | None:  # noqa: ARG002 - nothing is kept
        """Keeps `LLM.outcome`."""
        return None


@dataclass(frozen=True, slots=True)
class _Events:
    """Those of an answer; once the model has said that it ended, as many as come soon: then the cost alone is missing,
    and the reply is whole, whatever becomes of the connection."""

    answer: EventStream
    heard: _Heard

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Awaitable[ServerSentEvent]:
        return self.answer.__anext__() if self.heard.finish is None else self._soon()

    async def _soon(self) -> ServerSentEvent:
        try:
            async with asyncio.timeout(_COST_WITHIN_S):
                return await self.answer.__anext__()
        except OSError:  # broken, silent, or late
            raise StopAsyncIteration from None


def _read(event: ServerSentEvent, asked: Asked, heard: _Heard) -> Chunk:
    """The chunk; what it states beside text goes into `heard`."""
    chunk = chunk_of(event)
    if heard.service_tier is None and chunk.service_tier is not None:
        heard.service_tier = word(chunk.service_tier, "") or None
    usage, error = chunk.stated, chunk.failure
    for choice in chunk.choices or ():
        if isinstance(choice.finish_reason, str):
            heard.finish = _finish(heard.finish, word(choice.finish_reason.strip(), ""))
        native = choice.native_finish_reason or choice.other_finish_reason
        if isinstance(native, str) and (heard.finish is None or _is_bad(native)):  # it knows nothing better
            heard.finish = _finish(heard.finish, word(native.strip(), ""))
    if not chunk.choices and error is None:
        aside = anything(event.data)
        # What states the usage follows a failure, or is one.
        if heard.aside is None or not usage or not fault_of(heard.aside).is_stated():
            heard.aside = aside
    if usage is not None:
        heard.usage = fuller(heard.usage, usage)
        if heard.trusts_cost and (cost := stated_cost(usage)) is not None:
            heard.cost = max(heard.cost or cost, cost)
    if error is not None and heard.error is None:
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
        calls = heard.calls.all()
        is_said = heard.text or (calls and heard.offers_tools)
        if not is_said and (finish is _TOOL or (calls and finish.status == "completed")):
            finish, heard.error = _BROKEN, wants_tool(heard.finish, asked)
        elif finish is _BROKEN:
            heard.error = told_in_stream(fault_of({"code": heard.finish}), asked, has_begun=True)
    return heard.ended(finish)


def _in_turns(messages: Sequence[Message], dialect: Dialect, by: str) -> list[dict[str, object]]:
    """The messages, what one role says twice in a row as one: many models' templates take nothing else.

    A reply that was cut off before its first word leaves such a pair.
    """
    turns: list[dict[str, object]] = []
    openai = dialect.is_openai
    for message in messages:
        turns += (
            {"role": "tool", "tool_call_id": result.call_id, "content": result.output}
            for result in message.tool_results
        )
        content = chat_content(message)
        role = "system" if message.role == "developer" and not openai else message.role  # few servers know that one
        if message.tool_calls:
            said = None if isinstance(content, str) and not content.strip() else content  # spaces alone are no text
            thought = {} if openai else beside_calls(message, dialect.known(by), demanded=dialect.reasoning is True)
            calls = chat_calls(message, openai=openai)
            turns.append({"role": "assistant", "content": said, **thought, "tool_calls": calls})
        elif turns and turns[-1]["role"] == role:
            turns[-1]["content"] = _joined(turns[-1]["content"], content)
        elif content or not message.tool_results:
            turns.append({"role": role, "content": content})
    return turns


def _joined(first: object, second: object) -> object:
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return [*_in_parts(first), *_in_parts(second)]


def _in_parts(content: object) -> list[object]:
    return content if isinstance(content, list) else [{"type": "text", "text": content}]


def _body(request: ModelRequest, dialect: Dialect, by: str) -> dict[str, object]:
    instructions = [{"role": "system", "content": request.instructions}] if request.instructions else []
    turns = _in_turns(request.messages if dialect.is_openai else request.user_first, dialect, by)
    if dialect.short_call_ids:
        shorten_call_ids(turns)
    body: dict[str, object] = {
        "model": request.model,
        "messages": [*instructions, *turns],
        "stream": True,
        # OpenAI's newer models refuse the old name, other servers may not know the new one.
        dialect.length_name(request.model): dialect.length(request),
    }
    if dialect.stream_options:
        body["stream_options"] = {"include_usage": True}
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if dialect.safety_identifier and request.safety_identifier:
        body["safety_identifier"] = request.safety_identifier
    if dialect.prompt_cache_key and request.cache_key:
        body["prompt_cache_key"] = request.cache_key
    return body | (request.sampling.chosen if request.sampling is not None else {}) | chat_options(request)
