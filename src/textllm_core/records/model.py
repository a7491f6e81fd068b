"""One call of a model: what it is asked, and what comes back."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from decimal import Decimal
from typing import Literal

from msgspec.structs import replace

from textllm_core.errors import TextLLMError
from textllm_core.records.hosted import NOTHING_HOSTED, HostedOutput, HostedTools, ToolStep, most_of
from textllm_core.records.messages import FinishReason, Message, TextDelta
from textllm_core.records.parts import InputText
from textllm_core.records.sampling import Sampling
from textllm_core.records.thoughts import Thought
from textllm_core.records.tools import (
    FunctionTool,
    ReasoningEffort,
    ReasoningSummary,
    ResponseFormat,
    ToolCall,
    ToolChoice,
)
from textllm_core.usage import Usage
from textllm_core.wire import Record

EndStatus = Literal["completed", "incomplete", "failed", "cancelled"]


ReadBlob = Callable[[str], AsyncIterator[bytes]]
"""Reads the bytes of a file that goes with a message, by its key."""


class ModelRequest(Record, frozen=True, kw_only=True):
    """One call of a model.

    Args:
        messages: oldest first; the last is the new turn, the user's. With `transcript_id` it is the only one.
        transcript_id: the conversation on the provider's side which already holds all earlier messages.
        instructions: the system prompt.
        max_output_tokens: the longest reply, in tokens, reasoning included. A provider that takes no number so small is
            asked for its least, and what is told of the reply ends where it should.
        safety_identifier: a hash that stands for the end user.
        cache_key: the same for all turns of a conversation.
        tools, tool_choice, parallel_tool_calls, response_format, reasoning_effort, sampling: as `TurnOptions` has them.
            Each call in the messages has its result in the message that follows.
        reasoning_summary: as `TurnOptions` has it; a provider that has none tells what it tells anyway.
        hosted: tools of the provider's own that it may use, `hosted.most_calls` times at most.
        returns_reasoning: a `Thought` is to come before the text, where the provider can be brought that back.
        read: the bytes of an image or a file in the messages, by its key, in pieces of at most 1 MiB. They are read
            while the call is made, again for each further try, and not kept; it raises StoredFileNotFoundError or
            StorageUnavailableError. None where no message has any.
    """

    model: str
    messages: tuple[Message, ...]
    instructions: str | None
    max_output_tokens: int
    safety_identifier: str
    cache_key: str
    transcript_id: str | None = None
    temperature: float | None = None
    metadata: Mapping[str, str] | None = None
    tools: Sequence[FunctionTool] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: ReasoningEffort | None = None
    reasoning_summary: ReasoningSummary | None = None
    sampling: Sampling | None = None
    hosted: HostedTools | None = None
    returns_reasoning: bool = False
    read: ReadBlob | None = None

    @property
    def user_first(self) -> tuple[Message, ...]:
        """The messages, behind a turn of the user's without words where the assistant speaks first.

        The templates of many models take no other beginning, and no turn that is empty; OpenAI's own take any.
        """
        first = next((place for place, each in enumerate(self.messages) if each.role in ("user", "assistant")), 0)
        if not self.messages or self.messages[first].role != "assistant":
            return self.messages
        greeting = self.messages[first]
        silence = Message(id="", role="user", content=(InputText("."),), created_at=greeting.created_at)
        return (*self.messages[:first], silence, *self.messages[first:])


class ModelStarted(Record, frozen=True):
    """The model took the call.

    Args:
        provider_response_id, model: the provider's words; the id is None where it keeps no responses to ask for.
        request_id: by which its support finds the call; None where it has not said so.
        is_whole: all of its reply has come by now, so that its end follows at once.
    """

    provider_response_id: str | None
    model: str
    request_id: str | None = None
    is_whole: bool = False


class ModelThinking(Record, frozen=True, gc=False):
    """A sign of life that is no text of the reply: the model reasons, or writes a call of a function.

    Args:
        characters: of that which were received.
        words: what it reasons, where the model tells it.
    """

    characters: int
    words: str = ""


class ModelCounted(Record, frozen=True, gc=False):
    """What the provider states in the midst of a reply that it has used so far; one that breaks off costs no less."""

    usage: Usage


class ModelEnded(Record, frozen=True, kw_only=True):
    """The model's own account of how the reply ended.

    Args:
        status: the text of `failed` and `cancelled` is what came before the failure.
        finish_reason: of a `completed` or `incomplete` reply.
        refusal: how `text` ends where the model refuses: the part that says why; empty: all of the text is it.
        tool_calls: what a `completed` reply asks the caller to run.
        hosted: what tools of the provider's own did for it, by its output; each call there is charged.
        usage: None where the provider did not say.
        is_estimate: what it says of the usage cannot be all of it, so that a part of `usage` is estimated.
        content_filtered: the provider's filter ended the reply.
        service_tier: the tier that priced it; None where not said.
        cost: USD that the provider says it charges, where the operator trusts that; None: by the price.
        error: what a failure means to the caller; None where the provider does not say.
    """

    status: EndStatus
    usage: Usage | None
    is_estimate: bool = False
    text: str = ""
    finish_reason: FinishReason = "stop"
    refusal: str = ""
    tool_calls: Sequence[ToolCall] = ()
    hosted: HostedOutput = NOTHING_HOSTED
    content_filtered: bool = False
    service_tier: str | None = None
    cost: Decimal | None = None
    error: TextLLMError | None = None

    def charged(self, estimate: Usage) -> tuple[Usage, bool]:
        """The usage to charge, and whether it is estimated.

        `estimate`, of what was sent and received, is taken for what the provider left out. A failure that states no
        usage, and of which nothing was received, was not billed. Calls of tools are charged that either of both tells.
        """
        usage, estimated = self._tokens(estimate)
        calls = most_of(self.hosted.calls, estimate.tool_calls)
        return (replace(usage, tool_calls=calls) if calls else usage), estimated

    def _tokens(self, estimate: Usage) -> tuple[Usage, bool]:
        if self.usage is None:
            return (Usage(), False) if self.is_final and not estimate.output_tokens else (estimate, True)
        if self.is_estimate and self.usage.input_tokens == 0:  # something was sent
            return replace(self.usage, input_tokens=estimate.input_tokens), True
        return self.usage, self.is_estimate

    @property
    def error_code(self) -> str | None:
        """The provider's code of a failure, for operators."""
        return self.error.report.code if self.error and self.error.report else None

    @property
    def is_final(self) -> bool:
        """Whether it settles what the reply costs: by its usage; or it failed, for which alone nobody is billed."""
        return self.usage is not None or self.status == "failed"

    @property
    def is_over(self) -> bool:
        """Whether the provider will say no more about it."""
        return self.is_final or self.status == "cancelled"


ModelEvent = ModelStarted | ModelThinking | ModelCounted | Thought | TextDelta | ToolStep | ModelEnded
"""What an `LLM` says while it answers."""
