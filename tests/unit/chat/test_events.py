"""What the core states of its exchanges."""

import asyncio
from contextlib import aclosing
from datetime import timedelta
from decimal import Decimal

import pytest
from msgspec.structs import replace
from tests.unit.conftest import POLICY, Bench

from textllm_adapters.memory.llm import ScriptedReply
from textllm_core import Caller, ReplyCompleted, TextLLMError, TextTurn, Usage
from textllm_core.errors import ContextTooLongError, ProviderError, ProviderReport, ProviderTimeoutError
from textllm_core.events import ExchangeCorrected, ExchangeFailed, ExchangeSettled, ExchangesRunning
from textllm_core.records.model import ModelEnded


def settled(bench: Bench) -> list[ExchangeSettled]:
    return [event for event in bench.telemetry.events if isinstance(event, ExchangeSettled)]


def failed(bench: Bench) -> list[ExchangeFailed]:
    return [event for event in bench.telemetry.events if isinstance(event, ExchangeFailed)]


def load(bench: Bench) -> ExchangesRunning:
    return [event for event in bench.telemetry.events if isinstance(event, ExchangesRunning)][-1]


async def test_each_entry_of_the_ledger_is_stated_once_with_its_values(bench: Bench) -> None:
    bench.llm.script(
        ScriptedReply(text="Paris."), ScriptedReply(text="Cut", status="incomplete", finish_reason="length")
    )
    await bench.say("one")
    await bench.say("two")
    entries = await bench.entries()
    assert [(e.response_id, e.model, e.status, e.usage, e.cost) for e in entries] == [
        (e.response_id, e.model, e.status, e.usage, e.cost) for e in settled(bench)
    ]
    assert not any(event.exceeds_hold or event.recovered for event in settled(bench))
    assert failed(bench) == []


async def test_a_failure_at_the_provider_is_stated_with_its_own_code_and_ours(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(text="Half", status="failed", error_code="server_error"))
    with pytest.raises(TextLLMError):
        await bench.say("one")
    (entry,) = await bench.entries()
    assert failed(bench) == [
        ExchangeFailed(
            response_id=entry.response_id,
            code="provider_error",
            model="gpt-4o",
            reason="The model could not finish its reply.",
            report=ProviderReport(code="server_error"),
        )
    ]


async def test_a_reply_that_breaks_off_is_stated_with_the_id_of_its_call() -> None:
    bench = Bench(policy=replace(POLICY, silence_timeout_s=0.01))
    bench.llm.script(ScriptedReply(deltas=("Half", "more"), gate=asyncio.Event()))
    with pytest.raises(ProviderTimeoutError, match="The model gpt-4o took too long to go on"):
        await bench.say("one")
    report = ProviderReport(request_id="req_resp_scripted_1", is_answer=False)
    assert [(event.code, event.report) for event in failed(bench)] == [("provider_timeout", report)]


async def test_what_the_provider_has_refused_for_its_length_costs_nothing_once_it_has_begun(bench: Bench) -> None:
    refusal = ContextTooLongError()
    refusal.report = ProviderReport(status=400)
    bench.llm.script(
        ScriptedReply(deltas=(), error=ProviderError("The connection broke."), after=0),
        ScriptedReply(deltas=(), error=refusal, after=0),
    )
    for _ in range(2):
        with pytest.raises(TextLLMError):
            await bench.say("one")
    await bench.running.drain(10)
    assert [event.code for event in failed(bench)] == ["provider_error", "context_too_long"]
    (broken,) = settled(bench)  # of the other one nothing is left, as where it is refused before it begins
    assert broken.usage.input_tokens > 0
    await bench.check_books()


async def test_a_turn_that_the_provider_never_took_failed_and_is_not_settled(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(error=ContextTooLongError()))
    with pytest.raises(ContextTooLongError):
        await bench.say("one")
    await bench.running.drain(10)
    assert [event.code for event in failed(bench)] == ["context_too_long"]
    assert settled(bench) == []


async def test_what_costs_more_than_was_held_is_stated(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(text="Dear.", usage=Usage(input_tokens=10, output_tokens=300_000)))
    await bench.say("one")
    assert [event.exceeds_hold for event in settled(bench)] == [True]


async def test_what_runs_and_what_it_holds_is_stated_until_nothing_runs(bench: Bench) -> None:
    gate = asyncio.Event()
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=gate))
    async with aclosing(bench.send_message.stream(Caller(), TextTurn("hi", user_id="ada"))) as events:
        await anext(events)
        running = load(bench)
        assert (running.count, running.detached) == (1, 0)
        assert running.held > 0
    left = load(bench)
    assert (left.count, left.detached, left.held) == (1, 1, running.held)
    gate.set()
    await bench.running.drain(10)
    await asyncio.sleep(0)
    over = load(bench)
    assert (over.count, over.detached, over.held) == (0, 0, Decimal(0))


async def test_a_reply_that_was_read_to_its_end_never_counts_as_left_alone(bench: Bench) -> None:
    await bench.say("one")
    async with aclosing(bench.send_message.stream(Caller(), TextTurn("two", user_id="ada"))) as events:
        async for event in events:
            if isinstance(event, ReplyCompleted):
                break
    await bench.running.drain(10)
    assert [of.detached for of in bench.telemetry.events if isinstance(of, ExchangesRunning)] == [0, 0, 0, 0]


async def test_what_recovery_settles_is_stated_as_recovered(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=asyncio.Event()))
    async with aclosing(bench.send_message.stream(Caller(), TextTurn("hi", user_id="ada"))) as events:
        await anext(events)
        survivor = Bench(store=bench.store)
        survivor.clock.advance(timedelta(minutes=11))
        assert await survivor.reconcile() == 1
    assert [event.recovered for event in settled(survivor)] == [True]
    await bench.running.drain(0)
    assert settled(bench) == []


async def test_a_correction_is_stated_once_with_the_estimate_that_it_replaces(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=asyncio.Event()))
    async with aclosing(bench.send_message.stream(Caller(), TextTurn("hi", user_id="ada"))) as events:
        await anext(events)
        survivor = Bench(store=bench.store)
        survivor.clock.advance(timedelta(minutes=11))
        assert await survivor.reconcile() == 1
        (estimate,) = bench.store.entries.values()
        (hold,) = (kept.hold for kept in bench.store.estimates.values())
        word = ModelEnded(status="completed", text="ab", usage=Usage(input_tokens=1000, output_tokens=100))
        survivor.llm.ended[hold.provider_response_id or ""] = word
        survivor.clock.advance(timedelta(minutes=1))
        assert [await survivor.reconcile() for _ in range(2)] == [1, 0]
    (entry,) = bench.store.entries.values()
    assert [event for event in survivor.telemetry.events if isinstance(event, ExchangeCorrected)] == [
        ExchangeCorrected(
            response_id=hold.response_id, model="gpt-4o", held=hold.amount, estimate=estimate.cost, cost=entry.cost
        )
    ]
    assert estimate.cost != entry.cost
    assert len(settled(survivor)) == 1
    await bench.running.drain(0)
