"""What was begun is ended once, also by a process that is cancelled, defective, reconfigured or dead."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace as replace_field
from datetime import timedelta
from decimal import Decimal

import pytest
from msgspec.structs import replace
from tests.image_files import png
from tests.unit.conftest import GPT, NOON, POLICY, Bench

from textllm_adapters.memory.ledger import MemoryLedger
from textllm_adapters.memory.llm import ScriptedReply
from textllm_adapters.memory.prices import FixedPrices
from textllm_core import Caller, TextTurn, Usage
from textllm_core.chat.chat_with_image import ImageTurn
from textllm_core.chat.leases import Leases
from textllm_core.chat.running import RENEW_EVERY_S
from textllm_core.chat.settlement import recovered
from textllm_core.chat.wind_down import WindDown
from textllm_core.errors import (
    ConversationLostError,
    ProviderError,
    ProviderReport,
    ServiceUnavailableError,
    TextLLMError,
)
from textllm_core.pricing import Pricing
from textllm_core.records.journal import JournalEntry
from textllm_core.records.ledger import Hold, Settled, Settlement
from textllm_core.records.messages import ReplyFailed, ReplyStarted, TurnOptions
from textllm_core.records.model import ModelEnded
from textllm_core.records.parts import InputText
from textllm_core.records.response_turns import ResponseTurn
from textllm_core.records.stored_responses import StoredResponse
from textllm_core.uploads import Upload

USAGE = Usage(input_tokens=1000, cached_tokens=200, output_tokens=100)
ANSWERED = ProviderError("500")
ANSWERED.report = ProviderReport(status=500)
PRICE_OF_USAGE = Decimal("0.00325")


async def left_behind(bench: Bench) -> Hold:
    """An exchange whose process died after the first delta."""
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=asyncio.Event()))
    await anext(bench.send_message.stream(Caller(), TextTurn("x" * 391, user_id="ada")))
    (hold,) = (kept.hold for kept in bench.store.holds.values())
    return hold


async def test_a_transcript_of_another_api_is_neither_sent_along_nor_trusted_again(bench: Bench) -> None:
    first = await bench.say("one")
    stateless = Bench(store=bench.store, transcript=None)
    await stateless.say("two", first.conversation_id)
    assert stateless.llm.requests[0].transcript_id is None
    back = Bench(store=bench.store, transcript=bench.transcript)
    assert (await back.say("three", first.conversation_id)).text == "[4] You said: three"
    await back.check_books()


async def test_a_conversation_that_only_the_provider_keeps_is_never_answered_without_its_past() -> None:
    bench = Bench(policy=replace(POLICY, keep_messages=False))
    first = await bench.say("one")
    stateless = Bench(store=bench.store, transcript=None)
    for asking in (
        stateless.say("two", first.conversation_id),
        stateless.textllm.conversations.messages(Caller(), first.conversation_id),
        stateless.summarize(Caller(), first.conversation_id),
    ):
        with pytest.raises(ConversationLostError, match="put llm_api: conversations back"):
            await asking
    assert stateless.llm.requests == []
    keeping = Bench(store=bench.store, transcript=bench.transcript)
    keeping.llm.script(ScriptedReply(text="Once", status="incomplete", finish_reason="length"))
    await keeping.say("two", first.conversation_id)
    assert (await keeping.say("three", first.conversation_id)).text == "[4] You said: three"
    await keeping.check_books()


async def test_recovery_leaves_a_conversation_usable_that_only_the_provider_keeps() -> None:
    bench = Bench(policy=replace(POLICY, keep_messages=False))
    first = await bench.say("one")
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=asyncio.Event()))
    await anext(bench.send_message.stream(Caller(), TextTurn("two", first.conversation_id)))
    survivor = Bench(store=bench.store, transcript=bench.transcript, policy=bench.policy)
    survivor.clock.advance(timedelta(minutes=11))
    assert await survivor.reconcile() == 1
    assert (await survivor.say("three", first.conversation_id)).text == "[2] You said: three"


async def test_what_nobody_can_account_for_costs_at_least_what_was_sent(bench: Bench) -> None:
    await left_behind(bench)
    survivor = Bench(store=bench.store)
    survivor.clock.advance(timedelta(minutes=11))
    assert await survivor.reconcile() == 1
    (entry,) = await survivor.entries()
    assert (entry.estimated, entry.usage, entry.cost) == (True, Usage(input_tokens=100), GPT.cost(entry.usage))


async def test_what_was_thought_before_a_crash_is_part_of_its_estimate(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(thoughts=(300, 100), deltas=("abcd", "b"), gate=asyncio.Event()))
    async with aclosing(bench.send_message.stream(Caller(), TextTurn("x" * 391, user_id="ada"))) as events:
        for _ in range(2):
            await anext(events)
        await Leases(bench.ledger, bench.running, bench.clock).renew()
        survivor = Bench(store=bench.store)
        survivor.clock.advance(timedelta(minutes=11))
        assert await survivor.reconcile() == 1
    (entry,) = await survivor.entries()
    assert (entry.estimated, entry.usage.reasoning_tokens) == (True, 100)
    assert entry.usage.output_tokens >= 100


@pytest.mark.parametrize("noted_by", [Leases.note_usage, Leases.renew])
async def test_what_the_provider_had_stated_of_the_usage_before_a_crash_is_charged(
    bench: Bench, noted_by: Callable[[Leases], Awaitable[None]]
) -> None:
    stated = Usage(input_tokens=5000, output_tokens=700, cached_tokens=4000, reasoning_tokens=650)
    bench.llm.script(ScriptedReply(counted=stated, deltas=("abcd", "b"), gate=asyncio.Event()))
    async with aclosing(bench.send_message.stream(Caller(), TextTurn("Hi", user_id="ada"))) as events:
        for _ in range(2):
            await anext(events)
        await noted_by(Leases(bench.ledger, bench.running, bench.clock))
        survivor = Bench(store=bench.store)
        survivor.clock.advance(timedelta(minutes=11))
        assert await survivor.reconcile() == 1
    (entry,) = await survivor.entries()
    assert (entry.estimated, entry.usage, entry.cost) == (True, stated, GPT.cost(stated))


async def test_what_is_stated_of_the_usage_is_written_down_without_waiting_for_the_leases(bench: Bench) -> None:
    stated = Usage(input_tokens=5000, output_tokens=700)
    bench.llm.script(ScriptedReply(counted=stated, deltas=("abcd", "b"), gate=asyncio.Event()))
    async with aclosing(bench.send_message.stream(Caller(), TextTurn("Hi", user_id="ada"))) as events:
        await anext(events)
        async with asyncio.timeout(RENEW_EVERY_S - 1):
            while [kept.hold.counted for kept in bench.store.holds.values()] != [stated]:  # noqa: ASYNC110 - by a round
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("keeps", [True, False])
async def test_the_image_of_a_turn_whose_process_died_is_the_last_one_of_its_conversation(keeps: bool) -> None:
    bench = Bench(policy=replace(POLICY, keep_messages=keeps))
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=asyncio.Event()))
    turn = ImageTurn(
        "What is it?", [Upload.of_bytes("one.png", png(8, 8)), Upload.of_bytes("two.png", png(9, 9))], user_id="ada"
    )
    await anext(bench.chat_with_image.stream(Caller(), turn))
    survivor = Bench(store=bench.store)
    survivor.clock.advance(timedelta(minutes=1))
    assert await survivor.reconcile() == 1
    (entry,) = await survivor.ledger.entries("default", "ada")
    (conversation,) = (kept.conversation for kept in survivor.store.conversations.values())
    assert conversation.last_image_url == [key[2] for key in survivor.store.files][1]
    said = await survivor.said(entry)
    assert [part.key for message in said for part in message.stored_parts][1:] == [conversation.last_image_url] * keeps


async def test_a_price_that_is_gone_does_not_keep_recovery_from_its_work(bench: Bench) -> None:
    hold = await left_behind(bench)
    survivor = Bench(store=bench.store)
    survivor.clock.advance(timedelta(minutes=1))
    survivor.llm.ended[hold.provider_response_id or ""] = ModelEnded(status="completed", usage=USAGE)
    assert await replace_field(survivor.reconcile, pricing=Pricing({}, FixedPrices({})))() == 1
    assert [entry.cost for entry in await survivor.entries()] == [PRICE_OF_USAGE]


async def test_a_clock_that_jumps_ahead_takes_nothing_from_a_reply_that_still_runs_here(bench: Bench) -> None:
    gate = asyncio.Event()
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=gate, usage=USAGE))
    asked = ResponseTurn(content=(InputText("hi"),), user_id="ada", is_background=True)
    begun = await bench.textllm.responses.create.begin(Caller(), asked)
    while not bench.store.entries:  # noqa: ASYNC110 - the model is asked by a task of the engine
        await asyncio.sleep(0.001)
    bench.clock.advance(timedelta(hours=5))
    assert await bench.reconcile() == 0
    gate.set()
    (entry,) = await bench.entries()
    assert (entry.status, entry.cost, entry.estimated) == ("completed", PRICE_OF_USAGE, False)
    assert [message.text for message in await bench.said(entry)] == ["hi", "ab"]
    assert (await bench.textllm.responses.get(Caller(), begun.response_id)).status == "completed"
    await bench.check_books()


async def test_a_response_whose_process_died_has_failed(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=asyncio.Event()))
    asked = ResponseTurn(content=(InputText("hi"),), user_id="ada", is_background=True)
    begun = await bench.textllm.responses.create.begin(Caller(), asked)
    while not bench.store.entries:  # noqa: ASYNC110 - the model is asked by a task of the engine
        await asyncio.sleep(0.001)
    survivor = Bench(store=bench.store)
    survivor.clock.advance(timedelta(minutes=1))
    assert await survivor.reconcile() == 1
    responses = survivor.textllm.responses
    assert (await responses.get(Caller(), begun.response_id)).status == "failed"
    await responses.delete(Caller(), begun.response_id)


async def test_a_response_whose_process_died_before_the_model_was_asked_has_failed(bench: Bench) -> None:
    hold = await left_behind(bench)
    key = hold.tenant_id, hold.user_id, hold.response_id
    bench.store.entries.clear()
    kept = bench.store.holds[key]
    bench.store.holds[key] = replace(kept, hold=replace(kept.hold, is_asked=False), made_conversation=False)
    asked = StoredResponse(
        tenant_id=hold.tenant_id,
        user_id=hold.user_id,
        id=hold.response_id,
        conversation_id=hold.conversation_id,
        message_ids=(),
        asked="{}",
        created_at=NOON,
        is_background=True,
    )
    bench.store.responses[key] = asked
    survivor = Bench(store=bench.store)
    survivor.clock.advance(timedelta(minutes=1))
    assert await survivor.reconcile() == 1
    failure = bench.store.responses[key].failure
    assert failure is not None
    assert failure.code == "service_unavailable"


async def test_a_stream_whose_process_died_before_the_model_was_asked_ends_with_that(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=asyncio.Event()))
    events = bench.send_message.stream(Caller(), TextTurn("hi", user_id="ada", is_resumable=True))
    started = await anext(events)
    assert isinstance(started, ReplyStarted)
    ((key, kept),) = bench.store.holds.items()
    bench.store.entries.clear()
    bench.store.holds[key] = replace(kept, hold=replace(kept.hold, is_asked=False))  # as one that was begun early
    survivor = Bench(store=bench.store)
    resumed = await survivor.resume_reply(Caller(), started.response_id)
    survivor.clock.advance(timedelta(minutes=1))
    assert await survivor.reconcile() == 1
    (_, end) = [numbered async for numbered in resumed.events][-1]
    assert isinstance(end, ReplyFailed)
    assert isinstance(end.error, ServiceUnavailableError)
    assert "before the model was asked" in str(end.error)


@pytest.mark.parametrize("begins", [True, False])
async def test_a_response_whose_process_died_is_there_if_its_caller_may_know_of_it(bench: Bench, begins: bool) -> None:
    bench.llm.script(
        ScriptedReply(text="Well."),
        ScriptedReply(deltas=("a", "b"), begins=None if begins else asyncio.Event(), gate=asyncio.Event()),
    )
    create = bench.textllm.responses.create
    first = await create.answer(Caller(), ResponseTurn(content=(InputText("hi"),), user_id="ada"))
    known = first.started.response_id
    asked = ResponseTurn(content=(InputText("on"),), previous_response_id=known, is_resumable=True)
    asking = asyncio.ensure_future(create.stream(Caller(), asked))
    while len(bench.llm.requests) < 2:  # noqa: ASYNC110 - the model is asked by a task of the engine
        await asyncio.sleep(0.001)
    if begins:
        await asking
    survivor = Bench(store=bench.store)
    survivor.clock.advance(timedelta(minutes=1))
    assert await survivor.reconcile() == 1
    assert len(bench.store.responses) == 1 + begins
    asking.cancel()


async def test_a_turn_whose_process_died_keeps_its_metadata(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=asyncio.Event()))
    turn = TextTurn("hi", user_id="ada", options=TurnOptions(metadata={"order": "17"}))
    await anext(bench.send_message.stream(Caller(), turn))
    (hold,) = await bench.ledger.abandoned(at=NOON + timedelta(minutes=9), lease_until=NOON, limit=1)
    end = recovered(hold, None, "a", None, (), pricing=bench.reconcile.pricing, at=NOON)
    assert end.metadata == {"order": "17"}


class SlowLedger(MemoryLedger):
    """A settlement that takes its time."""

    async def settle(self, hold: Hold, settlement: Settlement, *, said: JournalEntry | None = None) -> Settled | None:
        await asyncio.sleep(0.05)
        return await super().settle(hold, settlement, said=said)


async def test_a_shutdown_does_not_throw_a_finished_reply_away() -> None:
    bench = Bench(ledger_type=SlowLedger)
    bench.llm.script(ScriptedReply(text="Paris.", usage=USAGE))
    async with aclosing(bench.send_message.stream(Caller(), TextTurn("hi", user_id="ada"))) as events:
        await anext(events)
        await anext(events)
        await asyncio.sleep(0.01)
        await bench.running.drain(0)
    (entry,) = await bench.entries()
    assert (entry.status, entry.cost) == ("completed", PRICE_OF_USAGE)
    kept = await bench.conversations.last_messages("default", "ada", entry.conversation_id, limit=None)
    assert [message.text for message in kept] == ["hi", "Paris."]
    await bench.check_books()


async def test_a_defect_is_settled_like_any_failure(bench: Bench) -> None:
    defect = ScriptedReply(deltas=("a",), usage=USAGE, error=RuntimeError("a defect"), after=1, unheard="completed")  # type: ignore[arg-type]
    bench.llm.script(defect)
    events = bench.send_message.stream(Caller(), TextTurn("hi", user_id="ada"))
    with pytest.raises(TextLLMError):
        _ = [event async for event in events if _raise_failure(event)]
    (entry,) = await bench.entries()
    assert (entry.status, entry.cost) == ("completed", PRICE_OF_USAGE)
    await bench.check_books()


def _raise_failure(event: object) -> bool:
    if (error := getattr(event, "error", None)) is not None:
        raise error
    return True


async def test_only_so_many_replies_are_read_on_without_a_reader() -> None:
    bench = Bench(max_detached=2)
    gate = asyncio.Event()
    for number in range(4):
        bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=gate, usage=USAGE, unheard="cancelled"))
        async with aclosing(bench.send_message.stream(Caller(), TextTurn(f"{number}", user_id="ada"))) as events:
            await anext(events)
            await anext(events)
    gate.set()
    statuses = sorted(entry.status for entry in await bench.entries())
    assert statuses == ["cancelled", "cancelled", "completed", "completed"]
    await bench.check_books()


async def test_no_more_turns_run_than_may_and_the_next_one_holds_no_money() -> None:
    bench = Bench(max_running=1)
    send_message = bench.send_message
    gate = asyncio.Event()
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=gate, usage=USAGE))
    async with aclosing(send_message.stream(Caller(), TextTurn("one", user_id="ada"))) as events:
        await anext(events)
        with pytest.raises(ServiceUnavailableError, match="as many turns"):
            await send_message(Caller(), TextTurn("two", user_id="bob"))
        assert len(bench.store.holds) == 1
        gate.set()
        assert [event async for event in events]
    await bench.running.drain(10)
    await send_message(Caller(), TextTurn("two", user_id="bob"))
    await bench.check_books()


async def test_winding_down_refuses_what_is_new_and_may_be_hurried() -> None:
    bench = Bench()
    send_message, running = bench.send_message, bench.running
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=asyncio.Event(), usage=USAGE, unheard="cancelled"))
    async with asyncio.timeout(10), aclosing(send_message.stream(Caller(), TextTurn("hi", user_id="ada"))) as events:
        await anext(events)
        patient = asyncio.create_task(WindDown(running)(grace_s=3600))
        await asyncio.sleep(0)
        with pytest.raises(ServiceUnavailableError, match="shutting down"):
            await send_message(Caller(), TextTurn("two", user_id="bob"))
        await WindDown(running)(grace_s=0)
        await patient
        assert isinstance([event async for event in events][-1], ReplyFailed)
    assert [entry.status for entry in await bench.entries()] == ["cancelled"]
    await bench.check_books()


async def test_nobody_reads_a_lonely_reply_for_ever() -> None:
    bench = Bench(drain_s=0.01)
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=asyncio.Event(), usage=USAGE, unheard="cancelled"))
    async with aclosing(bench.send_message.stream(Caller(), TextTurn("hi", user_id="ada"))) as events:
        await anext(events)
    assert [entry.status for entry in await bench.entries()] == ["cancelled"]
    await bench.check_books()


@pytest.mark.parametrize("error", [ProviderError("429", may_have_run=False), ANSWERED])
async def test_a_conversation_can_be_used_the_moment_its_failure_is_told(bench: Bench, error: ProviderError) -> None:
    first = await bench.say("one")
    bench.llm.script(ScriptedReply(error=error))
    with pytest.raises(ProviderError):
        await bench.say("two", first.conversation_id)
    assert (await bench.say("three", first.conversation_id)).message_number == 2


async def test_a_conversation_does_not_wait_for_what_the_provider_may_say_of_a_reply_that_broke_off() -> None:
    bench = Bench(policy=replace(POLICY, outcome_pauses_s=(0.0, 3600.0)))
    bench.llm.script(ScriptedReply(deltas=("a", "b"), error=ProviderError("cut"), after=1))
    async with asyncio.timeout(10):
        with pytest.raises(ProviderError):
            await bench.say("one")
        (entry,) = await bench.entries()
        assert (await bench.say("two", entry.conversation_id)).message_number == 2
    (response_id,) = (kept.hold.provider_response_id for kept in bench.store.estimates.values())
    bench.llm.ended[response_id or ""] = ModelEnded(status="completed", usage=USAGE, text="abc")
    bench.clock.advance(timedelta(seconds=1))
    assert await bench.reconcile() == 1
    assert [message.text for message in await bench.said(entry)][:2] == ["one", "abc"]
    await bench.check_books()
