"""Health, configuration, and what holds for every response."""

from datetime import datetime, timedelta

import pytest
from tests.http.conftest import JSON, ORIGIN, Server, serving
from tests.unit.conftest import Bench

from textllm_adapters.memory.erasures import MemoryErasures

EVERY_REQUEST = [
    ("GET", "/health/live", 200),
    ("GET", "/config", 200),
    ("GET", "/users/ada/stats", 200),
    ("POST", "/chat", 200),
    ("POST", "/chat/stream", 200),
    ("HEAD", "/config", 200),
    ("OPTIONS", "/chat", 204),
    ("GET", "/nowhere", 404),
    ("GET", "/chat", 405),
    ("POST", "/config?x=1", 405),
    ("GET", "/config?x=1", 400),
]


async def test_a_living_process_says_so(server: Server) -> None:
    answer = await server.get("/health/live")
    assert (answer.status, answer.json()) == (200, {"status": "alive"})
    assert answer.headers["content-type"] == "application/json"


async def test_ready_is_when_every_probe_answers(server: Server) -> None:
    answer = await server.get("/health/ready")
    assert answer.status == 200
    assert answer.json() == {"status": "ready", "checks": {"database": {"status": "healthy"}}}


async def test_the_health_report_has_the_promised_shape(server: Server) -> None:
    answer = await server.get("/health")
    report = answer.json()
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert report.keys() == {"status", "timestamp", "uptime", "checks"}
    assert report["status"] == "healthy"
    assert datetime.fromisoformat(report["timestamp"]).utcoffset() == timedelta(0)
    assert report["timestamp"].endswith("Z")
    assert report["uptime"]["uptime_human"] == str(timedelta(seconds=report["uptime"]["uptime_seconds"]))
    assert report["checks"].pop("disk")["free_gb"] >= 0
    assert report["checks"] == {
        "openai_api": {"status": "configured"},
        "database": {"status": "healthy"},
        "erasures": {"status": "healthy", "pending": 0, "failing": 0},
    }


async def test_the_health_report_tells_of_erasures_that_the_provider_does_not_confirm(bench: Bench) -> None:
    for requires_keys, numbers in ((False, {"pending": 2, "failing": 1}), (True, {})):
        async with serving(bench, requires_keys=requires_keys) as server:
            now = bench.clock.now()
            for name in ("conv_a", "conv_b"):
                bench.store.to_erase("default", "ada", "transcript", name, at=now)
            await MemoryErasures(bench.store).due(at=now, latest=now, lease_until=now, limit=1)
            report = (await server.get("/health")).json()
        assert report["status"] == "healthy"
        assert report["checks"]["erasures"] == {"status": "failing", **numbers}


@pytest.mark.parametrize("was_tried", [False, True])
async def test_the_health_report_names_a_provider_that_was_taken_out_of_the_settings(was_tried: bool) -> None:
    bench = Bench(transcript=None)
    now = bench.clock.now()
    for name in ("conv_a", "two/conv_b", "two/conv_c"):
        bench.store.to_erase("default", "ada", "transcript", name, at=now)
    if was_tried:
        await MemoryErasures(bench.store).due(at=now, latest=now, lease_until=now, limit=3)
    for requires_keys in (False, True):
        async with serving(bench, requires_keys=requires_keys) as server:
            told = (await server.get("/health")).json()["checks"]["erasures"]
        assert told["status"] == "failing"
        assert ("message" in told) is not requires_keys
        assert requires_keys or "put llm_api: conversations" in told["message"]
        assert requires_keys or "2 to be erased at the provider two, which is not among the settings" in told["message"]


async def test_the_health_report_is_503_and_says_why_where_something_does_not_answer(server: Server) -> None:
    server.probe.fault = "It does not answer within 2 s."
    answer = await server.get("/health")
    assert (answer.status, answer.json()["status"]) == (503, "unhealthy")
    assert answer.json()["checks"]["database"] == {"status": "unhealthy", "message": "It does not answer within 2 s."}
    server.app.services.worker.is_stopping = True
    assert (await server.get("/health")).json()["status"] == "stopping"


async def test_where_keys_are_required_the_health_report_tells_anyone_no_details(bench: Bench) -> None:
    async with serving(bench, requires_keys=True) as server:
        server.probe.fault = "A detail."
        report = (await server.get("/health")).json()
    assert report["checks"] == {
        "openai_api": {"status": "configured"}, "database": {"status": "unhealthy"},
        "erasures": {"status": "healthy"}, "disk": {},
    }  # fmt: skip


async def test_metrics_are_prometheus_text_of_what_was_answered(server: Server) -> None:
    await server.post("/chat", {"message": "Hi", "user_id": "ada"})
    await server.get("/users/ada/stats")
    await server.get("/nowhere")
    answer = await server.get("/metrics")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    lines = answer.body.decode().splitlines()
    for line in (
        'textllm_http_requests_total{method="POST",route="/chat",status="200"} 1.0',
        'textllm_http_requests_total{method="GET",route="/users/{user_id}/stats",status="200"} 1.0',
        'textllm_http_requests_total{method="GET",route="unmatched",status="404"} 1.0',
        'textllm_http_problems_total{code="not_found"} 1.0',
        "textllm_holds 0.0",
    ):
        assert line in lines


async def test_a_stopping_service_is_not_ready_alive_and_keeps_no_connection(server: Server) -> None:
    worker = server.app.services.worker
    worker.is_leaving = worker.is_stopping = True
    answer = await server.get("/health/ready")
    assert (answer.status, answer.json()) == (503, {"status": "stopping"})
    assert int(answer.headers["retry-after"]) > 0
    answer = await server.get("/health/live")
    assert (answer.status, answer.headers["connection"]) == (200, "close")


async def test_a_turn_beyond_what_the_process_takes_is_503_and_says_when_to_come_back(server: Server) -> None:
    server.bench.running.refuse_new()
    answer = await server.post("/chat", {"message": "hi"})
    assert (answer.status, answer.json()["code"]) == (503, "service_unavailable")
    assert int(answer.headers["retry-after"]) == answer.json()["retry_after_s"]


async def test_not_ready_is_503_and_says_why(server: Server) -> None:
    server.probe.fault = "It does not answer within 2 s."
    answer = await server.get("/health/ready")
    assert answer.status == 503
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json() == {
        "status": "not_ready",
        "checks": {"database": {"status": "unhealthy", "message": "It does not answer within 2 s."}},
    }


async def test_the_configuration_is_what_the_application_was_given(server: Server) -> None:
    assert (await server.get("/config")).json() == {"config": {"model": "gpt-4o"}}


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/config"])
async def test_head_is_get_without_the_body(server: Server, path: str) -> None:
    got, head = await server.get(path), await server.call("HEAD", path)
    assert head.body == b""
    assert (head.status, head.headers["content-length"]) == (got.status, got.headers["content-length"])


@pytest.mark.parametrize(("method", "target", "status"), EVERY_REQUEST)
async def test_every_response_has_a_request_id_of_its_own(
    server: Server, method: str, target: str, status: int
) -> None:
    answers = [await server.call(method, target, [b'{"message": "Hi"}'], headers=JSON) for _ in range(2)]
    assert [answer.status for answer in answers] == [status, status]
    ids = {answer.headers["x-request-id"] for answer in answers}
    assert len(ids) == 2
    assert all(request_id.startswith("req_") for request_id in ids)


@pytest.mark.parametrize(("method", "target", "status"), EVERY_REQUEST)
async def test_a_sane_request_id_of_the_client_is_kept(server: Server, method: str, target: str, status: int) -> None:
    headers = {**JSON, "x-request-id": "Trace_1.2-3"}
    answer = await server.call(method, target, [b'{"message": "Hi"}'], headers=headers)
    assert answer.headers["x-request-id"] == "Trace_1.2-3"
    if status >= 400:
        assert answer.json()["instance"] == "Trace_1.2-3"


@pytest.mark.parametrize("request_id", ["", "a b", "a\nb", "x" * 129, "ü", 'a"', "a\x1b[0m"])
async def test_any_other_request_id_is_replaced(server: Server, request_id: str) -> None:
    answer = await server.get("/health/live", {"x-request-id": request_id})
    assert answer.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("path", ["/nowhere", "/chat/nowhere", "/config/..", "/%00", "/chat\0", "/ü", "/healthy"])
async def test_an_unknown_address_is_not_found(server: Server, path: str) -> None:
    answer = await server.get(path)
    assert (answer.status, answer.json()["code"]) == (404, "not_found")
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "TRACE", "PROPFIND"])
async def test_another_method_is_refused_with_those_allowed(server: Server, method: str) -> None:
    answer = await server.call(method, "/chat")
    assert answer.status == 405
    assert set(answer.headers["allow"].split(", ")) == {"POST", "OPTIONS"}
    assert answer.headers["content-type"] == "application/problem+json"
    if method != "HEAD":
        assert answer.json()["code"] == "invalid_request"


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/config", {"GET", "HEAD"}),
        ("/conversations", {"GET", "HEAD", "POST"}),
        ("/conversations/conv_1", {"GET", "HEAD", "PATCH", "DELETE"}),
        ("/files/LLM/uploads/ann/x/content", {"GET", "HEAD", "DELETE"}),
    ],
)
async def test_options_says_which_methods_there_are(server: Server, path: str, methods: set[str]) -> None:
    answer = await server.call("OPTIONS", path)
    assert (answer.status, answer.body) == (204, b"")
    assert set(answer.headers["allow"].split(", ")) == methods | {"OPTIONS"}


async def test_a_strange_host_is_refused_without_an_echo(server: Server) -> None:
    answer = await server.get("/config", {"host": "<canary>"})
    assert (answer.status, answer.json()["code"]) == (400, "invalid_request")
    assert b"canary" not in answer.body


async def test_pages_of_a_known_origin_may_call(bench: Bench) -> None:
    async with serving(bench, cors_origins=[ORIGIN]) as server:
        asked = {"origin": ORIGIN, "access-control-request-method": "POST"}
        preflight = await server.call("OPTIONS", "/chat", headers=asked)
        answer = await server.post("/chat/stream", {"message": "Hi"}, {**JSON, "origin": ORIGIN})
        refusal = await server.post("/chat", b"", {**JSON, "origin": ORIGIN})
    assert preflight.status == 204
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "Content-Type" in preflight.headers["access-control-allow-headers"]
    assert "X-Conversation-ID" in answer.headers["access-control-expose-headers"]
    for each in (preflight, answer, refusal):
        assert each.headers["access-control-allow-origin"] == ORIGIN
        assert each.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in each.headers


@pytest.mark.parametrize("origin", ["https://evil.example.org", ORIGIN.upper(), f"{ORIGIN}.evil", "null", "*", ""])
async def test_pages_of_any_other_origin_may_not(bench: Bench, origin: str) -> None:
    async with serving(bench, cors_origins=[ORIGIN]) as server:
        preflight = await server.call(
            "OPTIONS", "/chat", headers={"origin": origin, "access-control-request-method": "POST"}
        )
        answer = await server.get("/config", {"origin": origin})
    for each in (preflight, answer):
        assert not any(name.startswith("access-control") for name in each.headers)
        assert each.headers["vary"] == "Origin"
