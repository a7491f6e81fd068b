"""Functions of the caller's that a model may ask for, and the shape that its answer is to have."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypeAlias

from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import replace

from textllm_core.records.thoughts import Reasoning
from textllm_core.wire import Record

ToolMode: TypeAlias = Literal["auto", "none", "required"]
ReasoningEffort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
ReasoningSummary: TypeAlias = Literal["auto", "concise", "detailed"]
JsonSchema: TypeAlias = Mapping[str, object]

CallId: TypeAlias = Annotated[str, Meta(description="The id of the call.")]
FunctionName: TypeAlias = Annotated[str, Meta(description="The name of the function.")]
Arguments: TypeAlias = Annotated[
    str, Meta(description="The function's arguments: JSON, as the model wrote it. Check it before use.")
]

MAX_TOOLS: Final = 128  # the most that OpenAI takes
MAX_NAME_CHARS: Final = 64  # of a function or a schema, as OpenAI has it


class ShownCall(Record, frozen=True, kw_only=True, tag="function_call"):
    """A call as everybody may see it.

    Args:
        call_id: the provider's, by which the result is told.
        arguments: JSON, as the model wrote it: it may be none, or not fit the function's schema.
        beside: JSON of what some providers put beside the call and want back with it, as the signature of a thought.
    """

    call_id: CallId
    name: FunctionName
    arguments: Arguments
    beside: Annotated[
        str | UnsetType, Meta(description="What the provider put beside the call, as JSON; it gets that back.")
    ] = UNSET


class ToolCall(ShownCall, frozen=True, kw_only=True, tag="function_call"):
    """The model asks the caller to run a function; the next turn brings what came of it.

    Args:
        reasoning: what the model thought before this call, in a conversation's own record.
    """

    reasoning: Reasoning | UnsetType = UNSET

    @property
    def shown(self) -> ShownCall:
        """The call as everybody may see it."""
        return self if self.reasoning is UNSET else replace(self, reasoning=UNSET)


class ToolResult(Record, frozen=True, kw_only=True, tag="function_call_output"):
    """What came of a call, in any words."""

    call_id: CallId
    output: Annotated[str, Meta(description="What came of the call.")]


class FunctionTool(Record, frozen=True, kw_only=True):
    """A function that the model may ask for.

    Args:
        parameters: JSON Schema of its arguments; None: it takes none.
        strict: the arguments are to keep the schema exactly; None leaves it to the provider.
    """

    name: str
    description: str | None = None
    parameters: JsonSchema | None = None
    strict: bool | None = None


class NamedFunction(Record, frozen=True):
    """The one function that the model is to ask for."""

    name: str


ToolChoice: TypeAlias = ToolMode | NamedFunction
"""Whether the model is to ask for a function: as it likes, never, in any case, or for this one."""


class JsonObjectFormat(Record, frozen=True):
    """The reply is to be some JSON object."""


class JsonSchemaFormat(Record, frozen=True, kw_only=True):
    """The reply is to be JSON that keeps a schema.

    Args:
        strict: exactly; None leaves it to the provider.
    """

    name: str
    schema: JsonSchema
    description: str | None = None
    strict: bool | None = None


ResponseFormat: TypeAlias = JsonObjectFormat | JsonSchemaFormat
"""The shape that a reply is to have, other than plain text."""


class CalledFunction(Record, frozen=True):
    """A function, and what it is to be called with."""

    name: FunctionName
    arguments: Arguments


class ReplyToolCall(Record, frozen=True, tag="function"):
    """A call as a reply tells it; the wire shape is that of the Chat Completions API."""

    id: Annotated[str, Meta(description="Its id, by which the next turn tells its result.")]
    function: Annotated[CalledFunction, Meta(description="What it is to run.")]

    @classmethod
    def of(cls, call: ToolCall) -> "ReplyToolCall":
        return cls(call.call_id, CalledFunction(call.name, call.arguments))

    @property
    def kept(self) -> ToolCall:
        """The call as a message has it, as far as it is told."""
        return ToolCall(call_id=self.id, name=self.function.name, arguments=self.function.arguments)
