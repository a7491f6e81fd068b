"""Which hosts are answered, whom the service believes where a request comes from, and what browsers are told."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from litestar.types import HTTPScope
from tests.http.conftest import JSON, ORIGIN, Answer, Server, serving
from tests.http.test_operations import EVERY_REQUEST
from tests.unit.conftest import Bench

from textllm_http.app import routes
from textllm_http.entrance import Entrance

FORM = b'--bnd\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n--bnd--\r\n'
OF_FORM = {"content-type": "multipart/form-data; boundary=bnd", "host": "inside:8000"}
FORWARDED = {"x-forwarded-proto": "https", "x-forwarded-host": "api.example.org", "x-forwarded-for": "203.0.113.9"}


@pytest.mark.parametrize("host", ["api.example.org", "API.example.org:8443", "[::1]:8000"])
async def test_the_hosts_that_are_allowed_are_answered(bench: Bench, host: str) -> None:
    async with serving(bench, allowed_hosts=["api.example.org", "[::1]"]) as server:
        assert (await server.get("/config", {"host": host})).status == 200


@pytest.mark.parametrize("host", ["evil.example", "api.example.org.evil.example", "x.api.example.org", "127.0.0.1"])
async def test_any_other_host_is_refused(bench: Bench, host: str) -> None:
    async with serving(bench, allowed_hosts=["api.example.org"]) as server:
        for path in ("/config", "/nowhere"):
            answer = await server.get(path, {"host": host})
            assert (answer.status, answer.json()["code"]) == (400, "invalid_request")
            assert answer.headers["x-request-id"] == answer.json()["instance"]
            assert host not in answer.body.decode()


async def test_probes_may_come_by_address(bench: Bench) -> None:
    async with serving(bench, allowed_hosts=["api.example.org"]) as server:
        for path in ("/health/live", "/health/ready"):
            assert (await server.get(path, {"host": "10.1.2.3:8000"})).status == 200


async def uploaded(server: Server, peer: str, headers: Mapping[str, str] = FORWARDED) -> Answer:
    return await server.call("POST", "/files/upload", [FORM], headers={**OF_FORM, **headers}, peer=peer)


@pytest.mark.parametrize("peer", ["10.1.2.3", "::ffff:10.1.2.3", "192.0.2.7"])
async def test_links_have_the_address_that_a_trusted_proxy_tells(bench: Bench, tmp_path: Path, peer: str) -> None:
    async with serving(bench, spool_dir=tmp_path, trusted_proxies=["10.0.0.0/8", "192.0.2.7"]) as server:
        answer = await uploaded(server, peer)
    assert answer.json()["url"].startswith("https://api.example.org/files/")


@pytest.mark.parametrize("peer", ["11.1.2.3", "192.0.2.8", "::1", "127.0.0.1"])
async def test_nobody_else_is_believed(bench: Bench, tmp_path: Path, peer: str) -> None:
    async with serving(bench, spool_dir=tmp_path, trusted_proxies=["10.0.0.0/8", "192.0.2.7"]) as server:
        answer = await uploaded(server, peer, FORWARDED | {"forwarded": "host=api.example.org;proto=https"})
    assert answer.json()["url"].startswith("http://inside:8000/files/")


@pytest.mark.parametrize("host", ["", "a@b", "evil.example", "x" * 300, "api.example.org, evil.example"])
async def test_the_host_that_a_proxy_tells_must_be_allowed(bench: Bench, host: str) -> None:
    async with serving(bench, trusted_proxies=["10.0.0.0/8"], allowed_hosts=["api.example.org"]) as server:
        answer = await uploaded(server, "10.1.2.3", {"x-forwarded-host": host})
    assert (answer.status, answer.json()["code"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("forwarded_for", "client"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("203.0.113.9:1234, 10.0.0.5", "203.0.113.9"),
        ("1.1.1.1, 203.0.113.9, 10.0.0.5", "203.0.113.9"),
        ("[2001:db8::1]:1234", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("10.0.0.6, 10.0.0.5", "10.0.0.6"),
        ("203.0.113.9, unknown, 10.0.0.5", "10.0.0.5"),
        ("<script>", "10.1.2.3"),
        ("", "10.1.2.3"),
    ],
)
async def test_the_client_is_whom_the_last_trusted_proxy_heard(forwarded_for: str, client: str) -> None:
    seen: list[HTTPScope] = []

    async def app(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        seen.append(scope)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "path": "/",
        "scheme": "http",
        "client": ("10.1.2.3", 50000),
        "headers": [(b"host", b"x"), (b"x-forwarded-for", forwarded_for.encode())],
        "state": {},
    }
    entrance = Entrance(app, trusted_proxies=["10.0.0.0/8"], allowed_hosts=[])
    await entrance(scope, None, None)  # type: ignore[arg-type]  # nothing is received or sent
    assert seen[0]["client"] is not None
    assert seen[0]["client"][0] == client


@pytest.mark.parametrize(("method", "target", "status"), EVERY_REQUEST)
async def test_every_response_tells_browsers_to_keep_their_hands_off(
    server: Server, method: str, target: str, status: int
) -> None:
    answer = await server.call(method, target, [b'{"message": "Hi"}'], headers=JSON)
    assert answer.status == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert answer.headers["cache-control"] == "no-store"


async def test_a_response_s_own_header_wins(server: Server) -> None:
    url = (await uploaded(server, "127.0.0.1")).json()["url"].removeprefix("http://inside:8000")
    answer = await server.get(url)
    assert answer.status == 200
    assert answer.headers["cache-control"] == "private, no-cache"
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"


async def test_every_route_answers_a_preflight_for_all_that_it_takes(bench: Bench) -> None:
    async with serving(bench, cors_origins=[ORIGIN], requires_keys=True) as server:
        for route in routes().routes:
            path = route.path.replace("{_:path}", "LLM/x/content").replace("{", "").replace("}", "")
            for method in route.methods - {"OPTIONS"}:
                asked = {
                    "origin": ORIGIN,
                    "access-control-request-method": method,
                    "access-control-request-headers": "authorization, content-type, idempotency-key",
                }
                answer = await server.call("OPTIONS", f"{path}?user_id=ada&limit=5", headers=asked)
                assert answer.status == 204, (method, path)
                assert answer.headers["access-control-allow-origin"] == ORIGIN
                assert method in answer.headers["access-control-allow-methods"].split(", ")
                allowed = answer.headers["access-control-allow-headers"].lower().split(", ")
                assert {"authorization", "content-type", "idempotency-key", "range", "traceparent"} <= set(allowed)
                assert "x-stainless-os" in allowed  # which OpenAI's SDK sends with each request
                assert "access-control-allow-credentials" not in answer.headers
