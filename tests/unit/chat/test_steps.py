"""The steps of an exchange, as whoever traces it follows them."""

import asyncio
from contextlib import aclosing

import pytest
from tests.unit.conftest import Bench

from textllm_adapters.memory.llm import ScriptedReply
from textllm_adapters.memory.tracer import Span
from textllm_core import Caller, TextTurn
from textllm_core.errors import ConversationLostError, ConversationNotFoundError, ModelError, ProviderUnavailableError
from textllm_core.steps import Admitting, Asking, Serving, Settling

REQUEST = Serving("POST", ())


def spans(bench: Bench) -> list[Span]:
    return bench.tracer.spans


async def test_a_turn_is_admitted_then_asked_then_settled(bench: Bench) -> None:
    with bench.tracer.span(REQUEST):
        reply = await bench.say("Hi")
    served, *parts = spans(bench)
    assert [span.step for span in parts] == [Admitting("text"), Asking("gpt-4o"), Settling(reply.response_id)]
    assert all(span.parent is served and span.is_over and span.error is None for span in parts)


async def test_a_turn_that_is_refused_ends_with_its_admission(bench: Bench) -> None:
    with pytest.raises(ConversationNotFoundError) as refusal:
        await bench.say("Hi", "conv_none")
    assert [(span.step, span.error) for span in spans(bench)] == [(Admitting("text"), refusal.value)]


async def test_a_call_that_fails_says_so_and_its_settlement_does_not(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(error=ProviderUnavailableError("Away.")))
    with pytest.raises(ModelError) as failure:
        await bench.say("Hi")
    _, asked, settled = spans(bench)
    assert (asked.error, settled.error) == (failure.value, None)


async def test_each_call_of_the_provider_is_a_step(bench: Bench) -> None:
    reply = await bench.say("one")
    bench.llm.script(ScriptedReply(error=ConversationLostError()))
    await bench.say("two", reply.conversation_id)
    kinds = [type(span.step) for span in spans(bench)[3:]]
    assert kinds == [Admitting, Asking, Asking, Settling]


async def test_a_call_lasts_as_long_as_the_reply_also_when_nobody_reads_it(bench: Bench) -> None:
    gate = asyncio.Event()
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=gate))
    with bench.tracer.span(REQUEST):
        async with aclosing(bench.send_message.stream(Caller(), TextTurn("hi", user_id="ada"))) as events:
            await anext(events)
    served, admitted, asked = spans(bench)
    assert (served.is_over, admitted.is_over, asked.is_over) == (True, True, False)
    gate.set()
    await bench.running.drain(10)
    settled = spans(bench)[3]
    assert asked.parent is settled.parent is served
    assert asked.is_over
    assert settled.is_over


async def test_a_reply_that_is_cut_short_is_settled_all_the_same(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=asyncio.Event()))
    async with aclosing(bench.send_message.stream(Caller(), TextTurn("hi", user_id="ada"))) as events:
        await anext(events)
    await bench.running.drain(0)
    _, asked, settled = spans(bench)
    assert isinstance(asked.error, asyncio.CancelledError)
    assert (settled.is_over, settled.error) == (True, None)
