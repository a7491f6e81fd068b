"""What is said: messages and their parts, turns, replies, and the events of a reply that is being written."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import replace

from textllm_core.errors import Allowance, InvalidRequestError, TextLLMError
from textllm_core.fields import ConversationId, Estimated, ModelName, Text, Usd, UserId
from textllm_core.ids import new_id, new_response_id
from textllm_core.records.conversations import ConversationState
from textllm_core.records.hosted import HostedTools, ToolStep
from textllm_core.records.parts import (
    ContentPart,
    InputFile,
    InputImage,
    InputLink,
    InputText,
    OutputText,
    Refusal,
    approvals_asked,
    files_of,
    words_of,
)
from textllm_core.records.sampling import Sampling
from textllm_core.records.stored_responses import AskedResponse
from textllm_core.records.thoughts import Thought, ThoughtDelta
from textllm_core.records.tools import (
    FunctionTool,
    ReasoningEffort,
    ReasoningSummary,
    ReplyToolCall,
    ResponseFormat,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from textllm_core.uploads import Attached
from textllm_core.usage import Kind, Usage
from textllm_core.wire import Record

MessageRole = Literal["user", "assistant", "system", "developer"]
"""Who says a message; the last two instruct the model from where they stand."""
FinishReason = Literal["stop", "length", "refusal", "tool_calls", "cancelled"]
"""Why a reply ended: all was said, a limit of tokens was reached, the model refused, asks for functions, or was cut."""
MessageEnd = FinishReason | Literal["error"]


class Message(Record, frozen=True, kw_only=True):
    """One message of a conversation. `status` is `incomplete` where a reply was cut short.

    Args:
        estimated: of a reply: what it cost is an estimate; None where nobody knows, and for what a user said.
        finish_reason: of a reply: why it ended where it does; `error`: it broke off. None as with `estimated`.
    """

    id: str
    role: MessageRole
    content: tuple[ContentPart, ...]
    created_at: datetime
    status: Literal["completed", "incomplete"] = "completed"
    estimated: bool | None = None
    finish_reason: MessageEnd | None = None

    @property
    def text(self) -> str:
        """All that was said in it, in order; files are not."""
        return "".join(part.text for part in self.content if isinstance(part, InputText | OutputText | Refusal))

    @property
    def text_for_model(self) -> str:
        """All that can be told of it in words: what was said, and the text of files."""
        if all(isinstance(part, InputText | OutputText | Refusal) for part in self.content):
            return self.text
        return "\n\n".join(words for part in self.content if (words := words_of(part)) is not None)

    @property
    def files_alone(self) -> "Message | None":
        """The message without all that it says; None where it has no files."""
        files = files_of(self.content)
        return replace(self, content=files) if files else None

    @property
    def stored_parts(self) -> tuple[InputImage | InputFile, ...]:
        """Its parts whose bytes the model is to be sent."""
        return tuple(
            part
            for part in self.content
            if isinstance(part, InputImage) or (isinstance(part, InputFile) and part.extracted is None)
        )

    @property
    def has_shown_parts(self) -> bool:
        """Whether the model is to read images or files in it by itself."""
        return bool(self.stored_parts) or any(isinstance(part, InputLink) for part in self.content)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """What the model asks its caller to run."""
        return tuple(part for part in self.content if isinstance(part, ToolCall))

    @property
    def open_calls(self) -> tuple[str, ...] | None:
        """The ids of its calls, which wait for their results or for approvals; None where there are none."""
        asked = approvals_asked(self.id, self.content) if self.status == "completed" else ()
        return (*(call.call_id for call in self.tool_calls), *asked) or None

    @property
    def tool_results(self) -> tuple[ToolResult, ...]:
        """What came of the calls of the message before it."""
        return tuple(part for part in self.content if isinstance(part, ToolResult))

    @property
    def last_image(self) -> str | None:
        """The key of its last image; None: it has none of its own."""
        images = (part for part in reversed(self.content) if isinstance(part, InputImage) and not part.is_borrowed)
        return next((part.key for part in images), None)


class TurnOptions(Record, frozen=True, kw_only=True):
    """How a turn is to be answered; None leaves it to the operator.

    Args:
        prompt: the name of one of the operator's system prompts; `instructions`: a system prompt itself; not both.
        max_output_tokens: at least 1; lowered to the operator's ceiling and to what the budget leaves. The Responses
            API takes no less than 16: below that the reply is cut, and the 16 are charged that were written.
        temperature: 0 to 2; reasoning models refuse it.
        metadata: for the provider and the ledger: at most 16 pairs, keys of 64 and values of 512 characters.
        tools: functions that the model may ask for; `tool_choice`: whether it is to; `parallel_tool_calls`: several.
        response_format: the shape that the reply is to have; None: plain text.
        reasoning_effort: how much a reasoning model is to think; `reasoning_summary`: how it is to sum that up.
        sampling: how it is to choose its words otherwise.
        cache_key: what requests with the same beginning have in common, for the provider's cache; None: as it fits.
        hosted: tools that run on the provider's own servers, of those that its operator allows.
        tells_reasoning: the reply tells what was thought, in words; `returns_reasoning`: as it goes back, too.
    """

    model: str | None = None
    prompt: str | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    metadata: Mapping[str, str] | None = None
    tools: Sequence[FunctionTool] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: ReasoningEffort | None = None
    reasoning_summary: ReasoningSummary | None = None
    sampling: Sampling | None = None
    cache_key: str | None = None
    hosted: HostedTools | None = None
    tells_reasoning: bool = False
    returns_reasoning: bool = False


class Idempotency(Record, frozen=True):
    """Makes a turn safe to send again: a repeat is told what the first one came to, and the model is asked once.

    Args:
        key: the client's; `scope`: where it counts, such as a route; both within the tenant, for 24 hours.
        fingerprint: a digest of the whole request; the same key with another one is refused.
    """

    key: str
    scope: str
    fingerprint: str

    def __post_init__(self) -> None:
        """
        Raises:
            InvalidRequestError: the key is none that can be sent anywhere.
        """
        if not (self.key.isascii() and self.key.isprintable() and " " not in self.key and 0 < len(self.key) < 256):
            raise InvalidRequestError.of("Idempotency-Key", "must be 1 to 255 visible ASCII characters, given once")

    def within(self, user_id: str | None) -> "Idempotency":
        """The same as the books know it: of the key, in which clients write what they like, a digest alone.

        Args:
            user_id: whom alone the caller may act for: it repeats nothing that another user sent.
        """
        scope = self.scope if user_id is None else f"{user_id} {self.scope}"
        return replace(self, key=sha256(self.key.encode()).hexdigest(), scope=scope)


class TextTurn(Record, frozen=True):
    """What a user says in plain text. Without `conversation_id` it starts a conversation; without `user_id` a user.

    Args:
        is_resumable: what the reply says is kept, so that any process can read it on, for `Retention.journals` longer.
        tool_results: what came of the calls of the last reply; then `text` may be empty. Calls without a result are
            told to the model as such.
    """

    text: str
    conversation_id: str | None = None
    user_id: str | None = None
    options: TurnOptions = TurnOptions()
    idempotency: Idempotency | None = None
    is_resumable: bool = False
    tool_results: Sequence[ToolResult] = ()


class TurnNames(Record, frozen=True):
    """The ids of a turn's reply, by which the books know it, and of the message that it becomes."""

    response_id: str
    message_id: str

    @classmethod
    def new(cls, now: datetime) -> "TurnNames":
        return cls(new_response_id(now), new_id("msg"))


def reply_message_id(response_id: str) -> str:
    """The id of the message that a reply becomes: whoever knows the reply can name it before it is written."""
    return f"msg_{response_id.removeprefix('resp_')}"


class Turn(Record, frozen=True, kw_only=True):
    """Any turn once its own use case has checked it: the user's content, ready for the exchange.

    Args:
        token_bound: an upper bound of the tokens that the content makes.
        is_resumable: what the reply says is kept, so that any process can read it on, for `Retention.journals` longer.
        is_streamed: as `MessagesTurn` has it; what is resumable is, too.
        allowance: what is left of the user's rate limit, where the turn has been counted already.
        file_tokens: about how many of them its files, and what is `given`, make, for an estimate.
        show_files: lets be seen what was stored for it, once it is admitted; raises StorageUnavailableError.
        attached: its files that are stored nowhere; None: all are.
        discard_files: undoes what was stored for it, where its conversation keeps nothing of it. Raises nothing.
        since: when its caller began to wait, by the clock of the loop; None: now.
        given: what was said before, by the caller's own account; None: as its conversation has it. With it the turn
            goes on in none, nothing of it is kept, and `content` may be empty. The tokens count it, too.
        expires_in: the conversation that it begins is in no list, and goes so long after its last turn; None: it stays.
        before: what is said right before it, by whomever, and is kept with it.
        names: the ids of its reply and of its message; None: new ones.
        charged_id: who is charged in the place of a user whom nobody named; None: whoever else is.
        state: of its conversation, as it was read for it just now; None: it is read when the turn is admitted.
        response: what is kept of it, so that it can be asked for again; None: nothing.
    """

    kind: Kind
    content: tuple[ContentPart, ...]
    token_bound: int
    conversation_id: str | None
    user_id: str | None
    options: TurnOptions
    idempotency: Idempotency | None = None
    is_resumable: bool = False
    is_streamed: bool = False
    allowance: Allowance | None = None
    file_tokens: int = 0
    show_files: Callable[[], Coroutine[None, None, None]] | None = None
    attached: Attached | None = None
    discard_files: Callable[[], Coroutine[None, None, None]] | None = None
    since: float | None = None
    given: tuple[Message, ...] | None = None
    expires_in: timedelta | None = None
    before: tuple[Message, ...] = ()
    names: TurnNames | None = None
    charged_id: str | None = None
    state: ConversationState | None = None
    response: AskedResponse | None = None

    @property
    def is_aside(self) -> bool:
        """It asks about the conversation without becoming a part of it: only its answer is kept, as the summary."""
        return self.kind == "summary"

    @property
    def files(self) -> tuple[InputImage | InputFile, ...]:
        """Its images and documents, without extracted text."""
        return files_of(self.content)


class ReplyUsage(Record, frozen=True):
    """Tokens of a reply, by their wire names; `cached` is a part of `input`, `reasoning` of `output`."""

    input: Annotated[int, Meta(description="Tokens that the model read.")]
    output: Annotated[int, Meta(description="Tokens that the model wrote.")]
    total: Annotated[int, Meta(description="All of them together.")]
    cached: Annotated[int, Meta(description="Those of `input` that the provider had in its cache.")]
    reasoning: Annotated[int, Meta(description="Those of `output` that were thought and not said.")]
    cache_write: Annotated[
        int | UnsetType,
        Meta(description="Those of `input` that the provider wrote to its cache; left out where there are none."),
    ] = UNSET

    @classmethod
    def of(cls, usage: Usage) -> "ReplyUsage":
        return cls(
            input=usage.input_tokens,
            output=usage.output_tokens,
            total=usage.total_tokens,
            cached=usage.cached_tokens,
            reasoning=usage.reasoning_tokens,
            cache_write=usage.cache_write_tokens or UNSET,
        )


class Reply(Record, frozen=True, kw_only=True):
    """The model's answer to a turn, settled in the books; its encoding is the wire shape of `/chat`."""

    text: Text
    conversation_id: ConversationId
    user_id: UserId
    message_number: Annotated[int, Meta(description="Which turn of the conversation it is: 1 for the first.")]
    usage: Annotated[ReplyUsage, Meta(description="Tokens, as the provider counts them.")]
    cost: Usd
    estimated: Estimated = False
    response_id: Annotated[str, Meta(description="The id of the reply.")]
    session_id: Annotated[str, Meta(description="The session: the UTC day of whoever is charged.")]
    model: ModelName
    finish_reason: Annotated[
        FinishReason,
        Meta(
            description="`stop`: the model had said all; `length`: it reached a limit of tokens; `refusal`: it would "
            "not answer; `tool_calls`: it waits for the results of `tool_calls`, which the next turn brings; "
            "`cancelled`: the stream was cancelled, and `text` is what had been written."
        ),
    ]
    tool_calls: Annotated[
        Sequence[ReplyToolCall] | UnsetType,
        Meta(description="What the model asks you to run; left out where there is nothing."),
    ] = UNSET
    warnings: Annotated[
        Sequence[str],
        Meta(
            description="For the user, such as that most of the day's budget is spent; of a document what may be "
            "wrong or missing in its text, such as `page 4 may be garbled`."
        ),
    ] = msgspec.field(default_factory=tuple)


class ReplyStarted(Record, frozen=True):
    """The model has begun, or a stream has waited long for it; until now a refusal was still an error.

    Args:
        is_replayed: the events are those of an earlier turn with the same idempotency key.
        allowance: what is left of the user's rate limit; None for a replay.
    """

    response_id: str
    conversation_id: str
    user_id: str
    session_id: str
    model: str
    is_replayed: bool = False
    allowance: Allowance | None = None


class TextDelta(Record, frozen=True, gc=False):  # there are many of them, and they hold nothing but a text
    """The next piece of the reply's text, never empty; `is_refusal`: in it the model says why it would not answer."""

    text: str
    is_refusal: bool = False


class ReplyCompleted(Record, frozen=True):
    """The end: the whole reply, settled `at`; None in what earlier versions remember.

    Args:
        files: the images and documents of the turn, for links.
        content: the parts of the message that the reply is, where `reply` does not say all that is told of them.
    """

    reply: Reply
    files: tuple[InputImage | InputFile, ...] = ()
    content: tuple[ContentPart, ...] = ()
    at: datetime | None = None

    @property
    def parts(self) -> tuple[ContentPart, ...]:
        """The parts of the message that the reply is, as far as they are told."""
        reply = self.reply
        calls = tuple(call.kept for call in reply.tool_calls) if reply.tool_calls else ()
        if self.content or (calls and not reply.text):
            return self.content or calls
        return (Refusal(reply.text) if reply.finish_reason == "refusal" else OutputText(reply.text), *calls)


class ReplyFailed(Record, frozen=True):
    """The end: the reply broke off; what was billed is settled, or will be."""

    response_id: str
    error: TextLLMError

    def to_dict(self) -> dict[str, object]:
        error = self.error
        return {"response_id": self.response_id, "code": error.code, "detail": str(error), **error.details()}


ReplyEvent = ReplyStarted | TextDelta | ThoughtDelta | Thought | ToolStep | ReplyCompleted | ReplyFailed
"""What a stream yields: `ReplyStarted`, any number of pieces and steps, then `ReplyCompleted` or `ReplyFailed`."""
