"""A repeat of a turn is told what the first one came to, and the model is asked once."""

import asyncio
from contextlib import aclosing
from datetime import timedelta

import pytest
from msgspec.structs import replace
from tests.unit.conftest import POLICY, Bench

from textllm_adapters.memory.llm import ScriptedReply
from textllm_core import Caller, Reply, ReplyEvent, ReplyFailed, ReplyStarted, TextTurn
from textllm_core.errors import (
    ContextTooLongError,
    IdempotencyInProgressError,
    IdempotencyMismatchError,
    ProviderError,
    ProviderUnavailableError,
    TextLLMError,
)
from textllm_core.records.messages import Idempotency
from textllm_core.wire import to_json

KEY = Idempotency("key-1", "POST /chat", "digest")
TURN = TextTurn("hi", user_id="ada", idempotency=KEY)


async def events_of(bench: Bench, turn: TextTurn = TURN) -> list[ReplyEvent]:
    return [event async for event in bench.send_message.stream(Caller(), turn)]


def text_of(events: list[ReplyEvent]) -> str:
    return "".join(getattr(event, "text", "") for event in events)


async def test_a_repeat_gets_the_same_reply_to_the_byte(bench: Bench) -> None:
    warning = Bench(policy=replace(POLICY, warn_at=POLICY.daily_limit * 0), store=bench.store)
    warning.llm.script(ScriptedReply(usage_stated=False))
    first: Reply = await warning.send_message(Caller(), TURN)
    again: Reply = await warning.send_message(Caller(), TURN)
    assert to_json(again) == to_json(first)
    assert first.warnings
    assert first.estimated
    assert len(warning.llm.requests) == 1
    await warning.check_books()


async def test_a_stream_is_replayed_with_the_same_ids_text_and_end(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(deltas=("a", "\ud83d", "\ude00")))
    first, again = await events_of(bench), await events_of(bench)
    assert isinstance(again[0], ReplyStarted)
    assert again[0].is_replayed
    assert replace(again[0], is_replayed=False, allowance=None) == replace(first[0], allowance=None)
    assert (text_of(again), to_json(again[-1])) == ("a\N{GRINNING FACE}", to_json(first[-1]))


@pytest.mark.parametrize("after", [None, 0, 1])
async def test_a_failure_is_replayed_as_a_failure(bench: Bench, after: int | None) -> None:
    bench.llm.script(
        ScriptedReply(deltas=("a", "b"), error=ProviderUnavailableError("500"), after=after, unheard="failed")
    )
    told: list[TextLLMError] = []
    for _ in range(2):
        try:
            last = (await events_of(bench))[-1]
            assert isinstance(last, ReplyFailed)
            told.append(last.error)
        except TextLLMError as error:
            told.append(error)
    assert [(type(error), str(error)) for error in told] == [(ProviderUnavailableError, "500")] * 2
    assert [error.is_replayed for error in told] == [False, True]
    assert len(bench.llm.requests) == 1


async def test_a_failure_is_replayed_in_the_same_words(bench: Bench) -> None:
    error = ContextTooLongError.of_turn(tokens=9000, limit=4096)
    bench.llm.script(ScriptedReply(deltas=("a",), error=error, after=1, unheard="failed"))
    ends = [(await events_of(bench))[-1] for _ in range(2)]
    assert [str(end.error) for end in ends if isinstance(end, ReplyFailed)] == [str(error)] * 2


async def test_what_did_not_run_may_be_sent_again_with_the_same_key(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(error=ProviderError("wrong key", may_have_run=False)))
    with pytest.raises(ProviderError):
        await bench.send_message(Caller(), TURN)
    assert (await bench.send_message(Caller(), TURN)).text == "[0] You said: hi"


async def test_a_repeat_of_a_running_turn_is_refused_and_does_not_count_in_the_rate_limit() -> None:
    bench, gate = Bench(policy=replace(POLICY, rate_per_minute=2)), asyncio.Event()
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=gate))
    async with aclosing(bench.send_message.stream(Caller(), TURN)) as events:
        await anext(events)
        for _ in range(3):
            with pytest.raises(IdempotencyInProgressError):
                await bench.send_message(Caller(), TURN)
        gate.set()
    await bench.running.drain(10)
    assert (await bench.send_message(Caller(), TURN)).text == "ab"
    assert len(bench.llm.requests) == 1
    await bench.check_books()


async def test_the_key_of_another_request_is_refused(bench: Bench) -> None:
    await bench.send_message(Caller(), TURN)
    other = TextTurn("other", user_id="ada", idempotency=Idempotency(KEY.key, KEY.scope, "another digest"))
    with pytest.raises(IdempotencyMismatchError):
        await bench.send_message(Caller(), other)


async def test_a_key_counts_for_a_day_and_no_longer(bench: Bench) -> None:
    first: Reply = await bench.send_message(Caller(), TURN)
    bench.clock.advance(timedelta(hours=24))
    await bench.forget_replies()
    assert await bench.send_message(Caller(), TURN) == first
    bench.clock.advance(timedelta(seconds=1))
    await bench.forget_replies()
    assert (await bench.send_message(Caller(), TURN)).response_id != first.response_id
    await bench.check_books()
