"""Traces of a real server: from a client's own span through HTTP, admission and the provider to settlement."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from tests.e2e.conftest import Books, Service, serving
from tests.servers.openai import Fault, OpenAIStandIn, Reply
from tests.servers.otlp import Collector, Span

from textllm_core.ids import new_id

SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50"}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def traced(
    collector: Collector, provider: OpenAIStandIn, database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A server of two workers that exports its traces."""
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_SERVICE_NAME": "books",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=trial",
    }
    folder = tmp_path_factory.mktemp("traced")
    with serving(folder, provider, database, "--workers", "2", **variables, **SOON) as service:
        yield service


class Client:
    """A client that traces, too: its own span is the parent of the server's."""

    def __init__(self) -> None:
        self.trace_id, self.span_id = os.urandom(16).hex(), os.urandom(8).hex()
        self.headers = {"traceparent": f"00-{self.trace_id}-{self.span_id}-01"}


def trace_of(client: Client, collector: Collector, *names: str) -> dict[str, Span]:
    """The client's trace, once it has spans of these names."""
    soon(lambda: set(collector.of(client.trace_id)) >= set(names))
    return collector.of(client.trace_id)


def soon(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def said_to(provider: OpenAIStandIn, client: Client, path: str) -> str:
    """The span in which the provider was called."""
    (sent,) = [
        parent
        for request in list(provider.requests)
        if client.trace_id in (parent := request.headers.get("traceparent", "")) and request.path == path
    ]
    return sent.split("-")[2]


def interrupt(service: Service) -> None:
    """End it in the orderly way, without the seconds in which the world learns of it."""
    service.process.send_signal(signal.SIGINT)
    assert service.process.wait(60) == 0, service.log.read_text()


TURN = ("POST /chat", "admission", "chat gpt-4o", "settlement")


def test_one_trace_leads_from_the_client_to_the_provider_and_back_into_the_books(
    traced: Service, collector: Collector, provider: OpenAIStandIn
) -> None:
    client, user = Client(), new_id("user")
    headers = client.headers | {"x-request-id": "mine-1"}
    answer = httpx.post(f"{traced.url}/chat", json={"message": "Hi", "user_id": user}, headers=headers, timeout=30)
    reply = answer.json()
    trace = trace_of(client, collector, *TURN)
    assert set(trace) == set(TURN)
    served, admitted, asked, settled = (trace[name] for name in TURN)
    assert served.parent_id == client.span_id
    assert {admitted.parent_id, asked.parent_id, settled.parent_id} == {served.span_id}
    assert [span.kind for span in (served, admitted, asked, settled)] == ["SERVER", "INTERNAL", "CLIENT", "INTERNAL"]
    assert served.began <= admitted.began <= admitted.ended <= asked.began <= asked.ended <= settled.began
    assert settled.ended <= served.ended
    assert served.attributes == {
        "http.request.method": "POST",
        "http.route": "/chat",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "textllm.request.id": "mine-1",
    }
    bill = provider.bills[-1]
    assert asked.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": reply["model"],
        "gen_ai.response.id": bill.response_id,
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": bill.usage.input_tokens,
        "gen_ai.usage.output_tokens": bill.usage.output_tokens,
    }
    assert admitted.attributes["textllm.response.id"] == settled.attributes["textllm.response.id"]
    assert settled.attributes["textllm.response.id"] == reply["response_id"]
    assert settled.attributes["textllm.cost_usd"] == pytest.approx(float(reply["cost"]))
    assert settled.attributes["textllm.status"] == "completed"
    assert not any(span.is_error for span in trace.values())
    assert said_to(provider, client, "/v1/responses") == asked.span_id
    assert said_to(provider, client, "/v1/conversations") == served.span_id
    assert {span.resource["service.name"] for span in trace.values()} == {"books"}
    assert {span.resource["deployment.environment.name"] for span in trace.values()} == {"trial"}
    lines = [json.loads(line) for line in traced.log.read_text().splitlines() if '"mine-1"' in line]
    assert [line["trace_id"] for line in lines if line["message"] == "request"] == [client.trace_id]


def test_the_span_of_a_streams_provider_lasts_as_long_as_the_reply(
    traced: Service, collector: Collector, provider: OpenAIStandIn
) -> None:
    client, gate = Client(), threading.Event()
    provider.script(Reply(deltas=("a", "b"), gate=gate))
    body = {"message": "Hi", "user_id": new_id("user")}
    with httpx.stream("POST", f"{traced.url}/chat/stream", json=body, headers=client.headers, timeout=30) as answer:
        begun = time.time_ns()
        gate.set()
        assert answer.read().endswith(b"data: [DONE]\n\n")
    trace = trace_of(client, collector, "POST /chat/stream", *TURN[1:])
    served, asked = trace["POST /chat/stream"], trace["chat gpt-4o"]
    assert asked.parent_id == served.span_id
    assert asked.began < begun < asked.ended <= trace["settlement"].began <= trace["settlement"].ended <= served.ended


def test_a_reply_whose_client_hangs_up_is_followed_to_its_end_in_the_same_trace(
    traced: Service, collector: Collector, provider: OpenAIStandIn
) -> None:
    client, gate = Client(), threading.Event()
    provider.script(Reply(deltas=("a", "b"), gate=gate))
    body = {"message": "Hi", "user_id": new_id("user")}
    with httpx.stream("POST", f"{traced.url}/chat/stream", json=body, headers=client.headers, timeout=30) as answer:
        assert answer.status_code == 200
    served = trace_of(client, collector, "POST /chat/stream")["POST /chat/stream"]
    assert "chat gpt-4o" not in collector.of(client.trace_id)
    gate.set()
    trace = trace_of(client, collector, "POST /chat/stream", *TURN[1:])
    asked, settled = trace["chat gpt-4o"], trace["settlement"]
    assert asked.parent_id == settled.parent_id == served.span_id
    assert served.ended < asked.ended <= settled.began
    assert settled.attributes["textllm.status"] == "completed"
    assert asked.attributes["gen_ai.usage.output_tokens"] == provider.bills[-1].usage.output_tokens


def test_a_failure_of_the_provider_is_on_its_span_and_on_the_servers(
    traced: Service, collector: Collector, provider: OpenAIStandIn
) -> None:
    client = Client()
    provider.script(Fault.http(401, "invalid_api_key"))
    body = {"message": "Hi", "user_id": new_id("user")}
    answer = httpx.post(f"{traced.url}/chat", json=body, headers=client.headers, timeout=30)
    assert answer.status_code == 502
    trace = trace_of(client, collector, *TURN)
    served, admitted, asked, settled = (trace[name] for name in TURN)
    assert [span.is_error for span in (served, admitted, asked, settled)] == [True, False, True, False]
    assert served.attributes["error.type"] == asked.attributes["error.type"] == "provider_error"
    assert served.attributes["http.response.status_code"] == 502


def test_what_is_refused_reaches_no_provider(traced: Service, collector: Collector) -> None:
    client = Client()
    body = {"message": "Hi", "conversation_id": "conv_none"}
    assert httpx.post(f"{traced.url}/chat", json=body, headers=client.headers, timeout=30).status_code == 404
    trace = trace_of(client, collector, "POST /chat", "admission")
    assert set(trace) == {"POST /chat", "admission"}
    assert trace["admission"].attributes["error.type"] == "conversation_not_found"
    assert trace["POST /chat"].attributes["textllm.problem.code"] == "conversation_not_found"
    assert [trace[name].is_error for name in ("POST /chat", "admission")] == [False, True]


def test_both_workers_export_and_a_request_without_a_trace_gets_one(traced: Service, collector: Collector) -> None:
    def instances() -> set[str]:
        traced.get("/health/live")
        spans = [span for span in collector.spans if span.name == "GET /health/live" and not span.parent_id]
        assert len({span.trace_id for span in spans}) == len(spans)
        return {span.resource["service.instance.id"] for span in spans}

    soon(lambda: len(instances()) == 2)


def test_what_waits_is_exported_before_the_server_ends(
    provider: OpenAIStandIn, collector: Collector, sqlite_url: str, tmp_path: Path
) -> None:
    client = Client()
    to = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.endpoint}/v1/traces",
        "OTEL_TRACES_EXPORTER": "otlp,console",
    }
    with serving(tmp_path, provider, sqlite_url, **to, OTEL_BSP_SCHEDULE_DELAY="600000") as service:
        body = {"message": "Hi", "user_id": new_id("user")}
        assert httpx.post(f"{service.url}/chat", json=body, headers=client.headers, timeout=30).status_code == 200
        assert collector.of(client.trace_id) == {}
        interrupt(service)
    assert set(collector.of(client.trace_id)) == set(TURN)
    assert {span.resource["service.name"] for span in collector.of(client.trace_id).values()} == {"textllm"}
    assert '"name": "chat gpt-4o"' in service.log.read_text()


@pytest.mark.parametrize("fault", ["refuses", "hangs"])
async def test_a_dead_collector_holds_up_no_turn_and_no_shutdown_and_is_told_once(
    provider: OpenAIStandIn, sqlite_url: str, tmp_path: Path, fault: str
) -> None:
    user = new_id("user")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        if fault == "refuses":
            listener.close()
        few = {"OTEL_BSP_MAX_QUEUE_SIZE": "8", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "2"}
        asks = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
        with serving(tmp_path, provider, sqlite_url, **asks, **few, **SOON) as service:
            assert [service.chat(f"{n}", user_id=user).status_code for n in range(20)] == [200] * 20
            soon(lambda: "traces are lost" in service.log.read_text())
            assert [service.chat(f"{n}", user_id=user).status_code for n in range(20)] == [200] * 20
            began = time.monotonic()
            interrupt(service)
            assert time.monotonic() - began < 25  # a queue of timeouts, each tried again, would take longer
    lines = [json.loads(line) for line in service.log.read_text().splitlines() if line.startswith("{")]
    assert [line["message"] for line in lines if "trace" in line["message"]] == [
        "traces are lost: nobody takes them at OTEL_EXPORTER_OTLP_ENDPOINT"
    ]
    assert not [line for line in lines if not line["logger"].startswith("textllm")]
    assert len(await Books(sqlite_url).entries(user)) == 40


def test_nothing_is_traced_unless_asked_for(provider: OpenAIStandIn, sqlite_url: str, tmp_path: Path) -> None:
    with Collector() as collector:
        nobody = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_TRACES_EXPORTER": "none"}
        with serving(tmp_path, provider, sqlite_url, **nobody, **SOON) as service:
            seen = len(provider.requests)
            assert service.chat("Hi").status_code == 200
            interrupt(service)
    assert collector.raw == []
    assert not any("traceparent" in request.headers for request in provider.requests[seen:])
    assert "trace_id" not in service.log.read_text()
