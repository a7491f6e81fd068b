"""What `/v1/chat/completions` is asked: the body, and the turn that it stands for."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias, cast, get_args

from msgspec import UNSET, Struct, UnsetType

from textllm_core.chat.answer_messages import MAX_GIVEN
from textllm_core.chat.given_parts import GivenPart
from textllm_core.errors import InvalidRequestError
from textllm_core.records.messages import Message, TurnOptions
from textllm_core.records.parts import ContentPart, Refusal
from textllm_core.records.thoughts import Reasoning
from textllm_core.records.tools import (
    FunctionTool,
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedFunction,
    ResponseFormat,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from textllm_core.texts import well_formed
from textllm_core.wire import to_json
from textllm_http.openai_door.bodies import DoorBody
from textllm_http.openai_door.bounds import check_parts, check_tools, refuse_deep
from textllm_http.openai_door.errors import unserved
from textllm_http.openai_door.options import EFFORTS, MODES, VERBOSITIES, one_of, sampling
from textllm_http.openai_door.parts import WirePart, parts_of
from textllm_http.requests import JsonBody

Role: TypeAlias = Literal["user", "assistant", "system", "developer"]
_ROLES: Final = frozenset(get_args(Role))
_FORMATS: Final = ("text", "json_object", "json_schema")
_NO_TIME: Final = datetime(1970, 1, 1, tzinfo=UTC)  # when its caller says that something was said, nobody asks
# Of fields that OpenAI's API has. What is null, or says what is the case without it, was not sent.
_UNSERVED: Final = {
    "n": "only 1 is served; ask as often as you want choices",
    "store": "chat completions are not kept here; /v1/responses keeps what is said",
    "logprobs": "probabilities of tokens are not served; leave it out",
    "top_logprobs": "probabilities of tokens are not served; leave it out",
    "logit_bias": "is not served; leave it out",
    "modalities": "only text is served; leave it out",
    "audio": "only text is served; leave it out",
    "prediction": "is not served; leave it out",
    "web_search_options": "the tools of OpenAI's servers are not served here; bring a function of your own",
    "functions": "is the form of 2023; send tools",
    "function_call": "is the form of 2023; send tool_choice",
    "service_tier": "the tier is the operator's; leave it out, or send auto",
}
_SAY_NOTHING: Final[Mapping[str, Sequence[object]]] = {
    "n": (1,),
    "store": (False,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "functions": ([],),
    "function_call": ("auto", "none"),
    "service_tier": ("auto", "default"),
}


class CalledFunction(Struct, frozen=True):
    """A function that the model asked for, as it wrote it."""

    name: str | None = None
    arguments: str | None = None


class Call(Struct, frozen=True):
    """A call that the model asked for."""

    id: str | None = None
    type: str | None = None
    function: CalledFunction | None = None


class GivenMessage(Struct, frozen=True, kw_only=True):
    """What was said."""

    role: str
    content: str | list[WirePart] | None = None
    refusal: str | None = None
    reasoning_content: Any = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None
    function_call: Any = None
    audio: Any = None


class Function(Struct, frozen=True, kw_only=True):
    """A function that the model may ask for."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Struct, frozen=True):
    """Something that the model may use; there are functions alone."""

    type: str = "function"
    function: Function | None = None


class NamedFunctionTool(Struct, frozen=True):
    """One of the functions, by its name."""

    type: str = "function"
    function: CalledFunction | None = None


class AllowedTools(Struct, frozen=True):
    """Those that the model may use, of all that are there."""

    tools: list[NamedFunctionTool]
    mode: str = "auto"


class NamedTool(NamedFunctionTool, frozen=True):
    """What the model is to use: one function, or some of them."""

    allowed_tools: AllowedTools | None = None


class Schema(Struct, frozen=True, kw_only=True):
    """A schema that a reply is to keep."""

    name: str
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class Format(Struct, frozen=True):
    """The shape that a reply is to have."""

    type: str
    json_schema: Schema | None = None


class StreamOptions(Struct, frozen=True):
    """What a stream is to have besides."""

    include_usage: bool | None = None


class CompletionRequest(Struct, frozen=True, kw_only=True):
    """The body, as OpenAI's API has it; fields that nobody knows are ignored."""

    messages: list[GivenMessage]
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    tools: list[Tool] | None = None
    tool_choice: str | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: Format | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    n: Any = None
    store: Any = None
    logprobs: Any = None
    top_logprobs: Any = None
    logit_bias: Any = None
    modalities: Any = None
    audio: Any = None
    prediction: Any = None
    web_search_options: Any = None
    functions: Any = None
    function_call: Any = None
    service_tier: Any = None

    @property
    def wants_usage(self) -> bool:
        """A stream is to end with what it used."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def options(self) -> TurnOptions:
        """How the turn is to be answered.

        Raises:
            InvalidRequestError: something is asked for that is not served.
        """
        unserved({name: getattr(self, name) for name in _UNSERVED}, _UNSERVED, _SAY_NOTHING)
        tools, choice = _chosen(self.tool_choice, tuple(_functions(self.tools or ())))
        return TurnOptions(
            model=self.model,
            max_output_tokens=self._longest,
            temperature=self.temperature,
            metadata=self.metadata,
            tools=tools,
            # Without tools both say nothing, and some clients send them all the same.
            tool_choice=choice if tools or choice not in ("auto", "none") else None,
            parallel_tool_calls=self.parallel_tool_calls if tools else None,
            response_format=None if self.response_format is None else _format(self.response_format),
            reasoning_effort=(
                None if self.reasoning_effort is None else one_of(EFFORTS, self.reasoning_effort, "reasoning_effort")
            ),
            sampling=sampling(
                top_p=self.top_p,
                frequency_penalty=self.frequency_penalty,
                presence_penalty=self.presence_penalty,
                seed=self.seed,
                stop=[self.stop] if isinstance(self.stop, str) else self.stop,
                verbosity=None if self.verbosity is None else one_of(VERBOSITIES, self.verbosity, "verbosity"),
            ),
            cache_key=self.prompt_cache_key,
            tells_reasoning=True,
        )

    @property
    def _longest(self) -> int | None:
        """The longest reply, in tokens."""
        field = "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"
        longest = self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens
        if longest is not None and longest < 1:
            raise InvalidRequestError.of(field, "must be at least 1")
        return longest


COMPLETION: Final = JsonBody(CompletionRequest)


def messages_of(asked: CompletionRequest, body: DoorBody) -> list[tuple[Role, tuple[GivenPart, ...]]]:
    """What was said, message by message; results of calls that follow each other are one.

    Raises:
        InvalidRequestError: a message is none that can be sent.
    """
    _check_counts(asked.messages)
    said: list[tuple[Role, tuple[GivenPart, ...]]] = []
    results: list[ToolResult] = []
    for number, message in enumerate(asked.messages):
        place = f"messages[{number}]"
        if message.role == "tool":
            results.append(_result(message, body, place))
            continue
        if results:
            said.append(("user", tuple(results)))
            results.clear()
        if message.role not in _ROLES:
            raise InvalidRequestError.of(f"{place}.role", f"must be one of {', '.join(get_args(Role))} and tool")
        role = cast("Role", message.role)
        parts = parts_of(message.content, body, role=role, place=f"{place}.content")
        said.append((role, (*parts, *_said_beside(message, place)) if role == "assistant" else parts))
    if results:
        said.append(("user", tuple(results)))
    return said


def _check_counts(messages: Sequence[GivenMessage]) -> None:
    """Refuse what would cost more to look at than any conversation does."""
    if len(messages) > MAX_GIVEN:
        raise InvalidRequestError.of("messages", f"may be {MAX_GIVEN} at most")
    check_parts([message.content for message in messages], place="messages")
    check_parts([message.tool_calls for message in messages], place="messages")


def kept_by_caller(said: Sequence[tuple[Role, Sequence[ContentPart]]]) -> tuple[Message, ...]:
    """The same as the core has it."""
    return tuple(
        Message(id="", role=role, content=tuple(content), created_at=_NO_TIME) for role, content in said if content
    )


def _said_beside(message: GivenMessage, place: str) -> Iterator[ContentPart]:
    """What a reply had beside its text."""
    for name in ("function_call", "audio"):
        if getattr(message, name) is not None:
            raise InvalidRequestError.of(f"{place}.{name}", "is not served; send tool_calls, or the text")
    if message.refusal:
        yield Refusal(message.refusal)
    for number, call in enumerate(message.tool_calls or ()):
        field = f"{place}.tool_calls[{number}]"
        if call.type not in (None, "function") or call.function is None:
            raise InvalidRequestError.of(field, "must be the call of a function")
        if not call.id or not call.function.name:
            raise InvalidRequestError.of(field, "must have an id, and its function a name")
        thought = _thought(message.reasoning_content) if number == 0 else UNSET
        arguments = call.function.arguments or "{}"
        yield ToolCall(call_id=call.id, name=call.function.name, arguments=arguments, reasoning=thought)


def _thought(words: object) -> Reasoning | UnsetType:
    """What was thought before the calls of a message, which some providers demand back with them."""
    if not isinstance(words, str) or not words or "\0" in words or words != well_formed(words):
        return UNSET
    return Reasoning(made_by="", content=to_json({"reasoning_content": words}).decode())


def _result(message: GivenMessage, body: DoorBody, place: str) -> ToolResult:
    if not message.tool_call_id:
        raise InvalidRequestError.of(f"{place}.tool_call_id", "is required")
    content = message.content
    if not isinstance(content, str):
        parts = parts_of(content, body, role="tool", place=f"{place}.content")
        content = "".join(part.text for part in parts if not isinstance(part, Refusal) and hasattr(part, "text"))
    return ToolResult(call_id=message.tool_call_id, output=content)


def _functions(tools: Sequence[Tool]) -> Iterator[FunctionTool]:
    check_tools(tools)
    for number, tool in enumerate(tools):
        it = tool.function
        if tool.type != "function" or it is None:
            says = "must be of the type function: the tools of OpenAI's servers, and those of free text, are not served"
            raise InvalidRequestError.of(f"tools[{number}]", says)
        refuse_deep(it.parameters, f"tools[{number}].function.parameters")
        yield FunctionTool(name=it.name, description=it.description, parameters=it.parameters, strict=it.strict)


def _chosen(
    choice: str | NamedTool | None, functions: tuple[FunctionTool, ...]
) -> tuple[tuple[FunctionTool, ...], ToolChoice | None]:
    """The functions that the model may ask for, and whether it is to."""
    if not isinstance(choice, NamedTool):
        return functions, None if choice is None else one_of(MODES, choice, "tool_choice")
    if choice.type == "allowed_tools" and choice.allowed_tools is not None:
        named = {tool.function.name for tool in choice.allowed_tools.tools if tool.function is not None}
        mode = one_of(MODES, choice.allowed_tools.mode, "tool_choice.allowed_tools.mode")
        return tuple(function for function in functions if function.name in named), mode
    if choice.type != "function" or choice.function is None or not choice.function.name:
        says = "must be auto, none, required, allowed_tools, or name a function"
        raise InvalidRequestError.of("tool_choice", says)
    return functions, NamedFunction(choice.function.name)


def _format(shape: Format) -> ResponseFormat | None:
    if one_of(_FORMATS, shape.type, "response_format.type") != "json_schema":
        return JsonObjectFormat() if shape.type == "json_object" else None
    it = shape.json_schema
    if it is None or it.schema is None:
        raise InvalidRequestError.of("response_format.json_schema", "must have a name and a schema")
    refuse_deep(it.schema, "response_format.json_schema.schema")
    return JsonSchemaFormat(name=it.name, schema=it.schema, description=it.description, strict=it.strict)
