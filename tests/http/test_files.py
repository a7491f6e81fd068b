"""`/files`."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from msgspec.structs import replace
from tests.http.conftest import Answer, Server, serving
from tests.unit.conftest import Bench

from textllm_adapters.memory.application import SCRIPTED_FILE_POLICY
from textllm_adapters.memory.blob_store import MemoryBlobStore
from textllm_core.errors import StorageUnavailableError
from textllm_core.tenancy import Caller
from textllm_http import download
from textllm_http.routes import files as routes

FORM = {"content-type": "multipart/form-data; boundary=bnd", "host": "files.example.org:8000"}
CONTENT = b"0123456789"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


async def upload(server: Server, content: bytes = CONTENT, name: str = "a b.txt", **fields: str) -> Answer:
    texts = "".join(
        f'--bnd\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{text}\r\n' for field, text in fields.items()
    )
    head = f'--bnd\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return await server.call(
        "POST", "/files/upload", [texts.encode() + head.encode() + content, b"\r\n--bnd--\r\n"], headers=FORM
    )


@pytest.fixture
async def key(server: Server) -> str:
    return str((await upload(server, user_id="ann")).json()["key"])


async def test_an_upload_has_exactly_the_fields_of_the_contract(server: Server) -> None:
    answer = await upload(server, user_id="ann", folder="uploads")
    assert answer.status == 201
    body: dict[str, Any] = answer.json()
    key, url = body.pop("key"), body.pop("url")
    assert key.startswith("LLM/uploads/ann/20261122_120000_")
    assert key.endswith("_a_b.txt")
    assert url.startswith(f"http://files.example.org:8000/files/{key}/content?")
    assert body == {
        "success": True,
        "size": 10,
        "content_type": "text/plain",
        "sha256": SHA256,
        "created_at": "2026-11-22T12:00:00Z",
    }
    assert answer.headers["x-user-id"] == "ann"
    assert answer.headers["ratelimit"].startswith('"turns";r=999')
    assert answer.headers["location"] == f"/files/{key}"


async def test_a_file_has_a_record_as_the_list_has_it(server: Server) -> None:
    made = (await upload(server, user_id="ann")).json()
    (listed,) = (await server.get("/files?user_id=ann")).json()["data"]
    for path in (f"/files/{made['key']}", f"/files/{made['key'].replace('/', '%2F')}"):
        record = (await server.get(path)).json()
        assert record | {"url": ""} == listed | {"url": ""} == made | {"url": ""}
    assert (await server.call("HEAD", f"/files/{made['key']}")).status == 200
    query = made["url"].partition("?")[2]  # a link is for the bytes alone
    for path in (f"/files/{made['key']}?{query}", f"/files/{made['key']}x", "/files/x"):
        assert (await server.get(path)).json()["code"] == "file_not_found"


async def test_an_upload_without_a_user_makes_one(server: Server) -> None:
    answer = await upload(server)
    assert answer.headers["x-user-id"].startswith("user_")


async def test_an_empty_file_is_a_file(server: Server) -> None:
    answer = await upload(server, b"")
    assert (answer.status, answer.json()["size"]) == (201, 0)
    shown = await server.get(f"/files/{answer.json()['key']}/content")
    assert (shown.status, shown.body, shown.headers["content-length"]) == (200, b"", "0")


async def test_a_list_is_newest_first_and_goes_on(server: Server, bench: Bench) -> None:
    keys: list[str] = []
    for n in range(5):
        bench.clock.advance(timedelta(seconds=1))
        keys.insert(0, (await upload(server, str(n).encode(), user_id="ann")).json()["key"])
    await upload(server, user_id="bob")
    first = (await server.get("/files?user_id=ann&limit=3")).json()
    assert ([file["key"] for file in first["data"]], first["has_more"]) == (keys[:3], True)
    assert list(first["data"][0]) == ["success", "key", "url", "size", "content_type", "sha256", "created_at"]
    rest = (await server.get(f"/files?user_id=ann&folder=uploads&after={keys[2]}")).json()
    assert ([file["key"] for file in rest["data"]], rest["has_more"]) == (keys[3:], False)
    assert len((await server.get("/files")).json()["data"]) == 6
    assert (await server.get("/files?folder=documents")).json() == {"data": [], "has_more": False}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("folder=secrets", "folder"),
        ("user_id=%C3%BC", "user_id"),
        ("user_id=", "user_id"),
        ("after=nothing", "after"),
        ("after=%00", "after"),
        ("limit=1&limit=2", "limit"),
        ("order=asc", "order"),
    ],
)
async def test_a_list_with_a_wrong_parameter_is_refused(server: Server, query: str, field: str) -> None:
    answer = await server.get(f"/files?{query}")
    assert (answer.status, [error["field"] for error in answer.json()["errors"]]) == (400, [field])


async def test_content_comes_as_a_download_that_nobody_runs(server: Server, key: str) -> None:
    answer = await server.get(f"/files/{key}/content")
    assert (answer.status, answer.body) == (200, CONTENT)
    answer.headers.pop("x-request-id")
    assert answer.headers == {
        "content-type": "text/plain; charset=utf-8",
        "content-length": "10",
        "etag": f'"{SHA256}"',
        "accept-ranges": "bytes",
        "cache-control": "private, no-cache",
        "content-disposition": "attachment; filename=\"a b.txt\"; filename*=UTF-8''a%20b.txt",
        "content-security-policy": "sandbox; default-src 'none'",
        "referrer-policy": "no-referrer",
        "server": "textllm",
        "x-content-type-options": "nosniff",
    }
    head = await server.call("HEAD", f"/files/{key}/content")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "10")


async def test_html_is_no_page_here(server: Server) -> None:
    key = (await upload(server, b"<html><script>alert(1)</script>", "page.html")).json()["key"]
    answer = await server.get(f"/files/{key}/content")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("name", ["日本語 \u202e.pdf", "a\\\"b';,.txt", "naïve%00.txt", "x" * 4000])
async def test_any_name_is_a_sane_header(server: Server, name: str) -> None:
    key = (await upload(server, name=name.replace("\\", "\\\\").replace('"', '\\"'))).json()["key"]
    disposition = (await server.get(f"/files/{key}/content")).headers["content-disposition"]
    assert disposition.isascii()
    assert disposition.isprintable()
    assert disposition.count('"') == 2


@pytest.mark.parametrize(
    ("asked", "status", "content", "content_range"),
    [
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("bytes=4-", 206, b"456789", "bytes 4-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=-99", 206, CONTENT, "bytes 0-9/10"),
        ("bytes=9-999999", 206, b"9", "bytes 9-9/10"),
        ("Bytes=0-0", 206, b"0", "bytes 0-0/10"),
        ("bytes=3-2", 200, CONTENT, None),
        ("bytes=0-1,3-4", 200, CONTENT, None),
        ("bytes=-", 200, CONTENT, None),
        ("bytes=x", 200, CONTENT, None),
        ("lines=0-1", 200, CONTENT, None),
        ("bytes=" + "9" * 4000 + "-", 200, CONTENT, None),
    ],
)
async def test_a_part_can_be_asked_for(
    server: Server, key: str, asked: str, status: int, content: bytes, content_range: str | None
) -> None:
    answer = await server.get(f"/files/{key}/content", {"range": asked})
    assert (answer.status, answer.body, answer.headers.get("content-range")) == (status, content, content_range)
    assert answer.headers["content-length"] == str(len(content))


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=10-11", "bytes=-0", "bytes=" + "9" * 18 + "-"])
async def test_a_part_that_is_not_there_is_416(server: Server, key: str, asked: str) -> None:
    answer = await server.get(f"/files/{key}/content", {"range": asked})
    assert (answer.status, answer.headers["content-range"]) == (416, "bytes */10")
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_client_that_has_the_file_gets_no_bytes(server: Server, key: str) -> None:
    for tag in (f'"{SHA256}"', f'W/"{SHA256}"', "*", f'"x", "{SHA256}"'):
        answer = await server.get(f"/files/{key}/content", {"if-none-match": tag, "range": "bytes=0-1"})
        assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", f'"{SHA256}"')
    assert (await server.get(f"/files/{key}/content", {"if-none-match": '"x"'})).status == 200
    for tag, status in ((f'"{SHA256}"', 206), ('"x"', 200)):
        answer = await server.get(f"/files/{key}/content", {"range": "bytes=0-1", "if-range": tag})
        assert answer.status == status


async def test_a_deleted_file_is_gone(server: Server, key: str, bench: Bench) -> None:
    answer = await server.call("DELETE", f"/files/{key}")
    assert (answer.status, answer.json()) == (200, {"success": True, "key": key})
    assert not bench.store.files
    for method, path in (("DELETE", f"/files/{key}"), ("GET", f"/files/{key}/content")):
        answer = await server.call(method, path)
        assert (answer.status, answer.json()["code"]) == (404, "file_not_found")
    assert (await server.get("/files")).json()["data"] == []


@pytest.mark.parametrize("made", [
    "{}x", "x{}", "{}/", "/{}", "{}/..", "../{}", "./{}", "LLM/uploads/ann/../../{}", "%2e%2e/{}", "..%2f{}", "{}%00",
    "{}\0", "..", "%2E%2E", "x", "LLM", "a" * 6000, "ü",
])  # fmt: skip
async def test_a_key_that_is_no_key_is_no_different_from_an_unknown_one(server: Server, key: str, made: str) -> None:
    path = made.format(key)
    for method, target in (("DELETE", f"/files/{path}"), ("GET", f"/files/{path}/content")):
        answer = await server.call(method, target)
        assert (answer.status, answer.json()["code"]) == (404, "file_not_found"), target
    assert (await server.get(f"/files/{key}/content")).status == 200


@pytest.mark.parametrize("slash", ["%2F", "%2f"])
async def test_the_slashes_of_a_key_may_be_escaped_once(server: Server, key: str, slash: str) -> None:
    twice = f"/files/{key.replace('/', slash.replace('%', '%25'))}"
    for method, target in (("GET", f"{twice}/content"), ("DELETE", twice)):
        answer = await server.call(method, target)
        assert (answer.status, answer.json()["code"]) == (404, "file_not_found")
    escaped = f"/files/{key.replace('/', slash)}"
    assert (await server.get(f"{escaped}/content")).body == CONTENT
    deleted = await server.call("DELETE", escaped)
    assert (deleted.status, deleted.json()) == (200, {"success": True, "key": key})
    assert (await server.get(f"/files/{key}/content")).status == 404


async def test_a_link_is_enough_and_anything_else_is_not(server: Server, bench: Bench) -> None:
    url = urlsplit((await upload(server, user_id="ann")).json()["url"])
    answer = await server.get(f"{url.path}?{url.query}")
    assert (answer.status, answer.body) == (200, CONTENT)
    first, *rest = url.query.split("&")
    forged = [url.query + "0", "&".join(rest), first, url.query.replace("expires=1", "expires=2")]
    for query in forged:
        answer = await server.get(f"{url.path}?{query}")
        assert (answer.status, answer.json()["code"]) == (404, "file_not_found"), query
    bench.clock.advance(timedelta(days=1))
    assert (await server.get(f"{url.path}?{url.query}")).status == 404


@pytest.mark.parametrize("host", ["", "a@b", "x" * 300])
async def test_a_strange_host_is_refused_before_it_gets_into_links(server: Server, host: str) -> None:
    body = b'--bnd\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n--bnd--\r\n'
    answer = await server.call("POST", "/files/upload", [body], headers=FORM | {"host": host})
    assert (answer.status, answer.json()["code"]) == (400, "invalid_request")


async def test_only_keys_that_the_caller_owns_exist_for_him(
    server: Server, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stranger in (Caller(role="user", user_id="bob"), Caller(tenant_id="other")):
        monkeypatch.setattr(routes, "caller_of", lambda _, stranger=stranger: stranger)
        for method, path in (("DELETE", f"/files/{key}"), ("GET", f"/files/{key}/content")):
            answer = await server.call(method, path)
            assert (answer.status, answer.json()["code"]) == (404, "file_not_found")
        assert (await server.get("/files")).json()["data"] == []
    monkeypatch.setattr(routes, "caller_of", lambda _: Caller(role="user", user_id="bob"))
    assert (await upload(server, user_id="ann")).status == 404
    assert (await server.get("/files?user_id=ann")).status == 404
    assert (await upload(server)).headers["x-user-id"] == "bob"


class FailingBlobStore(MemoryBlobStore):
    """Its reads break off behind the first piece, or before it."""

    pieces_read = 1

    async def get(self, key: str, *, first: int = 0, last: int | None = None) -> AsyncGenerator[bytes, None]:
        if self.pieces_read:
            async for piece in super().get(key, first=first, last=last):
                yield piece[:5]
        raise StorageUnavailableError


@pytest.mark.parametrize("pieces_read", [0, 1])
async def test_a_download_that_fails_is_never_taken_as_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces_read: int
) -> None:
    monkeypatch.setattr(FailingBlobStore, "pieces_read", pieces_read)
    async with serving(Bench(blobs=FailingBlobStore()), spool_dir=tmp_path / "spool") as server:
        key = (await upload(server)).json()["key"]
        answer = await server.get(f"/files/{key}/content")
        if pieces_read:
            assert (answer.status, answer.body, answer.is_complete) == (200, CONTENT[:5], False)
        else:
            assert (answer.status, answer.json()["code"]) == (503, "storage_unavailable")


async def test_a_download_that_nobody_reads_is_given_up(server: Server, key: str) -> None:
    scope = {"type": "http", "headers": [], "method": "GET"}
    textllm = server.app.services.textllm
    pieces = textllm.files.read(await textllm.files.get(Caller(), key))
    content = download.Content(pieces, b"", server.app.services.downloads)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def receive() -> Any:
        raise AssertionError("there is nothing to receive")

    async with asyncio.timeout(30):
        response = download.FileResponse(200, {}, content, stalled_after_s=0.05)
        await response(scope, receive, send)  # type: ignore[arg-type]


async def test_so_many_downloads_run_at_a_time_and_no_more(server: Server, key: str) -> None:
    with ExitStack() as others:
        for _ in range(download.MAX_DOWNLOADS):
            others.enter_context(server.app.services.downloads.taken())
        answer = await server.get(f"/files/{key}/content")
        assert (answer.status, answer.json()["code"]) == (503, "service_unavailable")
        assert answer.headers["retry-after"].isdigit()
        assert (await server.call("HEAD", f"/files/{key}/content")).status == 200
    for _ in range(download.MAX_DOWNLOADS + 1):
        assert (await server.get(f"/files/{key}/content")).body == CONTENT


@pytest.fixture
async def strict(tmp_path: Path) -> AsyncIterator[Server]:
    """A server that lets users make two requests a minute and keep 25 bytes."""
    policy = replace(SCRIPTED_FILE_POLICY, rate_per_minute=2, max_tenant_bytes=25)
    async with serving(Bench(file_policy=policy), spool_dir=tmp_path / "spool") as server:
        yield server


async def test_uploads_count_as_requests(strict: Server) -> None:
    assert [(await upload(strict, user_id="ann")).status for _ in range(3)] == [201, 201, 429]
    assert (await upload(strict, b"", user_id="bob")).status == 201


async def test_uploads_for_which_nobody_is_named_count_for_whoever_sends_them(strict: Server) -> None:
    answers = [await upload(strict) for _ in range(3)]
    assert [answer.status for answer in answers] == [201, 201, 429]
    assert answers[0].headers["x-user-id"] != answers[1].headers["x-user-id"]
    assert (await upload(strict, user_id=answers[0].headers["x-user-id"])).status == 429
    assert (await upload(strict, b"", user_id="bob")).status == 201


async def test_a_bound_caller_is_limited_before_the_body_is_read(
    strict: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "caller_of", lambda _: Caller(role="user", user_id="bob"))
    assert [(await upload(strict, b"")).status for _ in range(2)] == [201, 201]
    answer = await strict.call("POST", "/files/upload", [b"--bn"], headers=FORM, is_whole=False)
    assert (answer.status, answer.json()["code"]) == (429, "rate_limited")


async def test_a_quota_is_413_with_its_limit(strict: Server) -> None:
    assert [(await upload(strict, user_id=user)).status for user in ("ann", "bob")] == [201, 201]
    answer = await upload(strict, user_id="eve")
    assert (answer.status, answer.json()["code"], answer.json()["limit"]) == (413, "file_too_large", 25)


@pytest.mark.parametrize("call", ["GET /files/upload", "PUT /files", "POST /files", "PATCH /files/x", "DELETE /files"])
async def test_other_methods_are_refused(server: Server, call: str) -> None:
    method, path = call.split()
    answer = await server.call(method, path)
    assert answer.status in (404, 405)
