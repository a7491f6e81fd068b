"""An empty value is never the same as none: not in a query, not in a header, not in a body."""

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.http.conftest import JSON, Server, serving
from tests.unit.conftest import Bench

from textllm_adapters.memory.application import memory_administration
from textllm_core import Caller
from textllm_core.wire import to_json
from textllm_http.app import routes
from textllm_http.openapi import document_of

DOCUMENT: dict[str, Any] = msgspec.json.decode(to_json(document_of(routes().routes)))
_AS_ANY_CLIENT_HAS_THEM = {"X-Request-ID", "Range", "If-Match", "If-None-Match", "If-Range"}  # RFC 9110 says what then

BODIES = {
    **dict.fromkeys(("/chat", "/chat/stream"), b'{"message": "Hello"}'),
    "/v1/responses": b'{"input": "Hello"}',
    "/v1/chat/completions": b'{"messages": [{"role": "user", "content": "Hello"}]}',
}
FORMS = {  # by address, a text with its name, and the name of a file
    "/chat/image": (b"message", b"Hello", b"images"),
    "/chat/file": (b"message", b"Hello", b"file"),
    "/v1/files": (b"purpose", b"user_data", b"file"),
}


@pytest.fixture
async def server(bench: Bench, tmp_path: Path) -> AsyncIterator[Server]:
    """One that asks for keys, so that every route can be asked for."""
    async with serving(bench, spool_dir=tmp_path / "spool", requires_keys=True) as running:
        yield running


@pytest.fixture
async def admin(bench: Bench) -> dict[str, str]:
    """The headers of an admin."""
    issued = await memory_administration(bench.store, bench.clock).issue_api_key(Caller(role="admin"), role="admin")
    return {"authorization": f"Bearer {issued.secret}"}


def parameters() -> Iterator[tuple[str, str, str, str]]:
    """Method, address, place and name of every query parameter and header of every operation."""
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            for parameter in operation["parameters"]:
                reference = parameter.get("$ref", "").rpartition("/")[2]
                named = DOCUMENT["components"]["parameters"][reference] if reference else parameter
                if named["in"] != "path" and named["name"] not in _AS_ANY_CLIENT_HAS_THEM:
                    yield method.upper(), re.sub(r"{\w+}", "x", path), named["in"], named["name"]


def texts() -> Iterator[tuple[str, str, str]]:
    """Method, address and name of every text in every JSON body; those of keys and imports have tests of their own."""
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            shape = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
            for name, schema in DOCUMENT["components"]["schemas"].get(shape, {}).get("properties", {}).items():
                if (
                    path not in ("/keys", "/conversations/import")
                    and name != "instructions"
                    and "string" in {kind.get("type") for kind in schema.get("anyOf", [schema])}
                ):
                    yield method.upper(), re.sub(r"{\w+}", "x", path), name


def test_the_walk_meets_them_all() -> None:
    assert {name for *_, name in parameters()} > {"user_id", "after", "q", "tag", "limit", "soft", "signature"}
    assert {name for *_, name in parameters()} > {"Idempotency-Key", "Last-Event-ID"}
    assert {name for *_, name in texts()} > {"user_id", "conversation_id", "title", "model", "prompt"}


@pytest.mark.parametrize(("method", "path", "place", "name"), [*parameters()])
async def test_an_empty_parameter_is_refused_by_its_name(
    server: Server, admin: dict[str, str], method: str, path: str, place: str, name: str
) -> None:
    headers = JSON | admin | ({name: ""} if place == "header" else {})
    body = BODIES.get(path, b"{}")
    if form := FORMS.get(path):
        headers["content-type"] = "multipart/form-data; boundary=x"
        body = (
            b'--x\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
            b'--x\r\nContent-Disposition: form-data; name="%b"; filename="a.txt"\r\n\r\nText\r\n--x--\r\n'
        ) % form
    answer = await server.call(method, f"{path}?{name}=" if place == "query" else path, [body], headers=headers)
    assert answer.status == 400, answer.body
    told = answer.json()
    fields = [told["error"]["param"]] if "error" in told else [error["field"] for error in told["errors"]]
    assert fields == [name]


@pytest.mark.parametrize(("method", "path", "name"), [*texts()])
async def test_an_empty_text_in_a_body_is_refused_by_its_name(
    server: Server, admin: dict[str, str], method: str, path: str, name: str
) -> None:
    others = {"message": "Hello"} if path.startswith("/chat") else {}
    body = msgspec.json.encode(others | {name: ""})
    answer = await server.call(method, path, [body], headers=JSON | admin)
    assert answer.status == 400, answer.body
    assert [error["field"] for error in answer.json()["errors"]] == [name]


@pytest.mark.parametrize("name", ["user", "safety_identifier"])
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions", "/v1/conversations"])
async def test_a_user_whose_name_is_empty_is_not_nobody_for_whom_the_key_finds_what_all_users_said(
    server: Server, admin: dict[str, str], path: str, name: str
) -> None:
    said = await server.post("/v1/responses", {"input": "Hello", "user": "ada"}, JSON | admin)
    body = msgspec.json.decode(BODIES.get(path, b"{}")) | {name: ""}
    bodies = [body, body | {"store": False}, body | {"previous_response_id": said.json()["id"]}]
    for each in bodies if path == "/v1/responses" else [body]:
        answer = await server.post(path, each, JSON | admin)
        assert (answer.status, answer.json()["error"]["param"]) == (400, name), answer.body


@pytest.mark.parametrize("path", ["/conversations", "/files", "/keys"])
async def test_an_address_whose_id_is_empty_is_not_that_of_the_list(
    server: Server, admin: dict[str, str], path: str
) -> None:
    assert (await server.get(path, headers=admin)).status == 200
    for method in ("GET", "HEAD", "PATCH", "DELETE"):
        answer = await server.call(method, f"{path}/", [b"{}"], headers=JSON | admin)
        assert answer.status in (404, 405), answer.body


async def test_nothing_is_made_or_listed_in_the_place_of_one_whose_id_is_empty(
    server: Server, admin: dict[str, str], bench: Bench
) -> None:
    begun = await server.post("/v1/conversations", {"items": [{"role": "user", "content": "Hello"}]}, JSON | admin)
    items = f"/v1/conversations/{begun.json()['id']}/items"
    assert (await server.get(items, headers=admin)).status == 200
    kept = dict(bench.store.conversations)
    for method, path in (
        ("POST", "/v1/conversations/"),
        ("POST", "/v1//conversations//"),
        ("GET", f"{items}/"),
        ("HEAD", f"{items}/"),
        ("DELETE", f"{items}/"),
    ):
        answer = await server.call(method, path, [b'{"metadata": {"topic": "rain"}}'], headers=JSON | admin)
        assert answer.status in (404, 405), (method, path, answer.body)
    assert bench.store.conversations == kept
    made = await server.call("POST", "/conversations/", [b"{}"], headers=JSON | admin)  # which has no address of one
    assert made.status == 201
