"""A model with just enough sense to try clients with: it calls functions that are spoken of, and keeps formats."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tests.servers.openai_script import Json, Reply

SHORT = 64  # tokens: who allows no more wants to see a reply cut short
LONG = "word " * 400


def answer(body: Json, context: Sequence[Json]) -> Reply:
    """What it says to a body of either API; `context` is all that was said, as items of the Responses API."""
    if (server := _server(body, context)) is not None:
        return server
    if (calls := _calls(body, context)) is not None:
        return Reply(calls=calls)
    if context and context[-1]["type"] == "function_call_output":
        results = [str(item["output"]) for item in context if item["type"] == "function_call_output"]
        return Reply(text=f"The results are: {', '.join(results)}.")
    shape = body.get("response_format") or (body.get("text") or {}).get("format") or {}
    match shape.get("type"):
        case "json_object":
            return Reply(text='{"answer": "yes"}')
        case "json_schema":
            schema = shape.get("schema") or shape["json_schema"]["schema"]
            return Reply(text=json.dumps(instance_of(schema)))
    if "what is my name" in _asked(context) and (named := re.search(r"my name is (\w+)", _said(context))):
        return Reply(text=f"Your name is {named[1].title()}.")
    cap = body.get("max_output_tokens") or body.get("max_completion_tokens") or body.get("max_tokens")
    if cap is not None and cap <= SHORT:
        return Reply(text=LONG)
    if stops := body.get("stop"):
        said = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10"
        for stop in [stops] if isinstance(stops, str) else stops:
            said = said.partition(stop)[0]
        return Reply(text=said)
    return Reply()


def instance_of(schema: Mapping[str, Any]) -> Any:
    """A value of the shape."""
    if "enum" in schema:
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    for option in schema.get("anyOf", ()):
        return instance_of(option)
    kind = schema.get("type", "object")
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            return {name: instance_of(value) for name, value in schema.get("properties", {}).items()}
        case "array":
            return [instance_of(schema.get("items", {"type": "string"}))]
        case "integer" | "number":
            return schema.get("minimum", 2)
        case "boolean":
            return True
        case "null":
            return None
    return "Paris"


def _server(body: Json, context: Sequence[Json]) -> Reply | None:
    """What it says where it is asked of a server of MCP, and offered one: it asks that once."""
    servers = [tool for tool in body.get("tools") or () if tool["type"] == "mcp"]
    if not servers or "wiki" not in _asked(context):
        return None
    if context[-1]["type"] != "message":
        return Reply(text="The wiki was asked.")
    call = {"id": "mcp_1", "type": "mcp_call", "status": "completed", "name": "ask", "arguments": '{"q":"rain"}'}
    return Reply(hosted=({**call, "server_label": servers[0]["server_label"], "output": "rain", "error": None},))


def _calls(body: Json, context: Sequence[Json]) -> tuple[tuple[str, str], ...] | None:
    """Those it makes, by name and arguments; None: none."""
    tools = [tool.get("function", tool) for tool in body.get("tools") or ()]
    choice = body.get("tool_choice")
    has_results = bool(context) and context[-1]["type"] == "function_call_output"
    if not tools or choice == "none" or (has_results and choice != "required"):
        return None
    if isinstance(choice, Mapping):
        name = choice.get("name") or choice.get("function", {}).get("name")
        wanted = [tool for tool in tools if tool["name"] == name]
    else:
        words = set(re.findall(r"[a-z]+", _asked(context)))
        wanted = [tool for tool in tools if words & set(re.findall(r"[a-z]{4,}", tool["name"].lower()))]
        wanted = wanted or (tools[:1] if choice == "required" else [])
    if body.get("parallel_tool_calls") is False:
        wanted = wanted[:1]
    made = [(tool["name"], json.dumps(instance_of(tool.get("parameters") or {}))) for tool in wanted]
    places = re.findall(r"\b(paris|london|tokyo|oslo)\b", _asked(context))
    if len(made) == 1 and len(places) > 1 and body.get("parallel_tool_calls") is not False:
        made = [(made[0][0], made[0][1].replace("Paris", place.title())) for place in places]
    return tuple(made) or None


def _asked(context: Sequence[Json]) -> str:
    """What the user said last, in lower case."""
    for item in reversed(context):
        if item["type"] == "message" and item["role"] == "user":
            return _text(item)
    return ""


def _said(context: Sequence[Json]) -> str:
    return " ".join(_text(item) for item in context if item["type"] == "message")


def _text(item: Json) -> str:
    content = item["content"]
    if isinstance(content, str):
        return content.lower()
    return " ".join(part.get("text") or "" for part in content).lower()
