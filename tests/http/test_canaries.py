"""What callers send, in any field, header or address, is found in no log, metric, trace or report."""

import json
from collections.abc import Mapping
from contextlib import suppress

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.http.conftest import JSON, Server
from tests.unit.conftest import Bench

from textllm_adapters.memory.llm import ScriptedReply
from textllm_adapters.telemetry.logs import JsonLines
from textllm_adapters.telemetry.traces import OpenTelemetryTracer
from textllm_core.errors import ProviderError

CANARY = "canary7f3a"
HEADERS = {
    "authorization": f"Bearer tllm_{CANARY}",
    "baggage": f"user={CANARY}",
    "cookie": CANARY,
    "idempotency-key": CANARY,
    "last-event-id": CANARY,
    "origin": f"https://{CANARY}.example",
    "referer": f"https://{CANARY}.example",
    "traceparent": CANARY,
    "user-agent": CANARY,
    "x-forwarded-for": CANARY,
    "x-request-id": f"{CANARY} {CANARY}",
    f"x-{CANARY}": CANARY,
}
FORM_TYPE = {"content-type": "multipart/form-data; boundary=limit"}
FORM = (
    f'--limit\r\nContent-Disposition: form-data; name="user_id"\r\n\r\n{CANARY}\r\n'
    f'--limit\r\nContent-Disposition: form-data; name="file"; filename="{CANARY}.txt"\r\n\r\n{CANARY}\r\n--limit--\r\n'
).encode()
CHAT = {"message": CANARY, "user_id": CANARY, "instructions": CANARY, "metadata": {CANARY: CANARY}}

REQUESTS: list[tuple[str, str, object, Mapping[str, str]]] = [
    ("POST", "/chat", CHAT, JSON),
    ("POST", "/chat/stream", CHAT, JSON),
    ("POST", "/chat", {"message": "hi", "model": CANARY}, JSON),
    ("POST", "/chat", {"message": "hi", "prompt": CANARY}, JSON),
    ("POST", "/chat", {"message": "hi", "conversation_id": CANARY}, JSON),
    ("POST", "/chat", {"message": "hi", CANARY: CANARY}, JSON),
    ("POST", "/chat", CANARY, JSON),
    ("POST", "/conversations", {"user_id": CANARY, "title": CANARY, "tags": [CANARY]}, JSON),
    ("POST", "/files/upload", FORM, FORM_TYPE),
    ("GET", f"/files?user_id={CANARY}", None, {}),
    ("GET", f"/files/{CANARY}/content?signature={CANARY}", None, {}),
    ("GET", f"/users/{CANARY}/stats?days={CANARY}", None, {}),
    ("GET", f"/sessions/{CANARY}", None, {}),
    ("GET", f"/{CANARY}", None, {}),
    ("GET", f"/config?{CANARY}={CANARY}", None, {}),
    ("GET", "/config", None, {"host": f"<{CANARY}>"}),
    (CANARY.upper(), "/chat", None, {}),
]


async def test_what_callers_send_is_in_no_log_metric_trace_or_report(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    failure = ScriptedReply(deltas=(CANARY,), error=ProviderError(CANARY), after=1)
    server.bench.llm.script(ScriptedReply(text=CANARY), failure, ScriptedReply(status="failed", text=CANARY))
    for number, (method, target, body, headers) in enumerate(REQUESTS):
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        own = {"idempotency-key": f"{CANARY}-{number}"}
        answer = await server.call(method, target, [content], headers={**HEADERS, **own, **headers})
        assert answer.status < 500
    answer = await server.post("/chat", {"message": CANARY})
    assert answer.status == 502
    reports = [await server.get(path) for path in ("/metrics", "/health", "/health/ready", "/config")]
    assert [report.status for report in reports] == [200] * 4
    lines = [JsonLines().format(record) for record in caplog.records]
    assert len([line for line in lines if '"textllm.access"' in line]) == len(REQUESTS) + 5
    written = "\n".join([*lines, traced(server.bench), *(report.body.decode() for report in reports)]).lower()
    assert CANARY not in written


def traced(bench: Bench) -> str:
    """All that was traced, as it is exported: every step, with every fact as if it had been stated there."""
    exporter, spans = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    spans.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = OpenTelemetryTracer(spans, provider="openai")
    for span in bench.tracer.spans:
        with suppress(BaseException), tracer.span(span.step):
            for event in bench.telemetry.events:
                tracer.emit(event)
            if span.error is not None:
                raise span.error
    assert len(exporter.get_finished_spans()) == len(bench.tracer.spans) > len(REQUESTS)
    return "".join(span.to_json() for span in exporter.get_finished_spans())
