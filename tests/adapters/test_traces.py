"""OpenTelemetry: which variables turn traces on, what spans say, and what becomes of a collector that is away."""

import asyncio
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.servers.otlp import Collector

from textllm_adapters.telemetry import traces, tracing
from textllm_adapters.telemetry.logs import JsonLines
from textllm_adapters.telemetry.traces import OpenTelemetryTracer, open_exporting
from textllm_adapters.testing.telemetry import EVENTS
from textllm_adapters.testing.tracer import STEPS
from textllm_core.errors import ConfigurationError, ProviderTimeoutError
from textllm_core.events import ExchangeAnswered, RequestAnswered
from textllm_core.steps import Admitting, Asking, Serving
from textllm_core.usage import Usage

THEIRS = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Without a variable of whoever runs the tests; loggers are afterwards as they were."""
    for name in os.environ.copy():
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    level = logging.getLogger("opentelemetry").level
    yield monkeypatch
    logging.getLogger("opentelemetry").setLevel(level)


@pytest.fixture
def exported() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exported: InMemorySpanExporter) -> OpenTelemetryTracer:
    spans = TracerProvider(shutdown_on_exit=False)
    spans.add_span_processor(SimpleSpanProcessor(exported))
    return OpenTelemetryTracer(spans, provider="openai")


def only(exported: InMemorySpanExporter) -> ReadableSpan:
    (span,) = exported.get_finished_spans()
    return span


def of(span: ReadableSpan) -> Mapping[str, object]:
    return dict(span.attributes or {})


# Which variables turn it on


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ()),
        ({"OTEL_SERVICE_NAME": "x", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c"}, ()),
        ({ENDPOINT: "http://c"}, ("otlp",)),
        ({ENDPOINT: ""}, ()),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/v1/traces"}, ("otlp",)),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ("otlp",)),
        ({"OTEL_TRACES_EXPORTER": "console"}, ("console",)),
        ({"OTEL_TRACES_EXPORTER": "otlp, console,otlp"}, ("otlp", "console")),
        ({"OTEL_TRACES_EXPORTER": "none", ENDPOINT: "http://c"}, ()),
        ({"OTEL_TRACES_EXPORTER": "", ENDPOINT: "http://c"}, ("otlp",)),
        ({"OTEL_SDK_DISABLED": "TRUE", ENDPOINT: "http://c"}, ()),
        ({"OTEL_SDK_DISABLED": "false", ENDPOINT: "http://c"}, ("otlp",)),
    ],
    ids=str,
)
def test_an_exporter_or_an_endpoint_turns_traces_on(variables: dict[str, str], expected: tuple[str, ...]) -> None:
    assert tracing.exporters_in(variables) == expected


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_TRACES_EXPORTER": "zipkin"},
        {"OTEL_TRACES_EXPORTER": "otlp,none"},
        {ENDPOINT: "http://c", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
        {ENDPOINT: "http://c", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"},
        {ENDPOINT: "http://c", "OTEL_PROPAGATORS": "carrier-pigeon"},
        {ENDPOINT: "http://c", "OTEL_BSP_MAX_QUEUE_SIZE": "-1"},
    ],
    ids=str,
)
def test_a_variable_that_cannot_be_kept_is_refused_by_its_name(variables: dict[str, str]) -> None:
    program = "from textllm_adapters.telemetry.tracing import open_tracer; open_tracer(provider='openai')"
    names = [name for name in variables if name != ENDPOINT]
    refusal = refusal_of(program, variables)
    assert any(
        name.removesuffix("MAX_QUEUE_SIZE").replace("OTLP_PROTOCOL", "OTLP_TRACES_PROTOCOL") in refusal
        for name in names
    )


def refusal_of(program: str, variables: Mapping[str, str]) -> str:
    """What a fresh interpreter says, since the SDK reads some variables when it is imported."""

    done = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=False)
    assert "ConfigurationError" in done.stderr, done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_without_the_extra_the_operator_is_told_and_nothing_is_traced(environment: pytest.MonkeyPatch) -> None:
    environment.setattr(tracing, "_SDK", "a-distribution-that-nobody-has")
    assert tracing.tracing_notice() is None
    environment.setenv(ENDPOINT, "http://c")
    environment.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")  # of no account then
    notice = tracing.tracing_notice()
    assert notice is not None
    assert "extra `telemetry`" in notice
    assert tracing.open_tracer(provider="openai") is None


def test_with_the_extra_the_operator_is_told_of_what_cannot_be_kept(environment: pytest.MonkeyPatch) -> None:
    environment.setenv(ENDPOINT, "http://c")
    assert tracing.tracing_notice() is None
    environment.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    with pytest.raises(ConfigurationError, match="OTEL_TRACES_EXPORTER: expected otlp, console"):
        tracing.tracing_notice()


# What spans say


def headers(**values: str) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in values.items()]


def test_a_request_goes_on_with_its_senders_trace(tracer: OpenTelemetryTracer, exported: InMemorySpanExporter) -> None:
    with tracer.span(Serving("GET", headers(traceparent=f"00-{THEIRS}-{PARENT}-01"))):
        sent = tracer.outgoing()
    span = only(exported)
    assert (f"{span.context.trace_id:x}", f"{span.parent.span_id if span.parent else 0:016x}") == (THEIRS, PARENT)
    assert sent == {"traceparent": f"00-{THEIRS}-{span.context.span_id:016x}-01"}


@pytest.mark.parametrize("parent", ["", "x", f"00-{'0' * 32}-{PARENT}-01", f"ff-{THEIRS}-{PARENT}-01", "\xff" * 5000])
def test_a_request_without_a_sane_parent_begins_a_trace(
    tracer: OpenTelemetryTracer, exported: InMemorySpanExporter, parent: str
) -> None:
    with tracer.span(Serving("GET", headers(traceparent=parent))):
        pass
    assert only(exported).parent is None


def test_what_a_sender_did_not_sample_is_not_exported_and_says_so_to_the_next(
    tracer: OpenTelemetryTracer, exported: InMemorySpanExporter
) -> None:
    with tracer.span(Serving("GET", headers(traceparent=f"00-{THEIRS}-{PARENT}-00"))), tracer.span(Asking("m")):
        assert tracer.outgoing()["traceparent"].endswith("-00")
    assert exported.get_finished_spans() == ()


def test_baggage_goes_no_further(tracer: OpenTelemetryTracer) -> None:
    with tracer.span(Serving("GET", headers(traceparent=f"00-{THEIRS}-{PARENT}-01", baggage="user=ada"))):
        assert set(tracer.outgoing()) == {"traceparent"}


def test_baggage_costs_no_time_however_it_is_written(tracer: OpenTelemetryTracer) -> None:
    before = time.process_time()
    for _ in range(100):
        with tracer.span(Serving("GET", headers(baggage=f"a=b{' ' * 8_000}c"))):
            pass
    assert time.process_time() - before < 2  # to look for its commas takes more than 5 s


def test_a_span_is_named_after_the_route_once_it_is_known(
    tracer: OpenTelemetryTracer, exported: InMemorySpanExporter
) -> None:
    for method, route in (("GET", "/files/{_:path}"), ("GET", None), ("other", None)):
        with tracer.span(Serving(method, ())):
            tracer.emit(RequestAnswered(request_id="r", method=method, route=route, status=404, duration_s=0))
    spans = exported.get_finished_spans()
    assert [span.name for span in spans] == ["GET /files/{_:path}", "GET", "HTTP"]
    assert of(spans[2])["http.request.method"] == "_OTHER"


def test_an_error_is_told_by_its_code_and_never_by_its_text(
    tracer: OpenTelemetryTracer, exported: InMemorySpanExporter
) -> None:
    for error in (ProviderTimeoutError("canary"), asyncio.CancelledError("canary"), KeyError("canary")):
        with pytest.raises(type(error)), tracer.span(Asking("m")):
            raise error
    spans = exported.get_finished_spans()
    assert [of(span)["error.type"] for span in spans] == ["provider_timeout", "cancelled", "KeyError"]
    assert not any(span.status.is_ok or span.status.description or span.events for span in spans)
    assert "canary" not in "".join(span.to_json() for span in spans)


def test_a_reply_that_the_provider_calls_failed_is_an_error(
    tracer: OpenTelemetryTracer, exported: InMemorySpanExporter
) -> None:
    failed = ExchangeAnswered(
        response_id="r", status="failed", finish_reason="stop", usage=None, error_code="server_error"
    )
    with tracer.span(Asking("m")):
        tracer.emit(failed)
    assert of(only(exported))["error.type"] == "server_error"
    assert not only(exported).status.is_ok


def test_any_step_and_any_event_reach_a_collector(environment: pytest.MonkeyPatch) -> None:
    with Collector() as collector:
        environment.setenv(ENDPOINT, collector.endpoint)
        tracer = open_exporting(["otlp"], provider="openai")
        for step in STEPS.values():
            with tracer.span(step):
                pass
            with tracer.span(step):
                for event in EVENTS.values():
                    tracer.emit(event)
        tracer.close()
        assert len(collector.spans) == 2 * len(STEPS)
        assert len([span for span in collector.spans if "gen_ai.response.model" in span.attributes]) == len(STEPS)


def test_log_lines_of_a_request_name_its_trace(tracer: OpenTelemetryTracer) -> None:
    def line() -> str:
        return JsonLines().format(logging.LogRecord("textllm", logging.INFO, "", 0, "hi", None, None))

    with tracer.span(Serving("GET", headers(traceparent=f"00-{THEIRS}-{PARENT}-01"))), tracer.span(Admitting("text")):
        assert f'"trace_id": "{THEIRS}"' in line()
    assert "trace_id" not in line()


# Collectors that are away


def test_a_collector_that_is_away_is_told_once_and_its_return_once(
    environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    environment.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")
    environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    with Collector() as collector:
        environment.setenv(ENDPOINT, collector.endpoint)
        tracer = open_exporting(["otlp"], provider="openai")
        collector.gate.clear()
        turn_until(tracer, lambda: "traces are lost" in caplog.text)
        collector.gate.set()
        turn_until(tracer, lambda: "taken again" in caplog.text)
        tracer.close()
    messages = [record.getMessage() for record in caplog.records]
    assert [message.partition(":")[0] for message in messages] == ["traces are lost", "traces are taken again"]


def test_closing_waits_for_no_collector_that_does_not_answer(environment: pytest.MonkeyPatch) -> None:
    environment.setattr(traces, "FLUSH_S", 0.2)
    with Collector() as collector:
        environment.setenv(ENDPOINT, collector.endpoint)
        tracer = open_exporting(["otlp"], provider="openai")
        collector.gate.clear()
        with tracer.span(Asking("m")):
            tracer.emit(
                ExchangeAnswered(
                    response_id="r", status="completed", finish_reason="stop", usage=Usage(), error_code=None
                )
            )
        began = time.monotonic()
        tracer.close()
        assert time.monotonic() - began < 8  # of the 10 s that the SDK gives a request


def turn_until(tracer: OpenTelemetryTracer, is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        with tracer.span(Asking("m")):
            time.sleep(0.05)


def test_a_call_is_of_the_provider_whose_name_stands_before_its_model(exported: InMemorySpanExporter) -> None:
    spans = TracerProvider(shutdown_on_exit=False)
    spans.add_span_processor(SimpleSpanProcessor(exported))
    tracer = OpenTelemetryTracer(spans, provider="openai", named=["groq"])
    for model in ("gpt-4o", "groq/llama", "meta/llama"):
        with tracer.span(Asking(model)):
            pass
    names = [of(span)["gen_ai.provider.name"] for span in exported.get_finished_spans()]
    assert names == ["openai", "groq", "openai"]
