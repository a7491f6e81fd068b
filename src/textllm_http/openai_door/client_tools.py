"""Tools that the client runs and that are no plain functions: groups of them, and those that take free text.

Models know functions alone, whichever provider they have: a function of a group has the group's name in its own, and a
tool of free text is a function with one string. Their calls are told to the client as it knows them.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, Literal

from msgspec import Struct

from textllm_core.errors import InvalidRequestError
from textllm_core.records.tools import MAX_NAME_CHARS
from textllm_core.texts import well_formed
from textllm_core.wire import to_json
from textllm_http.openai_door.items import Item
from textllm_http.openai_door.shaping import shaped_at
from textllm_http.requests import JsonBody

_INPUT: Final = "input"
_TEXT: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {_INPUT: {"type": "string"}},
    "required": [_INPUT],
    "additionalProperties": False,
}
_NO_PART_OF_A_NAME: Final = re.compile(r"[^A-Za-z0-9_-]")


class TextFormat(Struct, frozen=True, kw_only=True):
    """What text a tool takes: any, or what keeps a grammar."""

    type: Literal["text", "grammar"]
    syntax: Literal["lark", "regex"] | None = None
    definition: str | None = None


class CustomTool(Struct, frozen=True, kw_only=True):
    """A tool that takes text."""

    name: str
    description: str | None = None
    format: TextFormat | None = None


class Namespace(Struct, frozen=True, kw_only=True):
    """A group of functions, and of tools that take text."""

    name: str
    description: str | None = None
    tools: list[dict[str, Any]]


class CalledAs(Struct, frozen=True, kw_only=True):
    """How the client knows a function."""

    name: str
    namespace: str | None = None
    takes_text: bool = False


_CUSTOM, _NAMESPACE = JsonBody(CustomTool), JsonBody(Namespace)


def flattened(tools: Sequence[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], str]]:
    """Each tool as models know it, and where it stands in the request.

    Raises:
        InvalidRequestError: a group, or a tool of free text, is malformed.
    """
    for number, tool in enumerate(tools):
        place = f"tools[{number}]"
        if tool.get("type") != "namespace":
            yield _function(tool, place), place
            continue
        group = shaped_at(_NAMESPACE, tool, place)
        for within, each in enumerate(group.tools):
            inner = f"{place}.tools[{within}]"
            if each.get("type") not in ("function", "custom"):
                raise InvalidRequestError.of(f"{inner}.type", "must be function or custom")
            yield _grouped(_function(each, inner), group), inner


def wire_name(name: str, namespace: str | None) -> str:
    """The name of the function that a model knows."""
    if namespace is None:
        return name
    whole = f"{namespace}__{name}"
    if len(whole) <= MAX_NAME_CHARS and not _NO_PART_OF_A_NAME.search(whole):
        return whole
    digest = sha256(whole.encode(errors="surrogatepass")).hexdigest()[:12]
    return f"{_NO_PART_OF_A_NAME.sub('_', name)[: MAX_NAME_CHARS - len(digest) - 1]}_{digest}"


def names_of(tools: Sequence[Mapping[str, Any]]) -> Mapping[str, CalledAs]:
    """How the client knows those functions that it knows otherwise, by the names that models have for them.

    Args:
        tools: as the request had them, once they were found well.
    """
    known: dict[str, CalledAs] = {}
    for tool in tools:
        namespace = tool["name"] if tool.get("type") == "namespace" else None
        for each in (tool,) if namespace is None else tool["tools"]:
            takes_text = each.get("type") == "custom"
            if takes_text or namespace is not None:
                called = CalledAs(name=each["name"], namespace=namespace, takes_text=takes_text)
                known[wire_name(called.name, namespace)] = called
    return known


def as_called(items: Sequence[Item], tools: Sequence[Mapping[str, Any]]) -> list[Item]:
    """Items of a reply, whose calls are as the client knows them. Args: as `names_of` has them."""
    known = names_of(tools) if tools else {}
    if not known:
        return [*items]
    return [
        _as_called(item, known[item["name"]]) if item["type"] == "function_call" and item["name"] in known else item
        for item in items
    ]


def text_arguments(text: str) -> str:
    """The arguments of the function that stands for a tool of free text."""
    return to_json({_INPUT: text}).decode()


def _as_called(item: Item, called: CalledAs) -> Item:
    of_group = {} if called.namespace is None else {"namespace": called.namespace}
    if not called.takes_text:
        return item | {"name": called.name} | of_group
    told = {name: value for name, value in item.items() if name != "arguments"}
    given = _text_in(item["arguments"])
    return told | {"type": "custom_tool_call", "name": called.name, "input": given} | of_group


def _text_in(arguments: str) -> str:
    """What a model wrote for a tool of free text; all of it, where it did not heed that it is to be JSON."""
    try:
        given = json.loads(arguments)[_INPUT]
    except (ValueError, TypeError, LookupError, RecursionError):
        return arguments
    return well_formed(given) if isinstance(given, str) else arguments


def _function(tool: dict[str, Any], place: str) -> dict[str, Any]:
    """A tool of free text as a function; any other as it is."""
    if tool.get("type") != "custom":
        return tool
    custom = shaped_at(_CUSTOM, tool, place)
    says = [custom.description or "", _words_of(custom.format)]
    description = "\n\n".join(filter(None, says)) or None
    return {"type": "function", "name": custom.name, "description": description, "parameters": _TEXT}


def _words_of(kept: TextFormat | None) -> str:
    """What a model is told of a grammar, which no provider holds it to here."""
    if kept is None or not kept.definition:
        return ""
    return f"The text must keep this grammar ({kept.syntax or 'lark'}):\n{kept.definition}"


def _grouped(tool: dict[str, Any], group: Namespace) -> dict[str, Any]:
    """A function of a group."""
    name = tool.get("name")
    if not isinstance(name, str):  # refused where its shape is looked at
        return tool
    says = [group.description or "", tool.get("description") or ""]
    return tool | {"name": wire_name(name, group.name), "description": "\n\n".join(filter(None, map(str, says)))}
