"""Events to Prometheus metrics. Every label is a name of ours or one of few: none is made of what callers send."""

import asyncio
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from textllm_adapters.telemetry.shared_counters import SHARED_DIR
from textllm_core.events import (
    ErasuresWaiting,
    Event,
    ExchangeCorrected,
    ExchangeFailed,
    ExchangeRerouted,
    ExchangeSettled,
    ExchangesRunning,
    Removed,
    RequestAnswered,
)

_MAX_MODELS: Final = 100  # beyond it, and for a name of no known form, a model is "other"
_MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}")
# Each write asks the system which process this is, and a turn has some thirty: added up first, they cost nothing. It is
# what a worker that is killed may lose, and how far behind it may be in the sums that another one shows.
FLUSH_EVERY_S: Final = 0.25
# From our own work alone to the longest a provider is waited for by default (`upstream_timeout_s`).
_LATENCY_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class PrometheusTelemetry:
    """The counters of a process; within `shared_counters`, shown together with those of the others.

    They begin at 0 with each start of the service. Money is counted in floats, to about 15 digits: the ledger is exact.
    Within `gathering` they are added up in memory, and written where all processes see them each `FLUSH_EVERY_S`.
    """

    def __init__(self) -> None:
        own = self._own = CollectorRegistry()
        self._requests = Counter(
            "textllm_http_requests", "Requests answered.", ("route", "method", "status"), registry=own
        )
        self._durations = Histogram(
            "textllm_http_request_duration_seconds",
            "From the request's head to the response's end.",
            ("route", "method"),
            buckets=_LATENCY_S,
            registry=own,
        )
        self._fallbacks = Counter(
            "textllm_fallbacks", "Turns for which another model was asked.", ("model", "to"), registry=own
        )
        self._problems = Counter("textllm_http_problems", "Requests refused or failed.", ("code",), registry=own)
        self._turns = Counter(
            "textllm_turns", "Turns settled in the ledger.", ("model", "kind", "status"), registry=own
        )
        self._tokens = Counter(
            "textllm_tokens",
            "Tokens of settled turns; cached ones are part of the input, reasoning of the output.",
            ("model", "status", "type"),
            registry=own,
        )
        self._cost = Counter("textllm_cost_usd", "Cost of settled turns.", ("model", "status"), registry=own)
        self._tool_calls = Counter(
            "textllm_tool_calls",
            "Calls of tools on providers' own servers, of settled turns.",
            ("model", "tool"),
            registry=own,
        )
        self._corrections = Counter(
            "textllm_cost_corrections_usd",
            "Estimated cost that the provider's later word has raised (up), or lowered (down).",
            ("model", "direction"),
            registry=own,
        )
        self._first_text = Histogram(
            "textllm_time_to_first_token_seconds",
            "From a turn's admission to its first text.",
            ("model",),
            buckets=_LATENCY_S,
            registry=own,
        )
        self._failures = Counter(
            "textllm_turns_failed", "Admitted turns without a whole reply.", ("code",), registry=own
        )
        self._estimated = Counter("textllm_turns_estimated", "Turns settled by an estimate.", registry=own)
        self._corrected = Counter(
            "textllm_turns_corrected", "Turns whose estimate the provider's later word has replaced.", registry=own
        )
        self._recovered = Counter("textllm_turns_recovered", "Turns settled for a process that died.", registry=own)
        self._exceeded = Counter("textllm_holds_exceeded", "Turns that cost more than was held for them.", registry=own)
        self._holds = self._level("textllm_holds", "Holds of turns that run now.")
        self._held = self._level("textllm_holds_usd", "Money held for turns that run now.")
        self._live = self._level("textllm_replies_live", "Replies that run now and have a reader.")
        self._detached = self._level("textllm_replies_detached", "Replies that run on without a reader.")
        self._removed = Counter(
            "textllm_removed", "What was kept for a time only, and is gone.", ("kind",), registry=own
        )
        self._erasures = self._fact("textllm_erasures_pending", "Erasures that the provider has not confirmed yet.")
        self._failing = self._fact("textllm_erasures_failing", "Those of them that were tried before.")
        self._absent = self._fact(
            "textllm_erasures_absent", "Those of them whose provider is not among the settings any more."
        )
        self._models: set[str] = set()
        self._lock = Lock()  # `expose` runs in another thread
        self._counted: dict[tuple[Counter, tuple[str, ...]], float] = {}  # these three: since the last flush
        self._observed: list[tuple[Histogram, tuple[str, ...], float]] = []
        self._levels: dict[Gauge, float] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._flush_every_s = FLUSH_EVERY_S
        self._is_flush_due = False

    @contextmanager
    def gathering(self, every_s: float = FLUSH_EVERY_S) -> Iterator[None]:
        """Write on an interval what is stated in the block, by the running loop; afterwards, and before, at once."""
        self._loop, self._flush_every_s = asyncio.get_running_loop(), every_s
        try:
            yield
        finally:
            self._loop = None
            self.flush()

    def flush(self) -> None:
        """Write what was added up."""
        with self._lock:
            counted, self._counted = self._counted, {}
            observed, self._observed = self._observed, []
            levels, self._levels = self._levels, {}
            for (counter, labels), amount in counted.items():
                (counter.labels(*labels) if labels else counter).inc(amount)
            for histogram, labels, value in observed:
                histogram.labels(*labels).observe(value)
            for gauge, level in levels.items():
                gauge.set(level)

    def _flush_when_due(self) -> None:
        self._is_flush_due = False
        self.flush()

    def _level(self, name: str, documentation: str) -> Gauge:
        return Gauge(name, documentation, registry=self._own, multiprocess_mode="livesum")

    def _fact(self, name: str, documentation: str) -> Gauge:
        """Something that all processes find the same: who looked last tells it."""
        return Gauge(name, documentation, registry=self._own, multiprocess_mode="livemostrecent")

    def expose(self) -> bytes:
        """All metrics in Prometheus' text format, version 0.0.4: exact for this process, which flushes its own."""
        self.flush()
        if SHARED_DIR not in os.environ:
            return generate_latest(self._own)
        shared = CollectorRegistry()
        MultiProcessCollector(shared)  # type: ignore[no-untyped-call]  # the library has no types there
        return generate_latest(shared)

    def emit(self, event: Event) -> None:
        """Keeps `Telemetry.emit`."""
        with self._lock:
            self._note(event)
            if self._loop is not None and not self._is_flush_due:
                self._is_flush_due = True
                self._loop.call_later(self._flush_every_s, self._flush_when_due)
        if self._loop is None:
            self.flush()

    def _note(self, event: Event) -> None:
        match event:
            case RequestAnswered():
                self._note_request(event)
            case ExchangeSettled():
                self._note_exchange(event)
            case ExchangeCorrected():
                self._note_correction(event)
            case ExchangeFailed(code=code):
                self._count(self._failures, code)
            case ExchangeRerouted(model=model, to=to):
                self._count(self._fallbacks, self._known(model), self._known(to))
            case Removed(kind=kind, count=count):
                self._count(self._removed, kind, amount=count)
            case ErasuresWaiting(pending=pending, failing=failing):
                absent = sum(event.absent.values())
                self._levels |= {self._erasures: pending, self._failing: failing, self._absent: absent}
            case ExchangesRunning(count=count, detached=detached, held=held):
                levels = self._levels
                levels[self._holds] = count
                levels[self._held] = float(held)
                levels[self._live] = max(0, count - detached)  # one may be left before it is admitted
                levels[self._detached] = detached

    def _count(self, counter: Counter, *labels: str, amount: float = 1) -> None:
        key = (counter, labels)
        self._counted[key] = self._counted.get(key, 0) + amount

    def _note_request(self, event: RequestAnswered) -> None:
        route = event.route or "unmatched"
        self._count(self._requests, route, event.method, str(event.status))
        self._observed.append((self._durations, (route, event.method), event.duration_s))
        if event.code is not None:
            self._count(self._problems, event.code)

    def _note_exchange(self, event: ExchangeSettled) -> None:
        model, status, usage = self._known(event.model), event.status, event.usage
        self._count(self._turns, model, event.kind, status)
        for kind, tokens in (
            ("input", usage.input_tokens),
            ("cached", usage.cached_tokens),
            ("output", usage.output_tokens),
            ("reasoning", usage.reasoning_tokens),
        ):
            self._count(self._tokens, model, status, kind, amount=tokens)
        self._count(self._cost, model, status, amount=float(event.cost))
        for tool, calls in usage.tool_calls.items():
            self._count(self._tool_calls, model, tool, amount=calls)
        if event.time_to_first_token_ms is not None:
            self._observed.append((self._first_text, (model,), event.time_to_first_token_ms / 1000))
        if event.estimated:
            self._count(self._estimated)
        if event.recovered:
            self._count(self._recovered)
        if event.exceeds_hold:
            self._count(self._exceeded)

    def _note_correction(self, event: ExchangeCorrected) -> None:
        by = event.cost - event.estimate
        self._count(self._corrected)
        if by:  # counters never go down
            direction = "up" if by > 0 else "down"
            self._count(self._corrections, self._known(event.model), direction, amount=float(abs(by)))
        if event.exceeds_hold:
            self._count(self._exceeded)

    def _known(self, model: str) -> str:
        """The model's name as a label. Only models that were admitted come here; still a provider may name many."""
        if model not in self._models:
            if len(self._models) >= _MAX_MODELS or not _MODEL_NAME.fullmatch(model):
                return "other"
            self._models.add(model)
        return model
