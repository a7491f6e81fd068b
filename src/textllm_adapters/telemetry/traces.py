"""Steps to OpenTelemetry spans. Their attributes are ids, names, codes and amounts, never a text or an address."""

import asyncio
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from threading import Thread
from typing import Final

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter, SpanExportResult
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from textllm_adapters.telemetry.logs import TRACE_ID
from textllm_core.errors import TextLLMError
from textllm_core.events import (
    Event,
    ExchangeAdmitted,
    ExchangeAnswered,
    ExchangeBegun,
    ExchangeSettled,
    RequestAnswered,
)
from textllm_core.steps import Admitting, Asking, Serving, Settling, Step

FLUSH_S: Final = 3.0  # a collector that answers takes milliseconds; the end of a process waits for no other
_MAX_CHARS: Final = 200  # of what the provider has named
_UNHEARD: Final = frozenset({"baggage"})  # nobody here asks for it, and 8 kB of blanks take a tenth of a second to read
_OTHER_METHOD: Final = "_OTHER"  # what the conventions call a method that is not known
_SERVER_ERROR: Final = 500

_logger: Final = logging.getLogger("textllm")


class OpenTelemetryTracer:
    """A `Tracer` whose spans follow the semantic conventions for HTTP and for generative AI, and a `Telemetry`, too.

    Args:
        provider: who answers turns, as `gen_ai.provider.name`.
        named: other providers, whose names stand before those of their models.
    """

    def __init__(self, spans: TracerProvider, *, provider: str, named: Collection[str] = ()) -> None:
        self._spans, self._provider, self._named = spans, provider, named
        self._tracer = spans.get_tracer("textllm", version("textllm"))
        self._incoming = {name.encode() for name in propagate.get_global_textmap().fields - _UNHEARD}

    @contextmanager
    def span(self, step: Step) -> Iterator[None]:
        """Keeps `Tracer.span`."""
        name, kind, attributes = self._described(step)
        with self._tracer.start_as_current_span(
            name,
            context=self._sender_of(step) if isinstance(step, Serving) else None,
            kind=kind,
            attributes=attributes,
            record_exception=False,  # its text may quote what somebody said
            set_status_on_exception=False,
        ) as span:
            outer = TRACE_ID.set(trace.format_trace_id(span.get_span_context().trace_id))
            try:
                yield
            except BaseException as error:
                _fail(span, _kind_of(error))
                raise
            finally:
                TRACE_ID.reset(outer)

    def _described(self, step: Step) -> tuple[str, SpanKind, Mapping[str, str]]:
        match step:
            case Serving(method=method):
                name = "HTTP" if method == "other" else method  # until its route is known
                return name, SpanKind.SERVER, {"http.request.method": _OTHER_METHOD if method == "other" else method}
            case Admitting(kind=kind):
                return "admission", SpanKind.INTERNAL, {"textllm.kind": kind}
            case Asking():
                model = _name(step.model)
                owner = model.partition("/")[0]
                asked = {
                    "gen_ai.operation.name": "chat",
                    "gen_ai.provider.name": owner if owner in self._named else self._provider,
                    "gen_ai.request.model": model,
                }
                return f"chat {model}", SpanKind.CLIENT, asked
            case Settling(response_id=response_id):
                return "settlement", SpanKind.INTERNAL, {"textllm.response.id": response_id}

    def _sender_of(self, step: Serving) -> Context:
        """The span in which the request was sent, where it says so."""
        carrier: dict[str, list[str]] = {}
        for name, value in step.headers:
            if name in self._incoming:
                carrier.setdefault(name.decode(), []).append(value.decode("latin-1"))
        return propagate.extract(carrier, Context())

    def outgoing(self) -> Mapping[str, str]:
        """Keeps `Tracer.outgoing`. A sender's baggage, which may hold anything, is nobody else's, and not among it."""
        headers: dict[str, str] = {}
        propagate.inject(headers)
        return headers

    def emit(self, event: Event) -> None:
        """Keeps `Telemetry.emit`: what is stated within a span becomes its attributes."""
        span = trace.get_current_span()
        if not span.is_recording():
            return
        match event:
            case RequestAnswered():
                _note_request(span, event)
            case ExchangeAdmitted(response_id=response_id, held=held):
                span.set_attributes({"textllm.response.id": response_id, "textllm.held_usd": float(held)})
            case ExchangeBegun():
                span.set_attribute("gen_ai.response.model", _name(event.model))
                if event.provider_response_id is not None:
                    span.set_attribute("gen_ai.response.id", _name(event.provider_response_id))
            case ExchangeAnswered():
                _note_answer(span, event)
            case ExchangeSettled():
                span.set_attributes(
                    {
                        "textllm.status": event.status,
                        "textllm.cost_usd": float(event.cost),
                        "textllm.estimated": event.estimated,
                    }
                )

    def close(self) -> None:
        """Export what waits. What no collector has taken after `FLUSH_S` seconds is lost."""
        closing = Thread(target=self._spans.shutdown, name="last traces", daemon=True)  # which the exit does not await
        closing.start()
        closing.join(FLUSH_S)


def _note_request(span: Span, event: RequestAnswered) -> None:
    if event.route is not None:
        span.update_name(f"{'HTTP' if event.method == 'other' else event.method} {event.route}")
        span.set_attribute("http.route", event.route)
    if event.code is not None:
        span.set_attribute("textllm.problem.code", event.code)
    span.set_attributes(
        {
            "http.response.status_code": event.status,
            "url.scheme": event.scheme,
            "textllm.request.id": event.request_id,
        }
    )
    if event.status >= _SERVER_ERROR:
        _fail(span, event.code or str(event.status))


def _note_answer(span: Span, event: ExchangeAnswered) -> None:
    if event.usage is not None:
        span.set_attributes(
            {
                "gen_ai.usage.input_tokens": event.usage.input_tokens,
                "gen_ai.usage.output_tokens": event.usage.output_tokens,
            }
        )
    if event.status in ("failed", "cancelled"):
        _fail(span, _name(event.error_code or event.status))
    else:
        span.set_attribute("gen_ai.response.finish_reasons", [event.finish_reason])


def _fail(span: Span, kind: str) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))


def _name(given: str) -> str:
    """What somebody else has named, as any exporter can write it."""
    return given[:_MAX_CHARS].encode(errors="replace").decode()


def _kind_of(error: BaseException) -> str:
    if isinstance(error, TextLLMError):
        return error.code
    return "cancelled" if isinstance(error, asyncio.CancelledError) else type(error).__qualname__


def open_exporting(exporters: Sequence[str], *, provider: str, named: Collection[str] = ()) -> OpenTelemetryTracer:
    """A tracer that exports in the background; what its variables leave open is as the SDK has it.

    Args:
        exporters: "otlp", "console" or both.
        provider, named: as `OpenTelemetryTracer` has them.
    Raises:
        ValueError: the SDK does not take one of its variables.
    """
    ours = {"service.name": "textllm", "service.version": version("textllm")}
    resource = Resource.create(ours | dict(OTELResourceDetector().detect().attributes))
    spans = TracerProvider(resource=resource, shutdown_on_exit=False)
    for name in exporters:
        exporter = OTLPSpanExporter() if name == "otlp" else ConsoleSpanExporter()
        spans.add_span_processor(BatchSpanProcessor(_Reported(exporter)))
    # From here on it would tell of each try to reach a collector, and of each span that waited in vain.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    return OpenTelemetryTracer(spans, provider=provider, named=named)


class _Reported(SpanExporter):
    """An exporter that tells once that it does not get through, and once that it does again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._gets_through = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            if (result is SpanExportResult.SUCCESS) != self._gets_through:
                self._gets_through = not self._gets_through
                if self._gets_through:
                    _logger.warning("traces are taken again")
                else:
                    _logger.warning("traces are lost: nobody takes them at OTEL_EXPORTER_OTLP_ENDPOINT")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)
