"""What every listener keeps of the port `Telemetry`."""

from decimal import Decimal

import pytest

from textllm_core.errors import ProviderReport
from textllm_core.events import (
    Event,
    ExchangeAdmitted,
    ExchangeAnswered,
    ExchangeBegun,
    ExchangeCorrected,
    ExchangeFailed,
    ExchangeRerouted,
    ExchangeSettled,
    ExchangesRunning,
    RequestAnswered,
    TurnNotKept,
)
from textllm_core.ports.telemetry import Telemetry
from textllm_core.usage import Usage

EVENTS: dict[str, Event] = {
    "a request": RequestAnswered(request_id="r", method="GET", route="/config", status=200, duration_s=0.1),
    "a strange request": RequestAnswered(
        request_id="r", method="PROP\nFIND", route=None, status=499, duration_s=0, code="x", tenant_id="ü"
    ),
    "an admission": ExchangeAdmitted("resp_1", Decimal("1e-10")),
    "a beginning": ExchangeBegun("resp_1", "\ud800\n\x1b" * 1000, "ü\0"),
    "an answer": ExchangeAnswered(
        response_id="resp_1", status="failed", finish_reason="stop", usage=Usage(), error_code="\ud800" * 1000
    ),
    "a turn": ExchangeSettled(
        response_id="resp_1",
        kind="text",
        model="\ud800\n\x1b" * 1000,
        status="completed",
        usage=Usage(input_tokens=2**40),
        held=Decimal(0),
        cost=Decimal("1e-10"),
        estimated=True,
        recovered=True,
        time_to_first_token_ms=None,
    ),
    "a correction": ExchangeCorrected(
        response_id="resp_1",
        model="\ud800\n\x1b" * 1000,
        held=Decimal(0),
        estimate=Decimal("1e-10"),
        cost=Decimal(0),
    ),
    "a failure": ExchangeFailed(
        response_id="resp_1", code="provider_error", model="m", reason="no", report=ProviderReport(code="\x1b[2J\n{}")
    ),
    "a fallback": ExchangeRerouted(
        "resp_1", "provider_unavailable", "m", "\ud800\n" * 1000, ProviderReport(status=503, address="a/v1"), "no"
    ),
    "a turn that is not kept": TurnNotKept(
        "resp_1", "\ud800\n" * 1000, "provider_error", "no", ProviderReport(status=503)
    ),
    "a load": ExchangesRunning(count=0, detached=1, held=Decimal(0)),
}


class TelemetryContract:
    """What every listener keeps of the port `Telemetry`.

    Fixture `telemetry`: one of them.
    """

    @pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
    def test_any_event_is_taken_and_nothing_is_raised(self, telemetry: Telemetry, event: Event) -> None:
        telemetry.emit(event)
        telemetry.emit(event)
