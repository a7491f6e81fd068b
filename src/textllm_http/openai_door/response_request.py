"""What `/v1/responses` is asked: the body, what it asks for, and what of it a response tells again."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from textllm_core.errors import InvalidRequestError
from textllm_core.records.hosted import KINDS, HostedTool, HostedTools
from textllm_core.records.messages import TurnOptions
from textllm_core.records.sampling import Verbosity
from textllm_core.records.tools import (
    FunctionTool,
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedFunction,
    ReasoningEffort,
    ReasoningSummary,
    ResponseFormat,
    ToolChoice,
)
from textllm_http.openai_door.bounds import check_tools, refuse_deep
from textllm_http.openai_door.client_tools import flattened, names_of, wire_name
from textllm_http.openai_door.errors import unserved
from textllm_http.openai_door.hosted import CHOICES, hosted_tools, is_hosted, told_tool
from textllm_http.openai_door.options import EFFORTS, MODES, SUMMARIES, VERBOSITIES, one_of, sampling
from textllm_http.openai_door.reasoning import ENCRYPTED
from textllm_http.openai_door.shaping import shaped_at
from textllm_http.requests import JsonBody

_UNSERVED: Final = {
    "prompt": "prompts that OpenAI keeps are not served here; send instructions",
    "context_management": "is not served; what was said is sent as it is, up to the setting max_history_items",
    "top_logprobs": "probabilities of tokens are not served; leave it out",
    "truncation": "only disabled is served; send less, or begin anew",
    "service_tier": "the tier is the operator's; leave it out, or send auto",
    "moderation": "is not served; leave it out",
}
_SAY_NOTHING: Final[Mapping[str, Sequence[object]]] = {
    "context_management": ([],),
    "top_logprobs": (0,),
    "truncation": ("disabled",),
    "service_tier": ("auto", "default"),
}
_BY_NAME: Final = ("function", "custom")
_OF_CUSTOM: Final = ("type", "name", "description", "format")
_LOGPROBS: Final = "message.output_text.logprobs"


class NamedConversation(Struct, frozen=True):
    """A conversation, by its id."""

    id: str


class ResponseTool(Struct, frozen=True, kw_only=True):
    """A function that the model may use."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class AllowedTool(Struct, frozen=True, kw_only=True):
    """One of those that the model may use."""

    type: str
    name: str | None = None
    namespace: str | None = None
    server_label: str | None = None

    def is_of(self, tool: HostedTool) -> bool:
        """Whether it names this tool of the provider's."""
        label = tool.definition.get("server_label")
        return KINDS.get(self.type) == tool.kind and (tool.kind != "mcp" or self.server_label == label)


class ChosenTool(Struct, frozen=True, kw_only=True):
    """What the model is to use: one tool, or some of them."""

    type: str
    name: str | None = None
    namespace: str | None = None
    server_label: str | None = None
    mode: str | None = None
    tools: list[AllowedTool] | None = None


class ResponseTextFormat(Struct, frozen=True, kw_only=True):
    """The shape that a reply is to have."""

    type: str
    name: str | None = None
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseText(Struct, frozen=True):
    """How a reply is to be written."""

    format: ResponseTextFormat | None = None
    verbosity: str | None = None


class ResponseReasoning(Struct, frozen=True):
    """How much a model is to think, and how it is to sum that up, by a name of today or of before."""

    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None

    @property
    def asked_summary(self) -> ReasoningSummary | None:
        asked = self.summary or self.generate_summary
        return None if asked is None else one_of(SUMMARIES, asked, "reasoning.summary")


_NO_TEXT, _NO_REASONING = ResponseText(), ResponseReasoning()


class ResponseRequest(Struct, frozen=True, kw_only=True):
    """The body, as OpenAI's API has it; fields that nobody knows are ignored."""

    input: str | list[Any] | None = None
    model: str | None = None
    instructions: str | None = None
    stream: bool | None = None
    store: bool | None = None
    background: bool | None = None
    conversation: str | NamedConversation | None = None
    previous_response_id: str | None = None
    metadata: dict[str, str] | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    text: ResponseText | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | ChosenTool | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: int | None = None
    reasoning: ResponseReasoning | None = None
    include: list[str] | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    user: str | None = None
    prompt: Any = None
    context_management: Any = None
    top_logprobs: Any = None
    truncation: Any = None
    service_tier: Any = None
    moderation: Any = None

    @property
    def conversation_id(self) -> str | None:
        """The conversation that it is said in."""
        return self.conversation.id if isinstance(self.conversation, NamedConversation) else self.conversation

    @property
    def returns_reasoning(self) -> bool:
        """Its client brings back what the model thinks."""
        return ENCRYPTED in (self.include or ())

    @property
    def options(self) -> TurnOptions:
        """How the turn is to be answered.

        Raises:
            InvalidRequestError: something is asked for that is not served.
        """
        self._check_served()
        given, include = self.tools or (), self.include or ()
        functions = tuple(_functions(given)) if given else ()
        hosted = hosted_tools(given, include=include, max_tool_calls=self.max_tool_calls)
        allowed, hosted, choice = _chosen(self.tool_choice, functions, hosted, given)
        return TurnOptions(
            model=self.model,
            instructions=self.instructions,
            max_output_tokens=self.max_output_tokens,
            temperature=self.temperature,
            metadata=self.metadata or None,
            tools=allowed,
            # Without tools both say nothing, and some clients send them all the same.
            tool_choice=choice if allowed or hosted or choice not in ("auto", "none") else None,
            parallel_tool_calls=self.parallel_tool_calls if allowed or hosted else None,
            hosted=hosted,
            response_format=_format(self.text.format) if self.text and self.text.format else None,
            reasoning_effort=_effort(self.reasoning),
            reasoning_summary=self.reasoning.asked_summary if self.reasoning else None,
            sampling=sampling(
                top_p=self.top_p,
                frequency_penalty=self.frequency_penalty,
                presence_penalty=self.presence_penalty,
                verbosity=_verbosity(self.text),
            ),
            cache_key=self.prompt_cache_key,
            tells_reasoning=True,
            returns_reasoning=self.returns_reasoning,
        )

    def _check_served(self) -> None:
        asked = {name: value for name in _UNSERVED if (value := getattr(self, name)) is not None}
        if asked:
            unserved(asked, _UNSERVED, _SAY_NOTHING)
        if _LOGPROBS in (self.include or ()):
            raise InvalidRequestError.of("include", f"{_LOGPROBS} is not served; leave it out")

    def told(self, *, created_at: int, is_stored: bool) -> dict[str, Any]:
        """What a response tells of its request, with what OpenAI's API has where nothing was said."""
        text, reasoning = self.text or _NO_TEXT, self.reasoning or _NO_REASONING
        shape = {"type": "text"} if text.format is None else _told_format(text.format)
        return {
            "object": "response",
            "created_at": created_at,
            "background": bool(self.background),
            "frequency_penalty": self.frequency_penalty or 0,
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "max_tool_calls": self.max_tool_calls,
            "metadata": self.metadata or {},
            "parallel_tool_calls": self.parallel_tool_calls is not False,
            "presence_penalty": self.presence_penalty or 0,
            "previous_response_id": self.previous_response_id,
            "prompt_cache_key": self.prompt_cache_key,
            "reasoning": {"effort": reasoning.effort, "summary": reasoning.asked_summary},
            "safety_identifier": self.safety_identifier,
            "service_tier": "default",
            "store": is_stored,
            "temperature": 1 if self.temperature is None else self.temperature,
            "text": {"format": shape, "verbosity": text.verbosity or "medium"},
            "tool_choice": _told_choice(self.tool_choice),
            "tools": [_told_tool(tool) for tool in self.tools or ()],
            "top_logprobs": 0,
            "top_p": 1 if self.top_p is None else self.top_p,
            "truncation": "disabled",
            **({} if self.user is None else {"user": self.user}),
        }


RESPONSE: Final = JsonBody(ResponseRequest)
_TOOL: Final = JsonBody(ResponseTool)


def _functions(tools: Sequence[dict[str, Any]]) -> Iterator[FunctionTool]:
    check_tools(tools)
    for tool, place in flattened(tools):
        kind = tool.get("type")
        if is_hosted(tool):
            continue
        if kind != "function" and isinstance(kind, str):
            told = kind if kind and kind.isascii() and len(kind) <= 64 else "this"
            raise InvalidRequestError.of(
                f"{place}.type",
                f"{told} is a tool of OpenAI's servers, or no function, and is not served here; bring a function",
            )
        refuse_deep(tool.get("parameters"), f"{place}.parameters")
        it = shaped_at(_TOOL, tool, place)
        if it.name is None:
            raise InvalidRequestError.of(f"{place}.name", "is required")
        yield FunctionTool(name=it.name, description=it.description, parameters=it.parameters, strict=it.strict)


_Chosen: TypeAlias = tuple[tuple[FunctionTool, ...], HostedTools | None, ToolChoice | None]


def _chosen(
    choice: str | ChosenTool | None,
    functions: tuple[FunctionTool, ...],
    hosted: HostedTools | None,
    tools: Sequence[Mapping[str, Any]],
) -> _Chosen:
    """The functions that the model may ask for, the tools of the provider's that it may use, and whether it is to."""
    if choice is None:
        return functions, hosted, None
    if isinstance(choice, str):
        return functions, hosted, one_of(MODES, choice, "tool_choice")
    if choice.type in _BY_NAME and choice.name is not None:
        return functions, hosted, NamedFunction(wire_name(choice.name, choice.namespace))
    if choice.type == "allowed_tools":
        named = choice.tools or ()
        whole = {tool.name for tool in named if tool.type == "namespace" and tool.name}
        names = {wire_name(tool.name, tool.namespace) for tool in named if tool.type in _BY_NAME and tool.name}
        names |= {wire for wire, called in names_of(tools).items() if called.namespace in whole}
        allowed = tuple(each for each in functions if each.name in names)
        if hosted is not None:
            left = [tool for tool in hosted.tools if any(each.is_of(tool) for each in named)]
            hosted = replace(hosted, tools=left) if left else None
        return allowed, hosted, one_of(MODES, "auto" if choice.mode is None else choice.mode, "tool_choice.mode")
    if hosted is not None and choice.type in CHOICES:
        one = AllowedTool(type=choice.type, server_label=choice.server_label)
        if not any(one.is_of(tool) for tool in hosted.tools):
            raise InvalidRequestError.of("tool_choice", "names a tool that is not among the tools")
        return functions, replace(hosted, choice=_told_choice(choice)), None
    raise InvalidRequestError.of(
        "tool_choice", "must be auto, none, required, a function, allowed_tools, or a tool of OpenAI's that is offered"
    )


def _format(shape: ResponseTextFormat) -> ResponseFormat | None:
    match shape.type:
        case "text":
            return None
        case "json_object":
            return JsonObjectFormat()
        case "json_schema" if shape.name is not None and shape.schema is not None:
            refuse_deep(shape.schema, "text.format.schema")
            return JsonSchemaFormat(
                name=shape.name, schema=shape.schema, description=shape.description, strict=shape.strict
            )
        case "json_schema":
            raise InvalidRequestError.of("text.format", "must have a name and a schema")
    raise InvalidRequestError.of("text.format.type", "must be text, json_object or json_schema")


def _effort(reasoning: ResponseReasoning | None) -> ReasoningEffort | None:
    if reasoning is None or reasoning.effort is None:
        return None
    return one_of(EFFORTS, reasoning.effort, "reasoning.effort")


def _verbosity(text: ResponseText | None) -> Verbosity | None:
    if text is None or text.verbosity is None:
        return None
    return one_of(VERBOSITIES, text.verbosity, "text.verbosity")


def _told_tool(tool: dict[str, Any]) -> dict[str, Any]:
    if is_hosted(tool):
        return told_tool(tool)
    if tool.get("type") == "custom":
        return {name: value for name, value in tool.items() if name in _OF_CUSTOM}
    if tool.get("type") == "namespace":
        given = tool.get("tools")
        inner = [_told_tool(each) for each in given if isinstance(each, dict)] if isinstance(given, list) else []
        group = {name: tool.get(name) for name in ("type", "name")}
        return group | {"description": tool.get("description") or "", "tools": inner}
    return {name: tool.get(name) for name in ("type", "name", "description", "parameters", "strict")}


def _told_choice(choice: str | ChosenTool | None) -> Any:
    if choice is None or isinstance(choice, str):
        return choice or "auto"
    if choice.type == "allowed_tools":
        tools = [_named(tool.type, name=tool.name, server_label=tool.server_label) for tool in choice.tools or ()]
        return {"type": choice.type, "mode": choice.mode or "auto", "tools": tools}
    return _named(choice.type, name=choice.name, server_label=choice.server_label)


def _named(kind: str, **more: str | None) -> dict[str, str]:
    return {"type": kind} | {name: value for name, value in more.items() if value is not None}


def _told_format(shape: ResponseTextFormat) -> dict[str, Any]:
    if shape.type != "json_schema":
        return {"type": shape.type}
    return {
        "type": shape.type,
        "name": shape.name,
        "description": shape.description,
        "schema": shape.schema,
        "strict": bool(shape.strict),
    }
