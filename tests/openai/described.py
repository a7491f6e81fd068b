"""OpenAI's own descriptions of its API, and of Open Responses: does what the service says have the shapes they name?

The files beside this one are those descriptions without their words.
"""

import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from jsonschema import Draft202012Validator

_HERE = Path(__file__).parent
_OF_OPENAI = ("web_search", "file_search", "code_interpreter", "mcp", "custom", "namespace")  # alone
_REF = "#/components/schemas/{}"


@cache
def description(name: str = "openapi") -> dict[str, Any]:
    document: dict[str, Any] = json.loads((_HERE / f"{name}.json").read_text())
    schemas = document["components"]["schemas"]
    if name == "openapi":  # where it says otherwise than OpenAI's service, and Open Responses, have it
        _let_be_null(schemas["Response"]["allOf"][2]["properties"], "usage")
        _let_be_null(schemas["TextResponseFormatJsonSchema"]["properties"], "description")
        for approval in ("MCPApprovalResponse", "MCPApprovalResponseResource"):  # it has no such field itself
            schemas[approval]["required"].remove("request_id")
    elif name == "open-responses":  # where it would have a schema that was asked for left out
        schemas["JsonSchemaResponseFormat"]["properties"]["schema"] = {}
    return document


def _let_be_null(properties: dict[str, Any], name: str) -> None:
    properties[name] = {"anyOf": [properties[name], {"type": "null"}]}


@cache
def validator(schema: str, name: str = "openapi") -> Any:
    """Of what one of the schemas of a description names."""
    return Draft202012Validator({"$ref": _REF.format(schema), "components": description(name)["components"]})


def faults(schema: str, value: object, name: str = "openapi") -> list[str]:
    """What is wrong with it, where it is, in the words of the validator."""
    found = []
    for error in validator(schema, name).iter_errors(value):
        deepest = min(error.context or [error], key=lambda each: -len(each.absolute_path))
        found.append(f"{schema} {'.'.join(map(str, deepest.absolute_path))}: {deepest.message[:300]}")
    return found


def _must_fit(found: list[str]) -> None:
    if found:
        raise AssertionError("\n".join(found))


def schema_of(method: str, path: str) -> str | None:
    """The schema of what a route answers; `path` as the service has it. None: there is no such route, or no schema."""
    wanted = path.removeprefix("/v1").partition("?")[0].strip("/").split("/")
    for known, operations in description()["paths"].items():
        parts = known.strip("/").split("/")
        is_it = len(parts) == len(wanted) and all(
            each == its or each.startswith("{") for each, its in zip(parts, wanted, strict=True)
        )
        if is_it and method.lower() in operations:
            content = operations[method.lower()]["responses"].get("200", {}).get("content", {})
            reference = content.get("application/json", {}).get("schema", {}).get("$ref")
            return None if reference is None else str(reference).rpartition("/")[2]
    return None


def check(method: str, path: str, status: int, body: object) -> None:
    """Whatever a route of the door answers: it has the shape that OpenAI's description names, and Open Responses'."""
    if status >= 400:
        _must_fit(faults("ErrorResponse", body))
        return
    if path.startswith("/v1/chat/completions"):
        _must_fit(faults("ChatCompletion", body, "chat-completions"))
    schema = schema_of(method, path)
    if schema is not None:
        _must_fit(faults(schema, body))
        if schema == "Response":
            _must_fit(faults("ResponseResource", _of_open_responses(body), "open-responses"))


@cache
def _events(name: str) -> dict[str, str]:
    """The schemas of events, by their types."""
    schemas = description(name)["components"]["schemas"]
    found = {}
    for schema, each in schemas.items():
        kinds = each.get("properties", {}).get("type", {}).get("enum", [])
        if "sequence_number" in each.get("properties", {}) and len(kinds) == 1:
            found[kinds[0]] = schema
    return found


def check_chunk(chunk: dict[str, Any]) -> None:
    """A chunk of a streamed chat completion, or the error that ends it."""
    schema, name = ("ErrorResponse", "openapi") if "error" in chunk else ("ChatCompletionChunk", "chat-completions")
    _must_fit(faults(schema, chunk, name))


def check_event(event: dict[str, Any]) -> None:
    """An event of a streamed response."""
    kind = event["type"]
    is_foreign = _is_foreign(event.get("item")) or _is_citation(event.get("annotation"))
    assert kind in _events("openapi"), f"OpenAI has no event {kind}"
    if kind != "error":  # which OpenAI's description has flat, and its service and Open Responses nested
        _must_fit(faults(_events("openapi")[kind], event))
    if kind in _events("open-responses") and not is_foreign:
        _must_fit(faults(_events("open-responses")[kind], _of_open_responses(event), "open-responses"))


def _is_foreign(each: object) -> bool:
    """Whether a tool, or an item of an output, is of a kind of which Open Responses knows nothing."""
    return isinstance(each, dict) and str(each.get("type")).startswith(_OF_OPENAI)


def _of_open_responses(told: Any) -> Any:
    """What is told, but for tools that OpenAI alone has, and what they did."""
    if isinstance(told, list):
        return [_of_open_responses(each) for each in told if not (_is_foreign(each) or _is_citation(each))]
    if not isinstance(told, dict):
        return told
    return {
        name: "auto" if name == "tool_choice" and _is_foreign(value) else _of_open_responses(value)
        for name, value in told.items()
    }


def _is_citation(each: object) -> bool:
    return isinstance(each, dict) and each.get("type") in ("file_citation", "container_file_citation", "file_path")
