"""A repeat of a turn is told what the first one came to, and the model is asked once."""

import asyncio
from contextlib import aclosing, nullcontext, suppress
from datetime import timedelta

import msgspec
import pytest
from msgspec import UNSET
from msgspec.structs import replace
from tests.unit.conftest import NOON, POLICY, Bench

from textllm_adapters.memory.llm import ScriptedReply
from textllm_core import Caller, Reply, ReplyCompleted, ReplyEvent, ReplyFailed, ReplyStarted, TextTurn
from textllm_core.errors import (
    ContextTooLongError,
    IdempotencyInProgressError,
    IdempotencyMismatchError,
    ProviderError,
    ProviderUnavailableError,
    RateLimitedError,
    TextLLMError,
)
from textllm_core.records.ledger import Hold
from textllm_core.records.messages import FinishReason, Idempotency, ReplyUsage
from textllm_core.records.model import EndStatus, ModelEnded
from textllm_core.records.tools import ToolCall
from textllm_core.usage import Usage
from textllm_core.wire import to_json

KEY = Idempotency("key-1", "POST /chat", "digest")
USAGE = Usage(input_tokens=1000, cached_tokens=200, output_tokens=100)
FILTERED = ModelEnded(status="incomplete", usage=USAGE, text="Once", content_filtered=True)
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


async def test_what_an_earlier_version_remembers_is_told_with_the_moment_of_its_entry(bench: Bench) -> None:
    await bench.send_message(Caller(), TURN)
    [(key, kept)] = bench.store.repeats.items()
    assert kept.replay is not None
    remembered = msgspec.json.decode(kept.replay.remembered)
    assert remembered.pop("at")
    bench.store.repeats[key] = replace(kept, replay=replace(kept.replay, remembered=msgspec.json.encode(remembered)))
    (entry,) = await bench.entries()
    bench.clock.advance(timedelta(hours=3))
    end = (await events_of(bench))[-1]
    assert isinstance(end, ReplyCompleted)
    assert end.at == entry.settled_at == NOON


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


@pytest.mark.parametrize("has_failed", [False, True])
async def test_a_repeat_of_a_settled_turn_uses_up_nothing_of_the_rate_limit(has_failed: bool) -> None:
    bench = Bench(policy=replace(POLICY, rate_per_minute=2))
    if has_failed:
        bench.llm.script(ScriptedReply(error=ProviderUnavailableError("500"), unheard="failed"))
    with suppress(ProviderUnavailableError):
        await bench.send_message(Caller(), TURN)
    for _ in range(3):
        with pytest.raises(ProviderUnavailableError) if has_failed else nullcontext():
            await bench.send_message(Caller(), TURN)
    await bench.say("another")
    with pytest.raises(RateLimitedError):  # a flood of repeats has the bound that all else has
        await bench.send_message(Caller(), TURN)


async def test_the_key_of_another_request_is_refused(bench: Bench) -> None:
    await bench.send_message(Caller(), TURN)
    other = TextTurn("other", user_id="ada", idempotency=Idempotency(KEY.key, KEY.scope, "another digest"))
    with pytest.raises(IdempotencyMismatchError):
        await bench.send_message(Caller(), other)


async def test_a_key_counts_for_a_day_and_no_longer(bench: Bench) -> None:
    first: Reply = await bench.send_message(Caller(), TURN)
    bench.clock.advance(timedelta(hours=24))
    await bench.remove_expired()
    assert await bench.send_message(Caller(), TURN) == first
    bench.clock.advance(timedelta(seconds=1))
    await bench.remove_expired()
    assert (await bench.send_message(Caller(), TURN)).response_id != first.response_id
    await bench.check_books()


async def left_behind(bench: Bench) -> Hold:
    """An exchange whose process died after the first piece of its reply."""
    bench.llm.script(ScriptedReply(deltas=("Once", " upon"), gate=asyncio.Event()))
    await anext(bench.send_message.stream(Caller(), TURN))
    (hold,) = (kept.hold for kept in bench.store.holds.values())
    return hold


@pytest.mark.parametrize(
    ("status", "finish_reason"), [("completed", "stop"), ("completed", "refusal"), ("incomplete", "length")]
)
@pytest.mark.parametrize("is_late", [False, True])
async def test_a_repeat_gets_the_reply_that_the_provider_told_after_a_crash(
    bench: Bench, is_late: bool, status: EndStatus, finish_reason: FinishReason
) -> None:
    hold = await left_behind(bench)
    survivor = Bench(store=bench.store, clock=bench.clock)
    survivor.clock.advance(timedelta(minutes=1))
    if is_late:  # until then the books have an estimate
        assert await survivor.reconcile() == 1
        with pytest.raises(ProviderError, match="interrupted") as refusal:
            await survivor.send_message(Caller(), TURN)
        assert refusal.value.is_replayed
        survivor.clock.advance(timedelta(minutes=1))
    word = ModelEnded(status=status, text="Once upon a time", usage=USAGE, finish_reason=finish_reason)
    survivor.llm.ended[hold.provider_response_id or ""] = word
    assert await survivor.reconcile() == 1
    started, *_, ended = await events_of(survivor)
    (entry,) = await survivor.entries()
    assert isinstance(started, ReplyStarted)
    assert started.is_replayed
    assert started.response_id == entry.response_id
    assert isinstance(ended, ReplyCompleted)
    reply = ended.reply
    assert (reply.text, reply.finish_reason, reply.usage) == ("Once upon a time", finish_reason, ReplyUsage.of(USAGE))
    assert (reply.cost, reply.estimated, reply.message_number) == (entry.cost, False, 1)
    assert (reply.response_id, reply.conversation_id) == (entry.response_id, entry.conversation_id)
    assert (reply.user_id, reply.session_id, reply.model) == ("ada", entry.session_id, "gpt-4o")
    assert survivor.llm.requests == []


@pytest.mark.parametrize("word", [ModelEnded(status="failed", usage=USAGE, text="Once"), FILTERED])
async def test_a_repeat_of_a_reply_that_the_provider_gave_up_is_told_of_the_interruption(
    bench: Bench, word: ModelEnded
) -> None:
    hold = await left_behind(bench)
    survivor = Bench(store=bench.store, clock=bench.clock)
    survivor.clock.advance(timedelta(minutes=1))
    survivor.llm.ended[hold.provider_response_id or ""] = word
    assert await survivor.reconcile() == 1
    with pytest.raises(ProviderError, match="interrupted"):
        await survivor.send_message(Caller(), TURN)


@pytest.mark.parametrize("text", ["Let me see.", ""])
async def test_calls_that_are_told_too_late_are_told_to_no_repeat_either(bench: Bench, text: str) -> None:
    bench.llm.script(ScriptedReply(deltas=("Let",), error=ProviderError("cut"), after=0 if text == "" else 1))
    assert isinstance((await events_of(bench))[-1], ReplyFailed)
    (hold,) = (kept.hold for kept in bench.store.estimates.values())
    call = ToolCall(call_id="call_1", name="weather", arguments="{}")
    bench.llm.ended[hold.provider_response_id or ""] = ModelEnded(
        status="completed", text=text, usage=USAGE, tool_calls=(call,), finish_reason="tool_calls"
    )
    bench.clock.advance(timedelta(minutes=1))
    assert await bench.reconcile() == 1
    end = (await events_of(bench))[-1]
    if text:
        assert isinstance(end, ReplyCompleted)
        assert (end.reply.text, end.reply.finish_reason, end.reply.tool_calls) == (text, "stop", UNSET)
    else:
        assert isinstance(end, ReplyFailed)
    await bench.check_books()


async def test_a_repeat_of_a_reply_that_broke_off_gets_what_the_provider_tells_of_it_later(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(deltas=("Once", " upon"), error=ProviderError("cut"), after=1))
    for _ in range(2):
        assert isinstance((await events_of(bench))[-1], ReplyFailed)
    (hold,) = (kept.hold for kept in bench.store.estimates.values())
    word = ModelEnded(status="completed", text="Once upon a time", usage=USAGE)
    bench.llm.ended[hold.provider_response_id or ""] = word
    bench.clock.advance(timedelta(minutes=1))
    assert await bench.reconcile() == 1
    end = (await events_of(bench))[-1]
    (entry,) = await bench.entries()
    assert isinstance(end, ReplyCompleted)
    assert (end.reply.text, end.reply.cost, end.reply.estimated) == ("Once upon a time", entry.cost, False)
    assert len(bench.llm.requests) == 1
    await bench.check_books()


async def test_a_late_account_without_the_text_of_a_reply_is_told_to_no_repeat(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(deltas=("Once", " upon"), error=ProviderError("cut"), after=1))
    assert isinstance((await events_of(bench))[-1], ReplyFailed)
    (hold,) = (kept.hold for kept in bench.store.estimates.values())
    bench.llm.ended[hold.provider_response_id or ""] = ModelEnded(status="completed", text="", usage=USAGE)
    bench.clock.advance(timedelta(minutes=1))
    assert await bench.reconcile() == 1
    assert isinstance((await events_of(bench))[-1], ReplyFailed)
    (entry,) = await bench.entries()
    assert (entry.usage, entry.estimated) == (USAGE, False)
    await bench.check_books()
