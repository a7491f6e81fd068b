"""Tools on the provider's own servers: held for, charged once each, and used where their operator allows them alone."""

import asyncio
from contextlib import aclosing
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace
from tests.unit.conftest import GPT, POLICY, Bench

from textllm_adapters.memory.llm import ScriptedLLM, ScriptedReply
from textllm_adapters.memory.prices import FixedPrices
from textllm_core import (
    BudgetExceededError,
    Caller,
    InvalidRequestError,
    Pricing,
    ProviderUnavailableError,
    Route,
    Routes,
    TextLLM,
    TextTurn,
    TurnOptions,
)
from textllm_core.errors import ProviderError
from textllm_core.money import ChargedCalls
from textllm_core.records.hosted import HostedItem, HostedOutput, HostedTerms, HostedTool, HostedTools, ToolStep
from textllm_core.records.messages import ReplyCompleted
from textllm_core.records.parts import OutputText
from textllm_core.usage import Usage

SEARCHING = HostedTools(tools=[HostedTool({"type": "web_search"})])
USAGE = Usage(input_tokens=1000, output_tokens=100)
TOKENS = Decimal("0.0035")  # of that, at GPT
PRICE = Decimal("0.01")
NOTE = {"type": "url_citation", "url": "https://x.example", "title": "X", "start_index": 0, "end_index": 3}


def search(number: int) -> HostedItem:
    return HostedItem({"id": f"ws_{number}", "type": "web_search_call", "status": "completed"})


def searched(times: int, **more: Any) -> ScriptedReply:
    done = HostedOutput(before=tuple(map(search, range(times))), annotations=(NOTE,))
    return replace(ScriptedReply(text="Tea is ready.", hosted=done, usage=USAGE), **more)


def allowing(bench: Bench, *, tokens: int = 500, **more: Any) -> TextLLM:
    terms = {"web_search": HostedTerms(price=PRICE, tokens=tokens)}
    route = Route(llm=bench.llm, transcript=bench.transcript, hosted=terms, **more)
    return bench.over(routes=Routes(named={}, providers={}, otherwise=route))


def turn(text: str = "Hello", conversation_id: str | None = None, **options: Any) -> TextTurn:
    asked = replace(TurnOptions(hosted=SEARCHING), **options)
    return TextTurn(text, conversation_id, "ada", options=asked, is_resumable=True)


async def test_each_call_is_charged_once_and_the_entry_says_how_many(bench: Bench) -> None:
    bench.llm.script(searched(2))
    reply = await allowing(bench).send_message(Caller(), turn())
    (entry,) = await bench.entries()
    assert reply.cost == entry.cost == TOKENS + 2 * PRICE
    assert (entry.usage.tool_calls, entry.estimated) == ({"web_search": 2}, False)
    rates = replace(GPT, calls={"web_search": PRICE}).charged(entry.usage)
    assert rates.calls == {"web_search": ChargedCalls(2, PRICE)}
    await bench.check_books()


async def test_what_tools_did_stays_in_the_conversation_and_is_told_beside_the_reply(bench: Bench) -> None:
    bench.llm.script(searched(1))
    textllm = allowing(bench)
    events = [event async for event in textllm.send_message.stream(Caller(), turn())]
    steps = [(event.item.id, event.is_done) for event in events if isinstance(event, ToolStep)]
    assert steps == [("ws_0", False), ("ws_0", True)]
    end = events[-1]
    assert isinstance(end, ReplyCompleted)
    assert end.content == (search(0), OutputText("Tea is ready.", (NOTE,)))
    _, said = await bench.said((await bench.entries())[0])
    assert said.content == end.content
    again = await textllm.send_message(Caller(), turn("more", end.reply.conversation_id, hosted=None))
    assert again.text == "[2] You said: more"


async def test_tools_that_nobody_allows_are_refused_by_their_names(bench: Bench) -> None:
    with pytest.raises(InvalidRequestError, match=r"web_search runs on the provider's own servers.*hosted_tools"):
        await bench.send_message(Caller(), turn())
    other = HostedTools(tools=[HostedTool({"type": "web_search"}), HostedTool({"type": "mcp"}, "tools[1]")])
    with pytest.raises(InvalidRequestError, match=r"hosted_tools\.mcp") as refusal:
        await allowing(bench).send_message(Caller(), turn(hosted=other))
    assert refusal.value.errors[0][0] == "tools[1].type"
    assert bench.llm.requests == []
    await bench.check_books()


@pytest.mark.parametrize(("asked", "sent"), [(None, 5), (2, 2), (9, 5)])
async def test_the_provider_is_always_told_how_many_calls_are_paid_for(
    bench: Bench, asked: int | None, sent: int
) -> None:
    await allowing(bench).send_message(Caller(), turn(hosted=replace(SEARCHING, most_calls=asked)))
    hosted = bench.llm.requests[0].hosted
    assert hosted is not None
    assert hosted.most_calls == sent


async def test_so_much_is_held_as_all_calls_and_all_that_they_bring_may_cost() -> None:
    bench = Bench(policy=replace(POLICY, max_output_tokens=1000))
    bench.llm.script(ScriptedReply(gate=asyncio.Event()))
    async with aclosing(allowing(bench).send_message.stream(Caller(), turn())) as events:
        await anext(events)
        (hold,) = (kept.hold for kept in bench.store.holds.values())
        # Asked six times, each time with what was there before: 500 tokens a call, and all that was written.
        sent = 6 * hold.input_estimate + 15 * 500 + 5 * 1000
        assert hold.amount >= GPT.dearest_input(sent) + GPT.output(1000, input_tokens=0) + 5 * PRICE


async def test_a_small_budget_buys_fewer_calls_before_it_buys_a_shorter_reply() -> None:
    bench = Bench(policy=replace(POLICY, max_output_tokens=100, daily_limit=Decimal("0.04")))
    await allowing(bench, tokens=100).send_message(Caller(), turn())
    request = bench.llm.requests[0]
    assert request.hosted is not None
    assert (request.hosted.most_calls, request.max_output_tokens) == (3, 100)
    poor = Bench(policy=replace(POLICY, daily_limit=Decimal("0.01")))
    with pytest.raises(BudgetExceededError):
        await allowing(poor).send_message(Caller(), turn())
    await poor.check_books()


async def test_no_reply_within_its_bound_costs_more_than_was_held() -> None:
    for limit in ("0.03", "0.05", "0.2", "5"):
        bench = Bench(policy=replace(POLICY, max_output_tokens=200, daily_limit=Decimal(limit)))
        await allowing(bench, tokens=300).send_message(Caller(), turn("x" * 400))
        request = bench.llm.requests[0]
        assert request.hosted is not None
        assert request.hosted.most_calls is not None
        calls, longest = request.hosted.most_calls, request.max_output_tokens
        sent = len("x" * 400 + (request.instructions or ""))
        read = sum(sent + 300 * n + longest * (n > 0) for n in range(calls + 1))
        worst = Usage(input_tokens=read, output_tokens=longest, tool_calls={"web_search": calls})
        assert replace(GPT, calls={"web_search": PRICE}).cost(worst) <= Decimal(limit)


async def test_a_reply_that_breaks_off_costs_the_calls_that_were_seen(bench: Bench) -> None:
    gone, plain = ProviderError("The connection broke."), Bench()
    plain.llm.script(searched(0, deltas=("Tea ", "is"), error=gone, after=1))
    with pytest.raises(ProviderError):
        await allowing(plain).send_message(Caller(), turn())
    (once,) = await plain.entries()
    bench.llm.script(searched(2, unfinished=1, deltas=("Tea ", "is"), error=gone, after=1))
    with pytest.raises(ProviderError):
        await allowing(bench).send_message(Caller(), turn())
    (entry,) = await bench.entries()
    assert (entry.estimated, entry.usage.tool_calls) == (True, {"web_search": 2})
    estimate = replace(entry.usage, tool_calls={})
    assert entry.usage.input_tokens == 3 * once.usage.input_tokens
    assert entry.cost == GPT.cost(estimate) + 2 * PRICE
    _, said = await bench.said(entry)
    assert [type(part) for part in said.content] == [HostedItem, HostedItem, OutputText]
    await bench.check_books()


async def test_the_providers_late_word_counts_the_calls_again(bench: Bench) -> None:
    gone = ProviderError("The connection broke.")
    bench.llm.script(searched(3, unfinished=3, error=gone, after=0, unheard="completed"))
    textllm = allowing(bench)
    with pytest.raises(ProviderError):
        await textllm.send_message(Caller(), turn())
    await bench.running.drain(10)
    (entry,) = await bench.entries()
    assert (entry.estimated, entry.cost, entry.usage.tool_calls) == (False, TOKENS + 3 * PRICE, {"web_search": 3})
    await bench.check_books()


async def test_a_failure_is_free_but_for_the_calls_that_were_made(bench: Bench) -> None:
    bench.llm.script(searched(1, text="", status="failed", usage_stated=False))
    with pytest.raises(ProviderError):
        await allowing(bench).send_message(Caller(), turn())
    (entry,) = await bench.entries()
    assert (entry.status, entry.cost, entry.usage.total_tokens) == ("failed", PRICE, 0)
    await bench.check_books()


async def test_recovery_charges_the_calls_that_the_journal_has(bench: Bench) -> None:
    bench.llm.script(searched(2, unfinished=1, gate=asyncio.Event(), deltas=("Tea ", "is")))
    textllm = allowing(bench)
    events = textllm.send_message.stream(Caller(), turn())
    heard = [await anext(events) for _ in range(5)]
    assert len([event for event in heard if isinstance(event, ToolStep)]) == 3
    await textllm.send_message.exchange.writer.write()
    dead = Bench(store=bench.store, clock=bench.clock, transcript=bench.transcript)
    bench.clock.advance(timedelta(minutes=1))
    assert await dead.reconcile() == 1
    (entry,) = bench.store.entries.values()
    assert (entry.usage.tool_calls, entry.estimated) == ({"web_search": 2}, True)
    assert entry.cost > 2 * PRICE
    await events.aclose()


async def test_a_fallback_that_does_not_allow_the_tools_is_not_asked(bench: Bench) -> None:
    other = ScriptedLLM()
    terms = {"web_search": HostedTerms(price=PRICE, tokens=500)}
    ways = [Route(model="gpt-4o", llm=bench.llm, hosted=terms), Route(model="far/small", llm=other, provider="far")]
    pricing = Pricing({}, FixedPrices({"gpt-4o": GPT, "far/small": GPT}))
    routes = Routes(named={"fast": ways}, providers={}, otherwise=None)
    textllm = bench.over(transcript=None, routes=routes, pricing=pricing)
    bench.llm.script(ScriptedReply(error=ProviderUnavailableError("down", may_have_run=False)))
    with pytest.raises(ProviderUnavailableError):
        await textllm.send_message(Caller(), turn(model="fast"))
    assert other.requests == []
    bench.llm.script(ScriptedReply(error=ProviderUnavailableError("down", may_have_run=False)))
    await textllm.send_message(Caller(), turn(model="fast", hosted=None))
    assert len(other.requests) == 1


async def test_the_next_turn_does_not_hold_what_was_read_again_after_each_call_once_more(bench: Bench) -> None:
    textllm = allowing(bench, tokens=500)
    for calls in (0, 3):
        bench.llm.script(searched(calls, usage=Usage(input_tokens=50_000, output_tokens=100)))
        reply = await textllm.send_message(Caller(), turn())
        (kept,) = [it for key, it in bench.store.conversations.items() if key[2] == reply.conversation_id]
        assert (kept.context_tokens == 50_100) == (calls == 0)
        assert kept.context_tokens >= (100 + 3 * 500 if calls else 50_100)


async def test_a_tool_may_be_silent_for_as_long_as_a_reply_may() -> None:
    policy = replace(POLICY, first_token_timeout_s=0.05, silence_timeout_s=5.0)
    bench = Bench(policy=policy)
    bench.llm.script(searched(1, pause_s=0.2))
    reply = await allowing(bench).send_message(Caller(), turn())
    assert reply.text == "Tea is ready."
