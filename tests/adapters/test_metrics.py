"""Events as Prometheus shows them."""

import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from textllm_adapters.memory.telemetry import MemoryTelemetry
from textllm_adapters.telemetry.listeners import Listeners
from textllm_adapters.telemetry.metrics import PrometheusTelemetry
from textllm_core.events import (
    ErasuresWaiting,
    Event,
    ExchangeCorrected,
    ExchangeSettled,
    ExchangesRunning,
    RequestAnswered,
)
from textllm_core.usage import Usage

SETTLED = ExchangeSettled(
    response_id="resp_1",
    kind="text",
    model="gpt-4o",
    status="completed",
    usage=Usage(input_tokens=100, cached_tokens=40, output_tokens=7, reasoning_tokens=2),
    held=Decimal("0.5"),
    cost=Decimal("0.25"),
    estimated=False,
    recovered=False,
    time_to_first_token_ms=250,
)


def samples(telemetry: PrometheusTelemetry, name: str) -> dict[tuple[str, ...], float]:
    """The values of a metric by its labels, in the order of their names."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(telemetry.expose().decode())
        for sample in family.samples
        if sample.name == name
    }


@pytest.fixture
def telemetry() -> PrometheusTelemetry:
    return PrometheusTelemetry()


def test_a_turn_is_counted_with_its_tokens_its_cost_and_its_wait(telemetry: PrometheusTelemetry) -> None:
    telemetry.emit(SETTLED)
    telemetry.emit(SETTLED)
    assert samples(telemetry, "textllm_turns_total") == {("text", "gpt-4o", "completed"): 2}
    tokens = samples(telemetry, "textllm_tokens_total")
    assert {labels[2]: value for labels, value in tokens.items()} == {
        "input": 200, "cached": 80, "output": 14, "reasoning": 4
    }  # fmt: skip
    assert samples(telemetry, "textllm_cost_usd_total") == {("gpt-4o", "completed"): 0.5}
    assert samples(telemetry, "textllm_time_to_first_token_seconds_sum") == {("gpt-4o",): 0.5}


def test_calls_of_tools_are_counted(telemetry: PrometheusTelemetry) -> None:
    used = replace(SETTLED.usage, tool_calls={"web_search": 2, "mcp": 1})
    for usage in (used, used, SETTLED.usage):
        telemetry.emit(replace(SETTLED, usage=usage))
    assert samples(telemetry, "textllm_tool_calls_total") == {("gpt-4o", "web_search"): 4, ("gpt-4o", "mcp"): 2}


def test_a_correction_is_counted_by_how_much_it_raises_or_lowers_a_cost(telemetry: PrometheusTelemetry) -> None:
    estimate = Decimal("0.5")
    for cost in ("0.75", "0.625", "0.25", "0.5"):
        telemetry.emit(
            ExchangeCorrected(
                response_id="resp_1", model="gpt-4o", held=Decimal("0.7"), estimate=estimate, cost=Decimal(cost)
            )
        )
    assert samples(telemetry, "textllm_cost_corrections_usd_total") == {
        ("up", "gpt-4o"): 0.375,
        ("down", "gpt-4o"): 0.25,
    }
    assert samples(telemetry, "textllm_turns_corrected_total") == {(): 4}
    assert samples(telemetry, "textllm_holds_exceeded_total") == {(): 1}
    assert samples(telemetry, "textllm_cost_usd_total") == {}


def test_a_turn_that_cost_more_than_was_held_is_counted(telemetry: PrometheusTelemetry) -> None:
    telemetry.emit(SETTLED)
    telemetry.emit(replace(SETTLED, cost=Decimal("0.5000000001")))
    assert samples(telemetry, "textllm_holds_exceeded_total") == {(): 1}


def test_what_is_held_now_is_a_level_and_not_a_sum(telemetry: PrometheusTelemetry) -> None:
    telemetry.emit(ExchangesRunning(count=3, detached=2, held=Decimal("0.3")))
    telemetry.emit(ExchangesRunning(count=2, detached=1, held=Decimal("0.2")))
    levels = ("textllm_holds", "textllm_holds_usd", "textllm_replies_live", "textllm_replies_detached")
    assert [samples(telemetry, name)[()] for name in levels] == [2, 0.2, 1, 1]


def test_what_waits_to_be_erased_is_what_was_found_last(telemetry: PrometheusTelemetry) -> None:
    for pending, failing, absent in ((5, 2, 2), (3, 1, 1)):
        telemetry.emit(ErasuresWaiting(pending=pending, failing=failing, absent={"two": absent}))
    levels = ("textllm_erasures_pending", "textllm_erasures_failing", "textllm_erasures_absent")
    assert [samples(telemetry, name)[()] for name in levels] == [3, 1, 1]


def test_however_many_models_a_provider_names_there_are_few_labels(telemetry: PrometheusTelemetry) -> None:
    for number in range(1000):
        telemetry.emit(replace(SETTLED, model=f"m{number}"))
    telemetry.emit(replace(SETTLED, model="m0"))
    turns = samples(telemetry, "textllm_turns_total")
    assert len(turns) <= 101
    assert sum(turns.values()) == 1001
    assert turns["text", "m0", "completed"] == 2


@pytest.mark.parametrize("model", ["", "a b", 'x"} 1', "é", "a\nb", "m" * 201])
def test_a_model_of_no_known_form_is_other(telemetry: PrometheusTelemetry, model: str) -> None:
    telemetry.emit(replace(SETTLED, model=model))
    assert samples(telemetry, "textllm_turns_total") == {("text", "other", "completed"): 1}


def test_a_request_that_met_no_route_is_counted_as_such(telemetry: PrometheusTelemetry) -> None:
    for _ in range(10):
        telemetry.emit(
            RequestAnswered(request_id="r", method="GET", route=None, status=404, duration_s=0.1, code="not_found")
        )
    assert samples(telemetry, "textllm_http_requests_total") == {("GET", "unmatched", "404"): 10}
    assert samples(telemetry, "textllm_http_problems_total") == {("not_found",): 10}


GATHERING = """
import asyncio
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector
from textllm_adapters.telemetry.metrics import PrometheusTelemetry
from textllm_core.events import ExchangeFailed

def written():  # what other processes see
    (family,) = [f for f in MultiProcessCollector(CollectorRegistry()).collect() if f.name == "textllm_turns_failed"]
    return sum(sample.value for sample in family.samples)

async def main():
    telemetry = PrometheusTelemetry()
    def fail():
        telemetry.emit(ExchangeFailed(response_id="r", code="x", model="m"))
    fail()
    print(written())
    with telemetry.gathering(every_s=0):
        fail(), fail()
        print(written())
        await asyncio.sleep(0.001)
        print(written())
        fail()
        shown = telemetry.expose()
        print(written(), b'textllm_turns_failed_total{code="x"} 4.0' in shown)
        fail()
    print(written())
    fail()
    print(written())

asyncio.run(main())
"""


def test_what_is_added_up_is_written_on_an_interval_where_it_is_shown_and_at_the_end(tmp_path: Path) -> None:
    shared = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", GATHERING], env=shared, check=True, capture_output=True, text=True)
    assert ran.stdout.split() == ["1.0", "1.0", "3.0", "4.0", "True", "5.0", "6.0"]


def test_a_listener_that_fails_keeps_no_other_from_hearing() -> None:
    class Failing:
        def emit(self, event: Event) -> None:  # noqa: ARG002 - it fails at any
            raise OSError("the disk is full")

    other = MemoryTelemetry()
    Listeners(Failing(), other).emit(SETTLED)
    assert other.events == [SETTLED]
