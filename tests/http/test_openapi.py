"""The OpenAPI document says what the service does: all of it, and nothing else."""

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from litestar import Litestar, get
from litestar.routes import HTTPRoute
from tests.http.conftest import Server, serving
from tests.unit.conftest import Bench

import textllm_http
from textllm_core.problem_details import STATUS
from textllm_core.wire import to_json
from textllm_http.app import routes
from textllm_http.openapi import document_of
from textllm_http.openapi_problems import PROBLEMS
from textllm_http.problems import PROBLEM_JSON

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from jsonschema import Draft202012Validator
    from openapi_spec_validator import validate

APP = routes()
DOCUMENT: dict[str, Any] = msgspec.json.decode(to_json(document_of(APP.routes)))


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def is_valid(schema: dict[str, Any], value: object) -> bool:
    return bool(Draft202012Validator({**schema, "components": DOCUMENT["components"]}).is_valid(value))


def test_it_is_valid_openapi_3_1() -> None:
    validate(DOCUMENT)
    assert DOCUMENT["openapi"].startswith("3.1.")


def test_every_route_is_in_it() -> None:
    known = {
        f"{method} {route.path_format}"
        for route in APP.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        for method in handler.http_methods
        if method not in ("HEAD", "OPTIONS")
    }
    told = {name for name, _ in operations()}
    split = {
        "GET /files/{_}": {"GET /files/{key}", "GET /files/{key}/content"},
        "DELETE /files/{_}": {"DELETE /files/{key}"},
    }
    assert told == set().union(*(split.get(route, {route}) for route in known))


def test_a_handler_without_words_is_a_defect() -> None:
    @get("/new")
    async def new() -> None: ...

    with pytest.raises(KeyError):
        document_of(Litestar([new], openapi_config=None).routes)


def test_every_operation_has_words_and_an_id_of_its_own() -> None:
    found = dict(operations())
    assert all(operation["summary"] and operation["description"] for operation in found.values())
    assert len({operation["operationId"] for operation in found.values()}) == len(found)


def test_every_field_and_parameter_is_explained() -> None:
    fields = [
        f"{name}.{field}"
        for name, schema in DOCUMENT["components"]["schemas"].items()
        for field, each in schema["properties"].items()
        if "description" not in each
    ]
    parameters = [
        f"{name} {each['name']}"
        for name, operation in operations()
        for each in operation["parameters"]
        if "$ref" not in each and "description" not in each
    ]
    forms = [
        f"{name} {field}"
        for name, operation in operations()
        for content in operation.get("requestBody", {}).get("content", {}).values()
        for field, each in content["schema"].get("properties", {}).items()
        if "description" not in each
    ]
    assert (fields, parameters, forms) == ([], [], [])


def test_a_choice_of_words_is_a_string() -> None:
    fields = [each for schema in DOCUMENT["components"]["schemas"].values() for each in schema["properties"].values()]
    parameters = [each["schema"] for _, operation in operations() for each in operation["parameters"] if "name" in each]
    choices = [kind for each in (*fields, *parameters) for kind in each.get("anyOf", [each]) if "enum" in kind]
    of_words = [choice for choice in choices if isinstance(choice["enum"][0], str)]
    assert {choice.get("type") for choice in of_words} == {"string"}


READ = re.compile(
    r"""header\([\w.]+, b"([\w-]+)"|name == b"([\w-]+)"|case b"([\w-]+)"|_(?:values|last)\(scope, b"([\w-]+)"|"""
    r"""request\.headers\.get\w*\("([\w-]+)"|"([\w-]+)" in request\.headers|request\.headers\["([\w-]+)"\]"""
)
# What every request may have, by HTTP or by what stands between: no operation's own.
OF_HTTP = {
    *("authorization", "content-type", "content-encoding", "content-length", "transfer-encoding", "host", "origin"),
    *("access-control-request-method", "traceparent", "tracestate"),
    *("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"),
}


def test_every_header_that_is_read_is_in_it() -> None:
    code = "".join(path.read_text() for path in Path(textllm_http.__file__).parent.rglob("*.py"))
    read = {name.lower() for names in READ.findall(code) for name in names if name}
    assert {"if-range", "idempotency-key", "last-event-id", "x-request-id"} <= read
    told = {each["name"].lower() for each in DOCUMENT["components"]["parameters"].values()}
    assert read - OF_HTTP == told
    asked = {
        each["$ref"].rpartition("/")[2].lower() for _, o in operations() for each in o["parameters"] if "$ref" in each
    }
    assert asked == told


def test_who_reads_an_idempotency_key_says_so() -> None:
    replayed = {
        name
        for name, operation in operations()
        if any("Idempotent-Replayed" in response["headers"] for response in operation["responses"].values())
    }
    takes = {
        name
        for name, operation in operations()
        if {"$ref": "#/components/parameters/Idempotency-Key"} in operation["parameters"]
    }
    assert replayed == takes
    assert "POST /conversations/{conversation_id}/summary" in takes


def test_a_field_means_in_a_reply_what_it_says_there() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    words = {name: schemas[name]["properties"]["conversation_id"]["description"] for name in ("Reply", "TurnRequest")}
    assert words == {
        "Reply": "The conversation.",
        "TurnRequest": "The conversation to go on with; left out, a new one begins.",
    }
    told = [
        f"{name}.{field}"
        for name, schema in schemas.items()
        for field, each in schema["properties"].items()
        if "; left out, " in each["description"] and "Request" not in name
    ]
    assert told == []


@pytest.mark.parametrize(
    "name", ["GET /conversations", "GET /conversations/{conversation_id}/messages", "GET /files", "GET /keys"]
)
def test_a_list_says_how_long_it_may_be(name: str) -> None:
    (limit,) = (each for each in dict(operations())[name]["parameters"] if each.get("name") == "limit")
    assert limit["schema"]["maximum"] >= 100


def test_what_a_model_thinks_is_in_no_schema_but_as_a_number() -> None:
    schemas = DOCUMENT["components"]["schemas"].items()
    assert [name for name, schema in schemas if "reasoning" in schema.get("properties", {})] == ["ReplyUsage"]


def test_what_is_counted_as_messages_is_said_once() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    counts = [("Conversation", "message_count"), ("UsageReport", "total_messages"), ("UsageOfDay", "messages")]
    assert len({schemas[name]["properties"][field]["description"] for name, field in counts}) == 1


def test_who_leaves_out_the_user_of_a_list_is_told_what_comes() -> None:
    found = dict(operations())
    for name in ("GET /conversations", "GET /files"):
        (user,) = (each for each in found[name]["parameters"] if each.get("name") == "user_id")
        assert user["description"] == "Whose; left out, of all for whom the key acts."


def test_every_error_of_the_core_is_a_problem_of_its_status() -> None:
    stated = {kind.code: int(status) for kind, status in STATUS.items() if status != 500}
    assert {code: PROBLEMS[code].status for code in stated} == stated


def test_every_problem_is_among_the_responses_of_an_operation() -> None:
    told = {
        example
        for _, operation in operations()
        for response in operation["responses"].values()
        for example in response.get("content", {}).get(PROBLEM_JSON, {}).get("examples", {})
    }
    absent = {"document_too_large", "unreadable_document"} if "/chat/file" not in DOCUMENT["paths"] else set()
    assert told | absent == set(PROBLEMS)


MAKES = (
    *("POST /conversations", "POST /conversations/import", "POST /v1/conversations"),
    "POST /v1/conversations/{conversation_id}/items",  # which may be kept by the provider alone
    "DELETE /v1/conversations/{conversation_id}/items/{item_id}",
)


@pytest.mark.parametrize(("name", "operation"), [pytest.param(*found, id=found[0]) for found in operations()])
def test_its_problems_are_those_of_its_kind(name: str, operation: dict[str, Any]) -> None:
    statuses = set(operation["responses"])
    assert {"400", "500"} <= statuses
    assert ({"401", "503"} <= statuses) == bool(operation["security"]) or name.endswith("/ready")
    assert ("401" in statuses) == bool(operation["security"])
    is_for_few = any("admin" in each.get("key", ()) or "operator" in each for each in operation["security"])
    makes_conversations = name in MAKES or "context_too_long" in str(operation["responses"])
    assert ("403" in statuses) == (is_for_few or makes_conversations)
    assert ({"413", "415"} <= statuses) == ("requestBody" in operation)
    if "{" in name:
        assert "404" in statuses or name.startswith("GET /users/")
    for response in operation["responses"].values():
        assert "X-Request-ID" in response["headers"]


def contents() -> Iterator[tuple[str, dict[str, Any], object]]:
    for name, operation in operations():
        bodies = [operation["requestBody"]["content"]] if "requestBody" in operation else []
        bodies += [response.get("content", {}) for response in operation["responses"].values()]
        for body in bodies:
            for media_type, content in body.items():
                for example in content.get("examples", {}).values():
                    known = example.get("$ref", "").rpartition("/")[2]
                    value = DOCUMENT["components"]["examples"][known]["value"] if known else example["value"]
                    yield f"{name} {media_type} {known}", content["schema"], value


def test_every_example_has_the_shape_it_stands_for() -> None:
    found = list(contents())
    assert len(found) > 200
    assert [name for name, schema, value in found if not is_valid(schema, value)] == []


async def test_real_answers_have_the_shapes_it_names(server: Server) -> None:
    reply = (await server.post("/chat", {"message": "Hello", "user_id": "ada"})).json()
    conversation = f"/conversations/{reply['conversation_id']}"
    calls = {
        "POST /chat": reply,
        "GET /conversations": (await server.get("/conversations")).json(),
        "GET /conversations/{conversation_id}": (await server.get(conversation)).json(),
        "GET /conversations/{conversation_id}/messages": (await server.get(f"{conversation}/messages")).json(),
        "GET /users/{user_id}/stats": (await server.get("/users/ada/stats")).json(),
        "GET /users/{user_id}/stats/conversations": (await server.get("/users/ada/stats/conversations")).json(),
        "GET /users/{user_id}/sessions": (await server.get("/users/ada/sessions")).json(),
        "GET /health/ready": (await server.get("/health/ready")).json(),
        "GET /config": (await server.get("/config")).json(),
    }
    described = dict(operations())
    for name, body in calls.items():
        schema = described[name]["responses"]["200"]["content"]["application/json"]["schema"]
        assert is_valid(schema, body), name
        assert not is_valid(schema, []), name


async def test_the_pages_and_the_document_are_open_where_keys_are_required(bench: Bench) -> None:
    async with serving(bench, requires_keys=True) as server:
        assert (await server.get("/openapi.json")).json() == DOCUMENT
        for path in ("/docs", "/redoc"):
            page = await server.get(path)
            assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
            assert page.headers["x-content-type-options"] == "nosniff"
            assert "script-src 'self';" in page.headers["content-security-policy"]
            assert "unsafe" not in page.headers["content-security-policy"]
            assert re.findall(r"<script>|<style|https?:|//", page.body.decode()) == []
            for asset in re.findall(r'(?:src|href)="(docs/[^"]+)"', page.body.decode()):
                found = await server.get(f"/{asset}")
                assert (found.status, found.headers["x-content-type-options"]) == (200, "nosniff")


@pytest.mark.parametrize("name", ["README.md", "docs.html", "none.js", "..%2fapp.py"])
async def test_only_scripts_and_styles_of_the_pages_are_served(server: Server, name: str) -> None:
    assert (await server.get(f"/docs/assets/{name}")).status == 404
