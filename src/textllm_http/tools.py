"""Functions, results and formats as clients of `/chat` write them: in the shapes of the Chat Completions API."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct

from textllm_core.records.tools import (
    MAX_NAME_CHARS,
    MAX_TOOLS,
    FunctionTool,
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedFunction,
    ReasoningEffort,
    ResponseFormat,
    ToolChoice,
    ToolResult,
)

_Name: TypeAlias = Annotated[
    str,
    Meta(
        description="Its name: letters, digits, _ and -.",
        extra_json_schema={"pattern": f"^[A-Za-z0-9_-]{{1,{MAX_NAME_CHARS}}}$"},
    ),
]
_Strict: TypeAlias = Annotated[bool, Meta(description="Whether the model is to keep the schema exactly.")]


class Function(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A function that the model may ask for."""

    name: _Name
    description: Annotated[str, Meta(description="What it does, for the model.")] | None = None
    parameters: Annotated[dict[str, Any], Meta(description="JSON Schema of its arguments.")] | None = None
    strict: _Strict | None = None


class Tool(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="function"):
    """A tool; there are functions alone."""

    function: Annotated[Function, Meta(description="The function.")]


class NameOfFunction(Struct, frozen=True, forbid_unknown_fields=True):
    """One of the functions."""

    name: _Name


class ChosenTool(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="function"):
    """The one function that the model is to ask for."""

    function: Annotated[NameOfFunction, Meta(description="Which function.")]


class Schema(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A schema that a reply is to keep."""

    name: _Name
    schema: Annotated[dict[str, Any], Meta(description="The JSON Schema.")]
    description: Annotated[str, Meta(description="What it is for, for the model.")] | None = None
    strict: _Strict | None = None


class PlainText(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="text"):
    """Plain text."""


class JsonObject(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="json_object"):
    """Some JSON object."""


class JsonSchema(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="json_schema"):
    """JSON that keeps a schema."""

    json_schema: Annotated[Schema, Meta(description="The schema.")]


class Result(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What came of a call."""

    tool_call_id: Annotated[str, Meta(description="The `id` of the call.")]
    content: Annotated[str, Meta(description="What came of it, in any words.")]


Tools: TypeAlias = Annotated[
    list[Tool],
    Meta(description="Functions that the model may ask you to run.", extra_json_schema={"maxItems": MAX_TOOLS}),
]
Choice: TypeAlias = Annotated[
    Literal["auto", "none", "required"] | ChosenTool,
    Meta(description="Whether the model is to ask for a function, or for which. It needs `tools`."),
]
Parallel: TypeAlias = Annotated[bool, Meta(description="Whether the model may ask for several functions at once.")]
Format: TypeAlias = Annotated[
    PlainText | JsonObject | JsonSchema, Meta(description="The shape that the reply is to have.")
]
Effort: TypeAlias = Annotated[ReasoningEffort, Meta(description="How much a reasoning model is to think.")]
Results: TypeAlias = Annotated[
    list[Result],
    Meta(
        description="What came of the `tool_calls` of the last reply; then `message` may be left out. The model is "
        "told of each call without a result that it was not run."
    ),
]


def functions_of(tools: Sequence[Tool]) -> tuple[FunctionTool, ...]:
    """The same as the core has them."""
    each = (tool.function for tool in tools)
    return tuple(
        FunctionTool(name=it.name, description=it.description, parameters=it.parameters, strict=it.strict)
        for it in each
    )


def choice_of(choice: Literal["auto", "none", "required"] | ChosenTool) -> ToolChoice:
    """The same as the core has it."""
    return NamedFunction(choice.function.name) if isinstance(choice, ChosenTool) else choice


def format_of(shape: PlainText | JsonObject | JsonSchema) -> ResponseFormat | None:
    """The same as the core has it; None: plain text."""
    if isinstance(shape, JsonSchema):
        it = shape.json_schema
        return JsonSchemaFormat(name=it.name, schema=it.schema, description=it.description, strict=it.strict)
    return JsonObjectFormat() if isinstance(shape, JsonObject) else None


def results_of(results: Sequence[Result]) -> tuple[ToolResult, ...]:
    """The same as the core has them."""
    return tuple(ToolResult(call_id=each.tool_call_id, output=each.content) for each in results)
