"""What a repeat of a turn is told: the same ids, the same text, the same end."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import UNSET, Struct
from msgspec.structs import replace

from textllm_core.errors import Charge, ProviderError, TextLLMError
from textllm_core.errors.retold import retold
from textllm_core.records.hosted import HostedItem, ToolStep
from textllm_core.records.ledger import Replay
from textllm_core.records.messages import Reply, ReplyCompleted, ReplyEvent, ReplyFailed, ReplyStarted, TextDelta
from textllm_core.records.parts import ContentPart, InputFile, InputImage, OutputText, Refusal
from textllm_core.records.thoughts import Thought, ThoughtDelta
from textllm_core.records.tools import ToolCall


class _Failure(Struct, frozen=True):
    code: str
    message: str
    charge: Charge | None = None
    told: Mapping[str, Any] = {}


class _Remembered(Struct, frozen=True):
    started: ReplyStarted | None
    reply: Reply | None
    failure: _Failure | None
    files: tuple[InputImage | InputFile, ...] = ()
    content: tuple[ContentPart, ...] = ()
    at: datetime | None = None
    response_id: str | None = None


def remembered_reply(started: ReplyStarted, end: ReplyCompleted) -> bytes:
    """A completed reply, but for what only its settlement counts."""
    begun = replace(started, allowance=None)
    return msgspec.json.encode(_Remembered(begun, end.reply, None, end.files, end.content, end.at))


def remembered_failure(started: ReplyStarted | None, error: TextLLMError, *, response_id: str | None = None) -> bytes:
    """A failure; `started` where the reply had begun; `response_id` where there is something by that name."""
    begun = replace(started, allowance=None) if started else None
    failure = _Failure(error.code, str(error), error.charge, _told(error))
    return msgspec.json.encode(_Remembered(begun, None, failure, response_id=response_id))


def replayed(replay: Replay, warnings: Sequence[str]) -> Iterator[ReplyEvent]:
    """The events of a turn that was settled before; `warnings` are those of its reply.

    Raises:
        TextLLMError: it had failed before it began.
    """
    kept = msgspec.json.decode(replay.remembered, type=_Remembered)
    end = replayed_end(replay, warnings)
    if isinstance(end, ReplyFailed):
        end.error.is_replayed, end.error.replayed_id = True, kept.response_id
        if kept.started is None:
            raise end.error
    if kept.started is not None:
        yield replace(kept.started, is_replayed=True)
    if isinstance(end, ReplyCompleted):
        for part in end.parts:
            if isinstance(part, HostedItem):
                yield ToolStep(part, is_done=True)
            if isinstance(part, OutputText | Refusal | ToolCall) and part.reasoning:
                yield from _thoughts(part)
            if isinstance(part, OutputText | Refusal) and part.text:
                yield TextDelta(part.text, isinstance(part, Refusal))
    yield end


def _thoughts(part: OutputText | Refusal | ToolCall) -> Iterator[ReplyEvent]:
    """What was thought before the part; what goes back with a call, the end tells."""
    reasoning = part.reasoning
    if reasoning and reasoning.words:
        yield ThoughtDelta(reasoning.words)
    if reasoning and reasoning.content and not isinstance(part, ToolCall):
        yield Thought(replace(reasoning, words=UNSET))


def replayed_end(replay: Replay, warnings: Sequence[str], *, response_id: str = "") -> ReplyCompleted | ReplyFailed:
    """How an exchange ended that is settled.

    Args:
        response_id: of an exchange whose failure remembers no beginning.
    """
    kept = msgspec.json.decode(replay.remembered, type=_Remembered)
    if kept.reply is not None:
        reply = replace(kept.reply, message_number=replay.message_number, warnings=warnings)
        return ReplyCompleted(reply, kept.files, kept.content, kept.at)
    assert kept.failure is not None
    error = error_of(kept.failure.code, kept.failure.message, kept.failure.told)
    error.charge = kept.failure.charge
    return ReplyFailed(kept.started.response_id if kept.started else response_id, error)


def error_of(code: str, message: str, told: Mapping[str, Any] = MappingProxyType({})) -> TextLLMError:
    """The error of a turn that was admitted, by what is kept of it."""
    return retold(code, message, told) or ProviderError(message)


def _told(error: TextLLMError) -> Mapping[str, Any]:
    """What its caller acts on besides the code, but for what it costs."""
    return {name: value for name, value in error.details().items() if name not in ("cost", "estimated")}
