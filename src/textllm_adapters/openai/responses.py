"""OpenAI's Responses API: with a conversation on the provider's side, or with the whole history in every call."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, get_args
from urllib.parse import quote

import msgspec
from msgspec import Struct

from textllm_adapters.openai.bodies import input_items
from textllm_adapters.openai.client import Client
from textllm_adapters.openai.counts import counted, fuller, used_by_now
from textllm_adapters.openai.decoding import anything, decoded, word
from textllm_adapters.openai.deployments import NO_DEPLOYMENTS, Deployments
from textllm_adapters.openai.dialect import RESPONSES, Dialect, Lessons
from textllm_adapters.openai.errors import Asked, ended_early, hearing, told_in_stream, wants_tool
from textllm_adapters.openai.faults import fault_of, says_nothing
from textllm_adapters.openai.functions import calls_any, calls_in, responses_options
from textllm_adapters.openai.hosted import ToolSteps, hosted_in, hosted_options, is_at_work
from textllm_adapters.openai.http import RETRIES, EventStream, Retries, get
from textllm_adapters.openai.outputs import WHOLE, Whole, calls_of, is_cut, rest_of, words_of_response
from textllm_adapters.openai.reasoning import ThoughtInWords, made_by, sums_up, thought_before_text
from textllm_adapters.openai.sse import ServerSentEvent
from textllm_adapters.openai.stops import ending_here
from textllm_core.errors import InvalidRequestError, ProviderError, TextLLMError
from textllm_core.records.hosted import NOTHING_HOSTED, HostedOutput
from textllm_core.records.messages import FinishReason, TextDelta
from textllm_core.records.model import (
    EndStatus,
    ModelEnded,
    ModelEvent,
    ModelRequest,
    ModelStarted,
    ModelThinking,
)
from textllm_core.records.tools import ToolCall
from textllm_core.rules.budgets import MIN_OUTPUT_TOKENS
from textllm_core.texts import well_formed

_BEGINNINGS: Final = frozenset({b"response.created", b"response.queued", b"response.in_progress"})
_REFUSAL: Final = b"response.refusal.delta"
_DELTAS: Final = frozenset({b"response.output_text.delta", _REFUSAL})
_ENDS: Final[Mapping[bytes, EndStatus]] = {
    b"response.completed": "completed",
    b"response.incomplete": "incomplete",
    b"response.failed": "failed",
    b"response.cancelled": "cancelled",
    b"response.done": "completed",  # of gateways; its status says what it is
}
_ARGUMENTS: Final = b"response.function_call_arguments.delta"
_ALIVE: Final = b"keepalive"  # of OpenAI, in no description: a model thinks, and tells nothing of it
_FAILURES: Final = frozenset({b"error", b"response.error"})
_STATUSES: Final[Mapping[str | None, EndStatus]] = {s: s for s in get_args(EndStatus)}
_UNENDED: Final = frozenset({None, "queued", "in_progress"})  # servers that state no end of their own


# Only what is read; compatible servers leave out or add what they like.
class _Kind(Struct):
    type: Any = None
    object: Any = None
    status: Any = None
    error: Any = None


class _Delta(Struct):
    delta: object = None
    usage: object = None


class _Response(Struct):
    id: object = None
    model: object = None
    status: object = None
    error: object = None
    incomplete_details: object = None
    output: object = None
    output_text: object = None
    usage: object = None
    service_tier: object = None
    tools: object = None  # that were offered


class _ResponseEvent(Struct):
    kind: object = msgspec.field(name="object", default=None)
    response: object = None
    error: object = None
    usage: object = None


_kind: Final = msgspec.json.Decoder(_Kind)
_delta: Final = msgspec.json.Decoder(_Delta)
_response: Final = msgspec.json.Decoder(_Response)
_response_event: Final = msgspec.json.Decoder(_ResponseEvent)


@dataclass(frozen=True, slots=True)
class ResponsesLLM:
    """The Responses API as an `LLM`. It always streams: so a reply that breaks off has an id to ask for.

    Args:
        reads_files: the server takes files as they are; few but OpenAI's do.
        lessons: what it takes beside that.
        deployments: where Azure has the models.
    """

    client: Client
    retries: Retries = RETRIES
    reads_files: bool = True
    lessons: Lessons = field(default_factory=lambda: Lessons(RESPONSES))
    deployments: Deployments = NO_DEPLOYMENTS

    @property
    def reads_images(self) -> bool:
        """Keeps `LLM.reads_images`; a model that reads none refuses them itself, unless it is known not to."""
        return self.lessons.first.images

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Keeps `LLM.stream`."""
        return ending_here(self._events(request), request)

    async def _events(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        started = False
        answered: int | None = None  # characters, from which on the model refuses
        aside: object = None  # the last that was no event of any name
        said = ""  # grows in place; a buffer or a list would keep each of the many pieces
        thought = 0
        stated: object = None  # of the usage
        whole, tools, thinks = Whole(), ToolSteps(), ThoughtInWords()
        asked, by = Asked.of(self.client.base_url, "/responses", request), made_by(self.client.base_url, request.model)
        with hearing(asked):
            answer = await self.lessons.taught(asked, request, partial(self._ask, asked, request))
            try:
                async for event in answer:
                    name = _name(event)
                    step = tools.of(name, event.data) if request.hosted else None
                    is_thought = name not in _DELTAS and (b"reasoning" in name or name == _ARGUMENTS)
                    if not started and (step is not None or is_thought or name in _DELTAS):
                        started = True
                        yield ModelStarted(None, request.model, asked.request_id, answer.has_come)
                    if step is not None:
                        yield step
                    if name in _DELTAS:
                        piece = decoded(_delta, event.data)
                        text = piece.delta
                        if piece.usage is not None:
                            stated = fuller(stated, piece.usage)
                            for so_far in used_by_now(stated):
                                yield so_far
                        if isinstance(text, str) and text:
                            if not said and request.returns_reasoning:
                                for returned in thought_before_text(whole.items(), by):
                                    yield returned
                            if name == _REFUSAL and answered is None:
                                answered = len(said)
                            said += text
                            yield TextDelta(text, answered is not None)
                    elif name in _BEGINNINGS or name in _ENDS:
                        response = _response_in(event.data)
                        if not response and name in _ENDS and not (said or whole):
                            break  # an end of nothing
                        response = response or _Response()
                        if not started:
                            started = True
                            yield _started(response, request, asked, is_whole=answer.has_come)
                        stated = response.usage = fuller(stated, response.usage)
                        if name in _BEGINNINGS:
                            for so_far in used_by_now(stated):
                                yield so_far
                            continue
                        text, refusal = words_of_response(response.output, response.output_text)
                        if not text:
                            text, refusal = whole.told()
                        if text.startswith(said) and len(text) > len(said):  # else it is what came already
                            if not said and request.returns_reasoning:
                                for returned in thought_before_text(response.output or whole.items(), by):
                                    yield returned
                            if refusal and answered is None:
                                answered = max(len(said), len(text) - len(refusal))
                            for rest in rest_of(text, len(said), answered):
                                yield rest
                            said = text
                        calls = calls_of(response.output, whole, by)
                        response.tools = request.tools
                        refused = None if answered is None else said[answered:]
                        hosted = hosted_in(response.output or whole.items(), said) if request.hosted else NOTHING_HOSTED
                        yield _ended(_ENDS[name], response, said, refused, calls, asked, hosted, thought=thought)
                        await answer.drain()
                        return
                    elif is_thought:
                        words = thinks.told(name, event.data)
                        written = 0 if request.reasoning_summary and sums_up(name) else len(words)
                        thought += written
                        yield ModelThinking(written, "" if name == _ARGUMENTS else words)
                    elif (name == _ALIVE or is_at_work(name)) and started:
                        yield ModelThinking(0)
                    elif name in _FAILURES:
                        failure = told_in_stream(fault_of(anything(event.data)), asked, has_begun=started)
                        ends = await _rest(answer)  # which say what that has cost
                        failed = _failed(ends, stated, said, thought, failure)
                        if failed is None:
                            raise failure
                        if not started:
                            yield ModelStarted(None, request.model, asked.request_id, answer.has_come)
                        yield failed
                        return
                    elif name in WHOLE:
                        whole.add(name, event.data)
                        if started and (words := thinks.told_whole(name, event.data)):
                            thought += len(words)
                            yield ModelThinking(len(words), words)
                    elif not name:
                        aside = anything(event.data)
            finally:
                answer.close()
            raise ended_early(aside, asked, has_begun=started)

    async def _ask(self, asked: Asked, request: ModelRequest, dialect: Dialect, sent: dict[str, object]) -> EventStream:
        """The answer; `sent` is what was asked, once it is."""
        sent.update(_body(request, dialect, made_by(self.client.base_url, request.model)))
        sent["model"] = self.deployments.name(request.model)
        return await EventStream.of(self.client, asked, request, sent, self.retries, self.deployments.responses)

    async def outcome(self, provider_response_id: str) -> ModelEnded | None:
        """Keeps `LLM.outcome`."""
        path = f"/responses/{quote(provider_response_id, safe='')}{self.deployments.query}"
        body = await get(self.client, path, self.retries)
        if body is None:
            return None
        try:
            response = decoded(_response, body)
            text, refusal = words_of_response(response.output, response.output_text)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise ProviderError("The provider described the response in a way we cannot read.") from None
        status = _STATUSES.get(response.status) if isinstance(response.status, str) else None
        if status is None:
            return None
        asked = Asked.of(self.client.base_url, path)
        text, hosted, refusal = well_formed(text), hosted_in(response.output, text), well_formed(refusal)
        return _ended(status, response, text, refusal or None, calls_in(response.output), asked, hosted)


def _body(request: ModelRequest, dialect: Dialect, by: str) -> dict[str, object]:
    """
    Raises:
        InvalidRequestError: it asks for what this API does not have.
    """
    sampling = request.sampling.chosen if request.sampling is not None else {}
    sampling.pop("stop", None)  # kept by `stopped`
    sampling.pop("verbosity", None)  # stands with the form of the text
    if missing := [name for name in sampling if name != "top_p"]:
        raise InvalidRequestError.of(missing[0], "is nothing that the API of this model's provider takes; leave it out")
    body: dict[str, object] = {
        "model": request.model,
        "input": [item for message in request.messages for item in input_items(message, dialect.known(by))],
        "max_output_tokens": max(dialect.length(request), MIN_OUTPUT_TOKENS),
        "stream": True,
    }
    if dialect.store:  # only what is stored can be asked for after a broken stream
        body["store"] = request.transcript_id is not None
    if dialect.stream_options:
        body["stream_options"] = {"include_obfuscation": False}
    optional = {
        "conversation": request.transcript_id,
        "instructions": request.instructions,
        "safety_identifier": request.safety_identifier or None if dialect.safety_identifier else None,
        "prompt_cache_key": request.cache_key or None if dialect.prompt_cache_key else None,
        "temperature": request.temperature,
        "metadata": request.metadata or None,
    }
    chosen = {key: value for key, value in optional.items() if value is not None}
    return (
        body
        | chosen
        | sampling
        | hosted_options(
            request, responses_options(request, sums_up=dialect.summaries), encrypts=dialect.encrypts(request)
        )
    )


def _response_in(data: bytes) -> _Response | None:
    """The response that an event tells of, or that is the whole answer of a server which does not stream; None: none.

    What some say of it beside it is taken for a part of it.
    """
    event = decoded(_response_event, data)
    if event.kind == "response":
        return decoded(_response, data)
    if not isinstance(event.response, dict):
        return _Response(error=event.error, usage=event.usage) if event.error or event.usage else None
    response = msgspec.convert(event.response, _Response)
    response.error, response.usage = response.error or event.error, fuller(event.usage, response.usage)
    return response


def _started(response: _Response, request: ModelRequest, asked: Asked, *, is_whole: bool) -> ModelStarted:
    kept_id = word(response.id, "") or None if request.transcript_id else None  # `store: false` keeps nothing
    return ModelStarted(kept_id, word(response.model, request.model), asked.request_id, is_whole)


def _name(event: ServerSentEvent) -> bytes:
    """What the event is; where it has no name of its own, its data says so."""
    if event.name not in (b"", b"message"):
        return event.name
    data = event.data.strip()
    if data == b"[DONE]":
        return event.name
    if data in (b"", b"null"):
        return b""
    if data[:1] != b"{":  # a failure in a shape of its own, or no more than a sign of life
        return b"" if fault_of(anything(data)).meaning() == "other" else b"error"
    kind = decoded(_kind, event.data)
    if kind.object == "response" and kind.type is None:  # all of the answer at once
        return b"response.failed" if kind.status == "failed" else b"response.done"
    if kind.object == "error" or (not kind.type and not says_nothing(kind.error)):
        return b"error"
    return kind.type.encode(errors="replace") if isinstance(kind.type, str) else b""


async def _rest(answer: EventStream) -> list[_Response]:
    """The ends that follow a failure."""
    ends: list[_Response] = []
    await answer.drain(lambda event: ends.extend(_end_in(event)))
    return ends


def _end_in(event: ServerSentEvent) -> list[_Response]:
    response = _response_in(event.data) if _name(event) in _ENDS else None
    return [] if response is None else [response]


def _failed(ends: list[_Response], stated: object, text: str, thought: int, error: TextLLMError) -> ModelEnded | None:
    """The end of a reply that failed, where the provider states its cost; None where it does not.

    `stated`: of it before the failure.
    """
    for end in ends:
        stated = fuller(stated, end.usage)
    usage = counted(stated, seen=len(text) + thought)
    if usage is None:
        return None
    tier = word(ends[-1].service_tier, "") or None if ends else None
    return ModelEnded(
        status="failed", usage=usage.usage, is_estimate=usage.is_estimate, text=text, service_tier=tier, error=error
    )


def _ended(
    status: EndStatus,
    response: _Response,
    text: str,
    refusal: str | None,
    calls: Sequence[ToolCall],
    asked: Asked,
    hosted: HostedOutput,
    *,
    thought: int = 0,
) -> ModelEnded:
    """`refusal`: how the text ends where the model refuses; None: it does not."""
    failure = None if says_nothing(response.error) else response.error
    details = response.incomplete_details
    reason = details.get("reason") if isinstance(details, dict) else details
    reason = None if says_nothing(reason) else reason
    stated = response.status if isinstance(response.status, str) else None
    if status == "completed" and stated not in _UNENDED:  # some servers name every last event so
        status = _STATUSES.get(stated, "incomplete")
    if status == "completed" and (failure or reason or is_cut(response.output)):
        status = "failed" if failure else "incomplete"
    items = response.output if isinstance(response.output, list) else ()
    seen = len(text) + thought
    usage = counted(response.usage, seen=seen)
    if usage is None:  # some state it of each item
        usage = counted([item.get("usage") for item in items if isinstance(item, dict)], seen=seen)
    error = told_in_stream(fault_of({"error": failure}), asked, has_begun=True) if failure else None
    if response.tools is not None and not response.tools:  # of what a server does not tell, it was offered
        calls = ()
    if status == "completed" and not (text or calls) and calls_any(response.output):
        status, error = "failed", wants_tool("function_call", asked)
    cut_short = status == "incomplete" and reason != "content_filter"
    finish_reason: FinishReason = "refusal" if refusal is not None else "length" if cut_short else "stop"
    if calls and status == "completed":
        finish_reason = "tool_calls"
    return ModelEnded(
        status=status,
        usage=usage.usage if usage else None,
        is_estimate=usage is not None and usage.is_estimate,
        text=text,
        finish_reason=finish_reason,
        refusal=refusal or "",
        tool_calls=calls if status == "completed" else (),
        hosted=hosted,
        content_filtered=status == "incomplete" and reason == "content_filter",
        service_tier=word(response.service_tier, "") or None,
        error=error,
    )
