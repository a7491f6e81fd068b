"""What `/v1/chat/completions` answers: the whole reply, or chunks of it."""

from collections.abc import Callable, Sequence
from decimal import Decimal
from time import time
from typing import Final, Literal

from msgspec import UNSET, Struct, UnsetType

from textllm_core.errors import ContentRefusedError
from textllm_core.records.hosted import ToolStep
from textllm_core.records.messages import FinishReason, ReplyCompleted, ReplyStarted, ReplyUsage
from textllm_core.records.parts import ContentPart, OutputText, Refusal
from textllm_core.records.thoughts import Reasoning
from textllm_core.records.tools import ReplyToolCall, ToolCall
from textllm_core.wire import to_json
from textllm_http.openai_door.errors import charge_of, document
from textllm_http.problems import Problem

_DONE: Final = b"data: [DONE]\n\n"
# A refusal is what the message says, and one that was cancelled has said all that it will.
_FINISHES: Final[dict[FinishReason, str]] = {
    "stop": "stop",
    "length": "length",
    "refusal": "stop",
    "tool_calls": "tool_calls",
    "cancelled": "stop",
}


class PromptDetails(Struct, frozen=True):
    """Of what was read."""

    cached_tokens: int
    audio_tokens: int = 0


class CompletionDetails(Struct, frozen=True):
    """Of what was written."""

    reasoning_tokens: int
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class CompletionUsage(Struct, frozen=True, kw_only=True):
    """What the reply used; `cost`, in USD, and whether it is an estimate are ours."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails
    cost: Decimal
    estimated: bool | UnsetType = UNSET


class CompletionMessage(Struct, frozen=True, kw_only=True):
    """What the model said."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: str | None
    annotations: Sequence[str] = ()
    reasoning_content: str | UnsetType = UNSET
    tool_calls: Sequence[ReplyToolCall] | UnsetType = UNSET


class CompletionChoice(Struct, frozen=True, kw_only=True):
    """The one choice."""

    index: int = 0
    message: CompletionMessage
    logprobs: None = None
    finish_reason: str


class Completion(Struct, frozen=True, kw_only=True):
    """The whole reply."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: tuple[CompletionChoice]
    usage: CompletionUsage


def completion_id(response_id: str) -> str:
    """The id of a reply, as clients of this API know such: the digits are those of ours."""
    return f"chatcmpl-{response_id.removeprefix('resp_')}"


def completion(end: ReplyCompleted, *, model: str) -> bytes:
    """The whole reply, as JSON; `model`: the name that its client can send again."""
    reply, parts = end.reply, end.parts
    said = [part.text for part in parts if isinstance(part, OutputText)]
    refused = [part.text for part in parts if isinstance(part, Refusal)]
    message = CompletionMessage(
        content="".join(said) if said else None,
        refusal="".join(refused) if refused else None,
        reasoning_content="".join(map(_thought_before, parts)) or UNSET,
        tool_calls=reply.tool_calls,
    )
    return to_json(
        Completion(
            id=completion_id(reply.response_id),
            created=int(time()),
            model=model,
            choices=(CompletionChoice(message=message, finish_reason=_FINISHES[reply.finish_reason]),),
            usage=_usage(reply.usage, reply.cost, estimated=reply.estimated),
        )
    )


def _thought_before(part: ContentPart) -> str:
    """What the model thought before the part, in words."""
    reasoning = part.reasoning if isinstance(part, OutputText | Refusal | ToolCall) else UNSET
    return (reasoning and reasoning.words) or ""


def _usage(of: ReplyUsage, cost: Decimal, *, estimated: bool) -> CompletionUsage:
    return CompletionUsage(
        prompt_tokens=of.input,
        completion_tokens=of.output,
        total_tokens=of.total,
        prompt_tokens_details=PromptDetails(of.cached),
        completion_tokens_details=CompletionDetails(of.reasoning),
        cost=cost,
        estimated=True if estimated else UNSET,
    )


class ChunkFrames:
    """Keeps `sse.Frames`: a chunk a piece of text, what ended it, what it used where that is wanted, and `[DONE]`.

    Of some providers it is known at the end alone that a reply is a refusal: it has come as text by then, and the last
    chunk says so. A failure is an `error` as OpenAI's SDKs read it, with nothing behind it.

    Args:
        named: makes the name of the model that the client can send again.
    """

    __slots__ = ("_after", "_before", "_head", "_named", "_refuses", "_wants_usage")

    def __init__(self, named: Callable[[str], str], *, wants_usage: bool) -> None:
        self._named, self._wants_usage = named, wants_usage
        self._head = self._before = self._after = b""
        self._refuses = False  # and has said so

    def started(self, event: ReplyStarted) -> bytes:
        ids = to_json({"id": completion_id(event.response_id), "object": "chat.completion.chunk"})[:-1]
        head = b"data: %b,%b," % (ids, to_json({"created": int(time()), "model": self._named(event.model)})[1:-1])
        self._head = head
        self._before = head + b'"choices":[{"index":0,"delta":{"content":'
        self._after = b'},"logprobs":null,"finish_reason":null}]%b}\n\n' % self._no_usage
        return self._chunk({"role": "assistant", "content": "", "refusal": None}, None)

    def delta(self, number: int, text: str) -> bytes:  # noqa: ARG002 - these frames have no numbers
        return self._before + to_json(text) + self._after

    def refusal(self, number: int, text: str) -> bytes:  # noqa: ARG002
        self._refuses = True
        return self._chunk({"refusal": text}, None)

    def thought(self, number: int, words: str) -> bytes:  # noqa: ARG002 - by the name that compatible servers have
        return self._chunk({"reasoning_content": words}, None)

    def returned(self, number: int, reasoning: Reasoning) -> bytes:  # noqa: ARG002 - this API has no form for it
        return b""

    def stepped(self, number: int, step: ToolStep) -> bytes:  # noqa: ARG002 - this API has no such tools
        return b""

    def completed(self, number: int, end: ReplyCompleted) -> bytes:  # noqa: ARG002
        reply, frames = end.reply, b""
        if reply.finish_reason == "refusal" and not self._refuses:
            frames += self._chunk({"refusal": reply.text}, None)
        if reply.tool_calls:
            calls = enumerate(reply.tool_calls)
            asked = [{"index": n, "id": it.id, "type": "function", "function": it.function} for n, it in calls]
            frames += self._chunk({"tool_calls": asked}, None)
        frames += self._chunk({}, _FINISHES[reply.finish_reason])
        return frames + self._used(_usage(reply.usage, reply.cost, estimated=reply.estimated)) + _DONE

    def failed(self, number: int, problem: Problem) -> bytes:  # noqa: ARG002
        if isinstance(problem.error, ContentRefusedError) and self._head:
            charge, used = charge_of(problem), b""
            if charge is not None and charge.usage is not None:
                used = self._used(_usage(ReplyUsage.of(charge.usage), charge.cost, estimated=charge.estimated))
            return self._chunk({}, "content_filter") + used + _DONE
        return b"data: %b\n\n" % document(problem)

    def _chunk(self, delta: dict[str, object], finish_reason: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._head + b'"choices":[%b]%b}\n\n' % (to_json(choice), self._no_usage)

    def _used(self, usage: CompletionUsage) -> bytes:
        """The last chunk, where it is wanted."""
        return self._head + b'"choices":[],"usage":%b}\n\n' % to_json(usage) if self._wants_usage else b""

    @property
    def _no_usage(self) -> bytes:
        return b',"usage":null' if self._wants_usage else b""
