"""A model that says what it is told to: for tests and examples, with no network and no cost."""

import asyncio
import re
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from math import ceil

from msgspec import Struct
from msgspec.structs import replace

from textllm_adapters.memory.transcript import MemoryTranscript, digests
from textllm_core.errors import (
    ConversationBusyError,
    ConversationLostError,
    ProviderError,
    ProviderReport,
    TextLLMError,
)
from textllm_core.ids import new_id
from textllm_core.records.hosted import NOTHING_HOSTED, HostedItem, HostedOutput, ToolStep
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
from textllm_core.records.parts import InputImage, OutputText, Refusal
from textllm_core.records.thoughts import Reasoning, Thought
from textllm_core.records.tools import ToolCall
from textllm_core.usage import Usage

BYTES_PER_TOKEN = 4
IMAGE_TOKENS = 85


class ScriptedReply(Struct, frozen=True, kw_only=True):
    """One reply, or one failure.

    Args:
        text: what to say, cut in words; None is an echo that depends on the history: `[2] You said: hello` where
            two messages came before the new one. Where the conversation has images or files that were sent as they are,
            `Seen: 1f3a5c7e 99aa0b4d` follows: how the SHA-256 of each of them begins.
        deltas: what to say, already cut; takes the place of `text`.
        usage: None counts a token for each four bytes.
        refusal: what to say behind all that, as a refusal.
        tool_calls: what to ask the caller to run, behind the text; without a text of its own it then says nothing.
        hosted: what tools of the provider's do for it, each in two steps: those before the text are over before the
            first delta, but for the last `unfinished` of them; those after it come behind the last delta.
        status, is_estimate, finish_reason, content_filtered, service_tier, error_code: as `ModelEnded` has them.
        usage_stated: False leaves the usage out of the end.
        counted: what is stated of the usage before the first delta; None: nothing.
        thoughts: characters of reasoning, or words of it, a sign of life each, before the first delta.
        returned: what was thought, for a request that wants it, right before the first delta.
        pause_s: before each delta and each thought, in seconds.
        begins: the model takes the turn, or refuses it, once this is set.
        gate: everything after the first delta waits for it.
        error: raised in place of the end.
        after: how many deltas come before `error`; None raises it before the model starts.
        unheard: what `outcome` tells of a reply that raised `error` or was left by its reader; None is "not known". The
            transcript does not have its turn, as OpenAI's does not.
        is_whole: as `ModelStarted` has it.
    """

    text: str | None = None
    deltas: tuple[str, ...] | None = None
    usage: Usage | None = None
    usage_stated: bool = True
    is_estimate: bool = False
    thoughts: tuple[int | str, ...] = ()
    returned: Reasoning | None = None
    status: EndStatus = "completed"
    finish_reason: FinishReason = "stop"
    refusal: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    hosted: HostedOutput = NOTHING_HOSTED
    unfinished: int = 0
    content_filtered: bool = False
    service_tier: str | None = None
    error_code: str | None = None
    counted: Usage | None = None
    pause_s: float = 0.0
    begins: asyncio.Event | None = None
    gate: asyncio.Event | None = None
    error: TextLLMError | None = None
    after: int | None = None
    unheard: EndStatus | None = None
    is_whole: bool = False


class ScriptedLLM:
    """An `LLM` that plays scripted replies in their order, then echoes.

    A reply ends at `max_output_tokens`, as a real one would. `requests` are the calls it got, oldest first; `ended` has
    every response the model has finished, by its id, heard or not; `received` the SHA-256 of every file, by its key.

    Args:
        replies: the script; `script` adds to it.
        transcript: where conversations live that a request names by `transcript_id`; it takes turn and reply once the
            reply is complete.
        reads_images, reads_files: as the port has them.
    """

    def __init__(
        self,
        *replies: ScriptedReply,
        transcript: MemoryTranscript | None = None,
        reads_images: bool = True,
        reads_files: bool = True,
    ) -> None:
        self.reads_images = reads_images
        self.reads_files = reads_files
        self.received: dict[str, str] = {} if transcript is None else transcript.received
        self.requests: list[ModelRequest] = []
        self.ended: dict[str, ModelEnded] = {}
        self._script = deque(replies)
        self._transcript = transcript
        self._busy: set[str] = set()
        self._numbers = count(1)

    def script(self, *replies: ScriptedReply) -> None:
        """Say these next, after what is already scripted."""
        self._script.extend(replies)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Keeps `LLM.stream`."""
        self.requests.append(request)
        history = [*await self._past(request.transcript_id), *request.messages]
        if request.transcript_id in self._busy:
            raise ConversationBusyError
        reply = self._script.popleft() if self._script else ScriptedReply()
        if reply.begins is not None:
            await reply.begins.wait()
        if reply.error is not None and reply.after is None:
            raise reply.error
        self.received |= await digests(request.messages, request.read)
        if request.transcript_id is not None:
            self._busy.add(request.transcript_id)
        response_id = f"resp_scripted_{next(self._numbers)}"
        deltas, end = _play(reply, request, history, self.received)
        try:
            yield ModelStarted(response_id, request.model, f"req_{response_id}", reply.is_whole)
            for thought in reply.thoughts:
                await asyncio.sleep(reply.pause_s)
                yield ModelThinking(thought) if isinstance(thought, int) else ModelThinking(len(thought), thought)
            if reply.counted is not None:
                yield ModelCounted(reply.counted)
            for step in _steps(reply.hosted.before, unfinished=reply.unfinished):
                yield step
            if reply.returned is not None and request.returns_reasoning:
                yield Thought(reply.returned)
            for number, delta in enumerate(deltas):
                if reply.error is not None and number == reply.after:
                    raise reply.error
                await asyncio.sleep(reply.pause_s)
                yield TextDelta(delta)
                if number == 0 and reply.gate is not None:
                    await reply.gate.wait()
            if reply.refusal:
                yield TextDelta(reply.refusal, is_refusal=True)
            if reply.error is not None:
                raise reply.error
            for step in _steps(reply.hosted.after):
                yield step
            self._keep(request, end)
            self.ended[response_id] = end
        finally:
            if request.transcript_id is not None:
                self._busy.discard(request.transcript_id)
            if response_id not in self.ended and reply.unheard is not None:
                usage = None if reply.unheard == "cancelled" else end.usage  # as providers leave it out
                self.ended[response_id] = replace(end, status=reply.unheard, usage=usage)
        yield end

    async def outcome(self, provider_response_id: str) -> ModelEnded | None:
        """Keeps `LLM.outcome`."""
        return self.ended.get(provider_response_id)

    async def _past(self, transcript_id: str | None) -> Sequence[Message]:
        if transcript_id is None:
            return ()
        if self._transcript is None:
            raise ConversationLostError
        return await self._transcript.messages(transcript_id)

    def _keep(self, request: ModelRequest, end: ModelEnded) -> None:
        if self._transcript is None or request.transcript_id is None or end.status in ("failed", "cancelled"):
            return
        part = Refusal(end.text) if end.finish_reason == "refusal" else OutputText(end.text)
        content = end.tool_calls if end.tool_calls and not end.text else (part, *end.tool_calls)
        reply = Message(id=new_id("msg"), role="assistant", content=tuple(content), created_at=datetime.now(UTC))
        self._transcript.append(request.transcript_id, [*request.messages, reply])


def _play(
    reply: ScriptedReply, request: ModelRequest, history: Sequence[Message], received: Mapping[str, str]
) -> tuple[Sequence[str], ModelEnded]:
    is_silent = bool(reply.tool_calls or reply.refusal)
    text = reply.text if reply.text is not None else "" if is_silent else _echo(history, received)
    wanted = reply.deltas if reply.deltas is not None else tuple(re.findall(r"\S+\s*|\s+", text))
    deltas = _shortened(wanted, request.max_output_tokens * BYTES_PER_TOKEN)
    cut = "".join(deltas) != "".join(wanted)
    reason: FinishReason = "tool_calls" if reply.tool_calls else "refusal" if reply.refusal else reply.finish_reason
    counted = Usage(
        input_tokens=_tokens(request.instructions or "") + sum(map(_tokens_of, history)),
        output_tokens=_tokens("".join(deltas)),
    )
    return deltas, ModelEnded(
        status="incomplete" if cut and reply.status == "completed" else reply.status,
        usage=(reply.usage or counted) if reply.usage_stated else None,
        text="".join(deltas) + reply.refusal,
        finish_reason="length" if cut else reason,
        refusal=reply.refusal,
        tool_calls=() if cut else reply.tool_calls,
        hosted=reply.hosted,
        content_filtered=reply.content_filtered,
        service_tier=reply.service_tier,
        is_estimate=reply.is_estimate,
        error=None if reply.error_code is None else _reported(reply.error_code),
    )


def _steps(items: Sequence[HostedItem], *, unfinished: int = 0) -> Iterator[ToolStep]:
    for place, item in enumerate(items):
        yield ToolStep(HostedItem({**item.item, "status": "in_progress"}), is_done=False)
        if place < len(items) - unfinished:
            yield ToolStep(item, is_done=True)


def _reported(code: str) -> TextLLMError:
    error = ProviderError("The model could not finish its reply.")
    error.report = ProviderReport(code=code)
    return error


def _echo(history: Sequence[Message], received: Mapping[str, str]) -> str:
    seen = [received[part.key][:8] for message in history for part in message.stored_parts]
    results = " ".join(f"{result.call_id}={result.output}" for result in history[-1].tool_results)
    said = f"{history[-1].text_for_model}{' Results: ' if results else ''}{results}"
    return f"[{len(history) - 1}] You said: {said}{' Seen: ' if seen else ''}{' '.join(seen)}"


def _tokens_of(message: Message) -> int:
    parts = message.stored_parts
    files = sum(IMAGE_TOKENS if isinstance(part, InputImage) else ceil(part.size / BYTES_PER_TOKEN) for part in parts)
    return _tokens(message.text_for_model) + files


def _shortened(deltas: Sequence[str], room: int) -> list[str]:
    """The deltas up to `room` bytes; no character is cut."""
    kept: list[str] = []
    for delta in deltas:
        encoded = _encoded(delta)
        fitting = delta if len(encoded) <= room else encoded[:room].decode(errors="ignore")
        room -= len(encoded)
        if fitting:
            kept.append(fitting)
        if room <= 0:
            break
    return kept


def _tokens(text: str) -> int:
    return ceil(len(_encoded(text)) / BYTES_PER_TOKEN)


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogatepass")  # a delta may end in half of a pair
