"""Every turn ends in exactly one way, whoever leaves and whatever breaks."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from datetime import timedelta
from decimal import Decimal
from itertools import count

import pytest
from msgspec.structs import replace
from tests.unit.conftest import GPT, POLICY, Bench

from textllm_adapters.memory.conversation_repository import MemoryConversationRepository
from textllm_adapters.memory.erasures import MemoryErasures
from textllm_adapters.memory.ledger import MemoryLedger
from textllm_adapters.memory.llm import ScriptedReply
from textllm_adapters.memory.store import MemoryStore
from textllm_adapters.memory.transcript import MemoryTranscript
from textllm_core import (
    Caller,
    ReplyCompleted,
    ReplyFailed,
    ReplyStarted,
    TextDelta,
    TextTurn,
    TurnOptions,
    Usage,
)
from textllm_core.errors import (
    Allowance,
    BudgetExceededError,
    Charge,
    ContentRefusedError,
    ContextTooLongError,
    ConversationBusyError,
    ConversationLostError,
    ConversationNotFoundError,
    InputTooLongError,
    InvalidRequestError,
    ModelError,
    NotFoundError,
    ProviderError,
    ProviderReport,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitedError,
    StorageUnavailableError,
    TextLLMError,
)
from textllm_core.money import ZERO
from textllm_core.ready_transcripts import ReadyTranscripts
from textllm_core.records.conversations import ConversationState
from textllm_core.records.edits import SaidMessage
from textllm_core.records.journal import JournalEntry
from textllm_core.records.ledger import Hold, Settled, Settlement
from textllm_core.records.messages import Idempotency, Message
from textllm_core.records.model import EndStatus, ModelEnded, ModelEvent, ModelRequest, ReadBlob
from textllm_core.records.parts import OutputText

USAGE = Usage(input_tokens=1000, cached_tokens=200, output_tokens=100)
PRICE_OF_USAGE = Decimal("0.00325")  # 800 * 2.5 + 200 * 1.25 + 100 * 10, for a million


async def test_a_reply_is_charged_to_the_last_decimal(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(text="Paris.", usage=USAGE))
    reply = await bench.say("What is the capital of France?")
    assert (reply.text, reply.cost, reply.message_number) == ("Paris.", PRICE_OF_USAGE, 1)
    (entry,) = await bench.entries()
    assert (entry.response_id, entry.cost, entry.usage, entry.status, entry.estimated) == (
        reply.response_id,
        PRICE_OF_USAGE,
        USAGE,
        "completed",
        False,
    )
    await bench.check_books()


async def test_a_further_turn_goes_to_the_same_transcript_alone(bench: Bench) -> None:
    first = await bench.say("one")
    second = await bench.say("two", first.conversation_id)
    assert (second.text, second.message_number) == ("[2] You said: two", 2)
    assert [len(request.messages) for request in bench.llm.requests] == [1, 1]
    assert bench.llm.requests[0].transcript_id == bench.llm.requests[1].transcript_id


async def test_without_a_transcript_the_history_goes_along_as_far_as_allowed() -> None:
    bench = Bench(transcript=None, policy=replace(POLICY, max_history_items=3))
    reply = await bench.say("one")
    for text in ("two", "three"):
        reply = await bench.say(text, reply.conversation_id)
    assert [[m.text for m in r.messages] for r in bench.llm.requests][-1] == ["two", "[2] You said: two", "three"]


@pytest.mark.parametrize("keeps_transcripts", [False, True])
async def test_a_greeting_that_begins_a_conversation_is_known_to_the_model(keeps_transcripts: bool) -> None:
    transcript = MemoryTranscript() if keeps_transcripts else None
    bench = Bench(transcript=transcript, policy=replace(POLICY, max_history_items=3))
    made = await bench.textllm.conversations.create(Caller(), "ada")
    greeting = SaidMessage(role="assistant", content=(OutputText("Hi, I am Robin."),))
    await bench.textllm.conversations.add_messages(Caller(), made.id, [greeting])
    for number in range(3):
        await bench.say(f"turn {number}", made.id)
        request = bench.llm.requests[-1]
        known = list(request.messages)
        if transcript is not None:
            assert request.transcript_id is not None
            known = list(await transcript.messages(request.transcript_id))
        is_cut = not keeps_transcripts and number == 2
        assert known[0].text == ("turn 1" if is_cut else "Hi, I am Robin.")


async def test_a_reply_of_spaces_alone_is_no_part_of_the_history() -> None:
    bench = Bench(transcript=None)
    bench.llm.script(ScriptedReply(text=" \n"))
    first = await bench.say("one")
    await bench.say("two", first.conversation_id)
    assert [message.text for message in bench.llm.requests[-1].messages] == ["one", "two"]


async def test_events_come_in_order_and_join_to_the_reply(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(deltas=("a", "\n", "b")))
    events = [event async for event in bench.send_message.stream(Caller(), TextTurn("hi"))]
    assert isinstance(events[0], ReplyStarted)
    assert [event.text for event in events[1:-1] if isinstance(event, TextDelta)] == ["a", "\n", "b"]
    assert isinstance(events[-1], ReplyCompleted)
    assert events[-1].reply.text == "a\nb"


async def test_halves_of_a_character_are_joined_and_lonely_ones_replaced(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(deltas=("\ud83d", "\ude00", "\ud83d")))
    reply = await bench.say("hi")
    assert reply.text == "\N{GRINNING FACE}\N{REPLACEMENT CHARACTER}"


async def test_text_arrives_before_the_model_has_finished(bench: Bench) -> None:
    gate = asyncio.Event()
    bench.llm.script(ScriptedReply(deltas=("early", "late"), gate=gate))
    async with aclosing(bench.send_message.stream(Caller(), TextTurn("hi"))) as events:
        assert isinstance(await anext(events), ReplyStarted)
        assert await anext(events) == TextDelta("early")
        gate.set()
        assert await anext(events) == TextDelta("late")


@pytest.mark.parametrize("how", ["break", "raise", "cancel"])
@pytest.mark.parametrize("read", [0, 1, 2, 5])
async def test_who_leaves_early_is_charged_exactly_and_the_turn_stays(bench: Bench, read: int, how: str) -> None:
    bench.llm.script(ScriptedReply(deltas=tuple("abcdefgh"), usage=USAGE, pause_s=0.001))
    left = asyncio.Event()

    async def reader() -> None:
        async with aclosing(bench.send_message.stream(Caller(), TextTurn("hi", user_id="ada"))) as events:
            for _ in range(read + 1):
                await anext(events)
            if how == "raise":
                raise RuntimeError
            left.set()
            if how == "cancel":
                await asyncio.sleep(60)

    task = asyncio.create_task(reader())
    if how == "cancel":
        await left.wait()
        task.cancel()
    with suppress(RuntimeError, asyncio.CancelledError):
        await task
    (entry,) = await bench.entries()
    assert (entry.cost, entry.status, entry.estimated) == (PRICE_OF_USAGE, "completed", False)
    await bench.check_books()
    kept = await bench.conversations.last_messages("default", "ada", entry.conversation_id, limit=None)
    assert [message.text for message in kept] == ["hi", "abcdefgh"]


async def test_a_reader_cancelled_before_the_first_event_loses_nothing(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(text="Paris.", usage=USAGE))
    reading = asyncio.create_task(bench.say("hi"))
    await asyncio.sleep(0)
    reading.cancel()
    with suppress(asyncio.CancelledError):
        await reading
    assert [entry.cost for entry in await bench.entries()] == [PRICE_OF_USAGE]
    await bench.check_books()


async def test_a_turn_that_is_too_long_is_told_from_a_conversation_that_is(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(error=ContextTooLongError()))
    with pytest.raises(ContextTooLongError, match="What was sent is too long for the model; send less"):
        await bench.say("Hello")
    reply = await bench.say("Hello")
    bench.llm.script(ScriptedReply(error=ContextTooLongError()))
    with pytest.raises(ContextTooLongError, match="The conversation is too long for the model; start a new one"):
        await bench.say("And now?", reply.conversation_id)
    bench.llm.script(ScriptedReply(error=ContextTooLongError.of_turn(tokens=9000, limit=4096)))
    with pytest.raises(ContextTooLongError, match="it makes 9000 tokens, and 4096 are allowed"):
        await bench.say("And now?", reply.conversation_id)


@pytest.mark.parametrize(
    "refusal",
    [
        ProviderError("wrong key", may_have_run=False),
        ProviderUnavailableError("429", may_have_run=False),
        ContextTooLongError(),
        ContentRefusedError(),
        ConversationBusyError(),
        InvalidRequestError.of("temperature", "not with this model"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_surely_did_not_run_leaves_no_trace(bench: Bench, refusal: TextLLMError) -> None:
    bench.llm.script(ScriptedReply(error=refusal))
    with pytest.raises(type(refusal)):
        await bench.say("hi")
    assert await bench.entries() == []
    assert bench.store.conversations == {}
    await bench.check_books()


@pytest.mark.parametrize("refusal", [ContextTooLongError(), ContentRefusedError(), InvalidRequestError.of("a", "b")])
@pytest.mark.parametrize("is_new", [False, True])
async def test_a_refusal_in_a_stream_that_the_model_has_begun_leaves_what_one_before_it_leaves(
    bench: Bench, refusal: TextLLMError, is_new: bool
) -> None:
    first = None if is_new else (await bench.say("hi")).conversation_id
    before = dict(bench.store.conversations)
    bench.llm.script(ScriptedReply(error=refusal, after=0))
    with pytest.raises(type(refusal)) as caught:
        await bench.say("and now?", first)
    assert caught.value.charge == Charge(Decimal(0))
    assert len(await bench.entries()) == (not is_new)
    assert bench.store.conversations.keys() == before.keys()
    assert [kept.conversation.message_count for kept in bench.store.conversations.values()] == [1] * (not is_new)
    erased = [kept.erasure for kept in bench.store.erasures.values() if kept.erasure.kind == "reply"]
    assert [erasure.provider_id for erasure in erased] == [f"resp_scripted_{2 - is_new}"]
    assert is_new or (await bench.say("again", first)).message_number == 2
    await bench.check_books()


ANSWERED = ProviderUnavailableError("500")
ANSWERED.report = ProviderReport(status=500)
FAILED = ModelEnded(status="failed", usage=None)


@pytest.mark.parametrize(
    ("error", "tokens", "kept"),
    [
        (ANSWERED, 0, []),
        (ProviderTimeoutError("silence"), 100, ["x" * 391, ""]),
        (ProviderError("cut"), 100, ["x" * 391, ""]),
    ],
)
async def test_a_turn_that_the_provider_left_unanswered_costs_what_was_sent_and_stays_unless_it_said_that_it_failed(
    bench: Bench, error: ModelError, tokens: int, kept: list[str]
) -> None:
    bench.llm.script(ScriptedReply(error=error))
    with pytest.raises(type(error)):
        await bench.say("x" * 391)
    (entry,) = await bench.entries()
    assert (entry.usage, entry.estimated) == (Usage(input_tokens=tokens), True)
    assert entry.cost == GPT.cost(entry.usage)
    assert [message.text for message in await bench.said(entry)] == kept
    assert (await bench.say("Again.", entry.conversation_id)).message_number == 1 + bool(kept)
    await bench.check_books()


async def test_silence_costs_what_was_sent() -> None:
    bench = Bench(policy=replace(POLICY, first_token_timeout_s=0.01))

    async def silent(_: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        await asyncio.Event().wait()
        yield TextDelta("never")

    mute = bench.over(llm=type("Mute", (), {"stream": staticmethod(silent)})())
    with pytest.raises(ProviderTimeoutError):
        await mute.send_message(Caller(), TextTurn("x" * 391, user_id="ada"))
    (entry,) = await bench.entries()
    assert (entry.status, entry.estimated, entry.usage) == ("incomplete", True, Usage(input_tokens=100))


@pytest.mark.parametrize("after", [0, 1, 3])
@pytest.mark.parametrize("keeps_at_provider", [True, False])
async def test_a_reply_that_breaks_off_costs_what_the_provider_says_and_is_what_it_says(
    after: int, keeps_at_provider: bool
) -> None:
    bench = Bench() if keeps_at_provider else Bench(transcript=None)
    first = await bench.say("one")
    broken = ScriptedReply(
        deltas=tuple("abcd"), usage=USAGE, error=ProviderError("cut"), after=after, unheard="completed"
    )
    bench.llm.script(broken)
    bench.clock.advance(timedelta(seconds=1))
    events = [e async for e in bench.send_message.stream(Caller(), TextTurn("two", first.conversation_id))]
    assert isinstance(events[-1], ReplyFailed)
    assert isinstance(events[-1].error, ProviderError)
    entry = (await bench.entries())[-1]
    assert (entry.status, entry.cost, entry.estimated) == ("completed", PRICE_OF_USAGE, False)
    assert [message.text for message in await bench.said(entry)][2:] == ["two", "abcd"]
    again = await bench.say("three", first.conversation_id)
    assert (again.text, again.message_number) == ("[4] You said: three", 3)
    await bench.check_books()


@pytest.mark.parametrize(("told", "status"), [("", "incomplete"), ("b", "incomplete"), ("a", "completed")])
async def test_an_account_that_does_not_tell_the_text_of_a_reply_makes_no_whole_one_of_what_was_heard(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, told: str, status: str
) -> None:
    outcome = bench.llm.outcome

    async def without_text(provider_response_id: str) -> ModelEnded | None:
        ended = await outcome(provider_response_id)
        return ended and replace(ended, text=told)

    monkeypatch.setattr(bench.llm, "outcome", without_text)
    error = ProviderError("cut")
    bench.llm.script(ScriptedReply(deltas=("a", "\n", "c"), usage=USAGE, error=error, after=2, unheard="completed"))
    with pytest.raises(ProviderError):
        await bench.say("one")
    [entry] = await bench.entries()
    assert (entry.status, entry.cost, entry.estimated) == (status, PRICE_OF_USAGE, False)
    reply = (await bench.said(entry))[-1]
    end = "stop" if status == "completed" else "error"
    assert (reply.text, reply.status, reply.finish_reason) == ("a\n", status, end)
    await bench.check_books()


@pytest.mark.parametrize("heard", [(), ("Once",), ("Once", " upon")])
@pytest.mark.parametrize("error", [ProviderError("cut"), ProviderTimeoutError("silence"), RuntimeError("a defect")])
async def test_a_reply_that_breaks_off_stays_as_far_as_it_went_and_the_next_turn_knows_it(
    bench: Bench, heard: tuple[str, ...], error: Exception
) -> None:
    first = await bench.say("one")
    broken = ScriptedReply(deltas=(*heard, "unheard"), error=error, after=len(heard))  # type: ignore[arg-type]
    bench.llm.script(broken)
    with pytest.raises((TextLLMError, RuntimeError)):
        await bench.say("two", first.conversation_id)
    entry = (await bench.entries())[-1]
    text = "".join(heard)
    assert (entry.status, entry.estimated, entry.answered) == ("incomplete", True, True)
    kept = [(message.text, message.status, message.finish_reason) for message in await bench.said(entry)][1:]
    assert kept == [
        (first.text, "completed", "stop"),
        ("two", "completed", None),
        (text, "incomplete", "error"),
    ]
    again = await bench.say("three", first.conversation_id)
    sent = bench.llm.requests[-1].transcript_id
    assert bench.transcript is not None
    assert [m.text for m in await bench.transcript.messages(sent or "")][2:-2] == ["two", *([text] if text else [])]
    assert again.message_number == 3
    await bench.check_books()


@pytest.mark.parametrize(("after", "kept", "usage"), [(0, [], Usage()), (1, ["hi", "a"], Usage(3, 1))])
async def test_a_broken_reply_that_the_provider_did_not_bill_costs_what_was_received_of_it(
    bench: Bench, after: int, kept: list[str], usage: Usage
) -> None:
    bench.llm.script(
        ScriptedReply(deltas=("a",), error=ProviderError("cut"), after=after, usage_stated=False, unheard="failed")
    )
    with pytest.raises(ProviderError):
        await bench.say("hi")
    (entry,) = await bench.entries()
    assert (entry.usage, entry.cost, entry.estimated) == (usage, GPT.cost(usage), bool(after))
    assert [message.text for message in await bench.said(entry)] == kept
    await bench.check_books()


async def test_a_broken_reply_that_nobody_can_account_for_is_estimated(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(deltas=("abcd" * 10,), error=ProviderError("cut"), after=1))
    with pytest.raises(ProviderError):
        await bench.say("x" * 391)
    (entry,) = await bench.entries()
    assert (entry.estimated, entry.usage) == (True, Usage(input_tokens=100, output_tokens=10))
    assert entry.cost == GPT.cost(entry.usage)
    await bench.check_books()


async def test_a_failed_reply_costs_what_was_billed_and_leaves_the_conversation_as_it_was(bench: Bench) -> None:
    first = await bench.say("one")
    bench.llm.script(ScriptedReply(text="", status="failed", usage_stated=False, error_code="server_error"))
    with pytest.raises(ProviderError):
        await bench.say("two", first.conversation_id)
    entry = (await bench.entries())[-1]
    assert (entry.status, entry.cost, entry.estimated) == ("failed", ZERO, False)
    assert (await bench.say("three", first.conversation_id)).text == "[2] You said: three"
    await bench.check_books()


async def test_a_reply_that_failed_without_a_usage_costs_what_was_sent_and_received_of_it_for_good(
    bench: Bench,
) -> None:
    failed = ScriptedReply(text="abcd" * 10, status="failed", usage_stated=False, error_code="server_error")
    bench.llm.script(failed, replace(failed, error=ProviderError("cut"), after=1, unheard=None))
    for _ in range(2):
        with pytest.raises(ProviderError):
            await bench.say("x" * 391)
    bench.llm.ended |= {kept.hold.provider_response_id or "": FAILED for kept in bench.store.estimates.values()}
    bench.clock.advance(timedelta(minutes=1))
    assert await bench.reconcile() == 0
    for entry in await bench.entries():
        assert (entry.usage, entry.estimated) == (Usage(input_tokens=100, output_tokens=10), True)
    await bench.check_books()


async def test_a_filtered_reply_is_charged_and_refused(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(text="so", status="incomplete", content_filtered=True, usage=USAGE))
    with pytest.raises(ContentRefusedError):
        await bench.say("hi")
    (entry,) = await bench.entries()
    assert (entry.status, entry.cost) == ("incomplete", PRICE_OF_USAGE)
    await bench.check_books()


async def test_a_conversation_has_no_title_of_words_that_were_refused(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(text="so", status="incomplete", content_filtered=True, usage=USAGE))
    with pytest.raises(ContentRefusedError):
        await bench.say("Foul words")
    (entry,) = await bench.entries()
    for title in (None, "Hello"):
        if title is not None:
            await bench.say(title, entry.conversation_id)
        found = await bench.conversations.get("default", entry.conversation_id)
        assert found is not None
        assert found.title == title
    await bench.check_books()


async def test_a_reply_cut_at_its_longest_length_is_kept_and_the_next_turn_knows_it(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(text="Once upon", status="incomplete", finish_reason="length"))
    reply = await bench.say("Tell me.")
    assert (reply.finish_reason, reply.text) == ("length", "Once upon")
    await bench.say("Go on.", reply.conversation_id)
    transcript = bench.transcript
    assert transcript is not None
    told = await transcript.messages(bench.llm.requests[-1].transcript_id or "")
    assert [message.text for message in told][:3] == ["Tell me.", "Once upon", "Go on."]


async def test_a_transcript_that_the_provider_lost_is_made_anew(bench: Bench) -> None:
    first = await bench.say("one")
    assert bench.transcript is not None
    bench.transcript.lose(bench.llm.requests[0].transcript_id or "")
    second = await bench.say("two", first.conversation_id)
    assert (second.text, second.message_number) == ("[2] You said: two", 2)
    await bench.check_books()


async def test_without_a_copy_a_lost_transcript_is_lost() -> None:
    bench = Bench(policy=replace(POLICY, keep_messages=False))
    first = await bench.say("one")
    assert bench.transcript is not None
    bench.transcript.lose(bench.llm.requests[0].transcript_id or "")
    with pytest.raises(ConversationLostError):
        await bench.say("two", first.conversation_id)
    await bench.check_books()
    assert await bench.conversations.last_messages("default", "ada", first.conversation_id, limit=None) == ()


async def test_a_second_turn_at_once_is_refused_and_costs_nothing(bench: Bench) -> None:
    first = await bench.say("one")
    gate = asyncio.Event()
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=gate))
    async with aclosing(bench.send_message.stream(Caller(), TextTurn("two", first.conversation_id))) as events:
        await anext(events)
        with pytest.raises(ConversationBusyError):
            await bench.say("three", first.conversation_id)
        gate.set()
    assert len(await bench.entries()) == 2
    await bench.check_books()


async def test_a_turn_that_read_the_conversation_before_another_ended_does_not_answer_from_the_past(
    bench: Bench,
) -> None:
    gate = asyncio.Event()
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=gate))
    started = await anext(bench.send_message.stream(Caller(), TextTurn("one", user_id="ada")))
    assert isinstance(started, ReplyStarted)

    class Dawdling(MemoryConversationRepository):
        async def state(
            self, tenant_id: str, conversation_id: str, *, user_id: str | None = None
        ) -> ConversationState | None:
            state = await super().state(tenant_id, conversation_id, user_id=user_id)
            gate.set()
            await bench.running.drain(10)
            return state

    late = bench.over(conversations=Dawdling(bench.store), running=Bench().running)
    with pytest.raises(ConversationBusyError):
        await late.send_message(Caller(), TextTurn("two", started.conversation_id))
    await bench.check_books()


async def test_replies_are_shortened_to_what_the_budget_leaves() -> None:
    bench = Bench(policy=replace(POLICY, daily_limit=Decimal("0.02")))
    await bench.say("hi")
    assert 16 <= bench.llm.requests[0].max_output_tokens < 2000


async def test_an_empty_budget_refuses_and_says_when_it_resets() -> None:
    bench = Bench(policy=replace(POLICY, daily_limit=Decimal("0.003")))
    bench.llm.script(ScriptedReply(text="x", usage=USAGE))
    await bench.say("hi")
    with pytest.raises(BudgetExceededError) as refused:
        await bench.say("hi")
    assert refused.value.spent == PRICE_OF_USAGE
    assert refused.value.resets_at.isoformat() == "2026-11-23T00:00:00+00:00"
    assert not refused.value.reserved
    assert len(bench.llm.requests) == 1
    await bench.check_books()


async def test_a_budget_promised_to_running_turns_says_so() -> None:
    bench = Bench(policy=replace(POLICY, daily_limit=Decimal("0.01")))
    gate = asyncio.Event()
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=gate))
    async with aclosing(bench.send_message.stream(Caller(), TextTurn("hi", user_id="ada"))) as events:
        await anext(events)
        with pytest.raises(BudgetExceededError) as refused:
            await bench.say("hi")
        assert refused.value.reserved
        gate.set()
    await bench.check_books()


async def test_replies_warn_once_most_of_the_budget_is_spent() -> None:
    bench = Bench(policy=replace(POLICY, warn_at=PRICE_OF_USAGE))
    bench.llm.script(ScriptedReply(text="x", usage=USAGE))
    assert list((await bench.say("hi")).warnings) == ["0.00325 of 5 USD of today's budget are used."]


async def test_more_turns_than_the_rate_allows_are_refused() -> None:
    bench = Bench(policy=replace(POLICY, rate_per_minute=2))
    await bench.say("one")
    await bench.say("two")
    with pytest.raises(RateLimitedError):
        await bench.say("three")
    assert len(bench.llm.requests) == 2


async def test_a_turn_refused_for_money_does_not_count_in_the_rate_limit() -> None:
    bench = Bench(policy=replace(POLICY, rate_per_minute=2, daily_limit=Decimal("0.0001")))
    for _ in range(5):
        with pytest.raises(BudgetExceededError) as refused:
            await bench.say("hi")
        assert refused.value.allowance == Allowance(limit=2, remaining=2, resets_in_s=0)


async def test_a_turn_for_which_its_conversation_is_busy_does_not_count_in_the_rate_limit() -> None:
    bench = Bench(policy=replace(POLICY, rate_per_minute=2))
    gate = asyncio.Event()
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=gate))
    async with aclosing(bench.send_message.stream(Caller(), TextTurn("hi", user_id="ada"))) as events:
        started = await anext(events)
        assert isinstance(started, ReplyStarted)
        turn = TextTurn("too soon", started.conversation_id)
        for _ in range(5):
            with pytest.raises(ConversationBusyError):
                await bench.send_message(Caller(), turn)
        gate.set()
    await bench.running.drain(10)
    await bench.send_message(Caller(), turn)
    with pytest.raises(RateLimitedError):
        await bench.send_message(Caller(), turn)


@pytest.mark.parametrize(
    ("turn", "error"),
    [
        (TextTurn(" \n\t"), InvalidRequestError),
        (TextTurn("x" * 10_001), InputTooLongError),
        (TextTurn("half \ud83d"), InvalidRequestError),
        (TextTurn("hi", user_id="no spaces"), InvalidRequestError),
        (TextTurn("hi", user_id=""), InvalidRequestError),
        (TextTurn("hi", user_id="x" * 256), InvalidRequestError),
        (TextTurn("hi", "conv_unknown"), ConversationNotFoundError),
        (TextTurn("hi", ""), InvalidRequestError),
        (TextTurn("hi", options=TurnOptions(model="gpt-unpriced")), InvalidRequestError),
        (TextTurn("hi", options=TurnOptions(model="")), InvalidRequestError),
        (TextTurn("hi", options=TurnOptions(model="x" * 201)), InvalidRequestError),
        (TextTurn("hi", options=TurnOptions(model="gpt 4o")), InvalidRequestError),
        (TextTurn("hi", options=TurnOptions(instructions="\ud83d")), InvalidRequestError),
        (TextTurn("hi", options=TurnOptions(metadata={"k": "\ud83d"})), InvalidRequestError),
        (TextTurn("hi", options=TurnOptions(prompt="nope")), InvalidRequestError),
        (TextTurn("hi", options=TurnOptions(prompt="default", instructions="x")), InvalidRequestError),
        (TextTurn("hi", options=TurnOptions(instructions="x" * 10_001)), InputTooLongError),
        (TextTurn("hi", options=TurnOptions(max_output_tokens=0)), InvalidRequestError),
        (TextTurn("hi", options=TurnOptions(temperature=2.1)), InvalidRequestError),
        (TextTurn("hi", options=TurnOptions(temperature=float("nan"))), InvalidRequestError),
        (TextTurn("hi", options=TurnOptions(metadata={str(i): "x" for i in range(17)})), InvalidRequestError),
        (TextTurn("hi", options=TurnOptions(metadata={"k" * 65: "x"})), InvalidRequestError),
        (TextTurn("hi", options=TurnOptions(metadata={"k": "x" * 513})), InvalidRequestError),
    ],
)
async def test_a_wrong_turn_is_refused_before_anything_happens(
    bench: Bench, turn: TextTurn, error: type[TextLLMError]
) -> None:
    with pytest.raises(error):
        await bench.send_message(Caller(), turn)
    assert bench.llm.requests == []
    assert bench.store == MemoryStore()


async def test_a_conversation_of_another_user_or_tenant_does_not_exist(bench: Bench) -> None:
    reply = await bench.say("one")
    mine = reply.conversation_id
    for caller, turn in [
        (Caller(), TextTurn("x", mine, "bob")),
        (Caller("other"), TextTurn("x", mine)),
        (Caller(role="user", user_id="bob"), TextTurn("x", mine)),
    ]:
        with pytest.raises(ConversationNotFoundError):
            await bench.send_message(caller, turn)
    with pytest.raises(NotFoundError):
        await bench.send_message(Caller(role="user", user_id="bob"), TextTurn("x", user_id="ada"))
    await bench.check_books()


async def test_a_silent_model_is_a_timeout() -> None:
    bench = Bench(policy=replace(POLICY, first_token_timeout_s=0.05))
    bench.llm.script(ScriptedReply(deltas=("a",), pause_s=30, unheard="cancelled"))
    with pytest.raises(ProviderTimeoutError):
        await bench.say("hi")
    await bench.check_books()


async def test_a_process_that_ends_settles_what_it_cuts_short_and_keeps_the_partial_text(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(deltas=("Once", " upon"), gate=asyncio.Event(), usage=USAGE, unheard="completed"))
    events = bench.send_message.stream(Caller(), TextTurn("Tell me.", user_id="ada"))
    await anext(events)
    await anext(events)
    await bench.running.drain(0)
    last = [event async for event in events][-1]
    assert isinstance(last, ReplyFailed)
    (entry,) = await bench.entries()
    assert (entry.status, entry.cost) == ("cancelled", PRICE_OF_USAGE)
    kept = await bench.conversations.last_messages("default", "ada", entry.conversation_id, limit=None)
    assert [(message.text, message.status) for message in kept] == [("Tell me.", "completed"), ("Once", "incomplete")]
    await bench.check_books()


class FlakyLedger(MemoryLedger):
    """Storage that is away for the first tries to settle."""

    tries = count(1)

    async def settle(self, hold: Hold, settlement: Settlement, *, said: JournalEntry | None = None) -> Settled | None:
        if next(self.tries) <= 5:
            raise StorageUnavailableError
        return await super().settle(hold, settlement, said=said)


async def test_storage_that_comes_back_finds_the_reply_waiting() -> None:
    bench = Bench(policy=replace(POLICY, storage_pauses_s=(0.0,) * 8), ledger_type=FlakyLedger)
    bench.llm.script(ScriptedReply(text="Paris.", usage=USAGE))
    with pytest.raises(StorageUnavailableError):
        await bench.say("hi")
    assert [(entry.status, entry.cost) for entry in await bench.entries()] == [("completed", PRICE_OF_USAGE)]
    await bench.check_books()


async def test_what_a_dead_process_left_is_settled_at_once_and_set_right_once_by_the_providers_word(
    bench: Bench,
) -> None:
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=asyncio.Event()))
    turn = TextTurn("x" * 391, user_id="ada", is_resumable=True)
    dead = bench.send_message.stream(Caller(), turn)
    await anext(dead)
    await anext(dead)
    (hold,) = (kept.hold for kept in bench.store.holds.values())
    bench.exchange.writer.close(hold)

    survivor = Bench(store=bench.store)
    assert await survivor.reconcile() == 0  # its lease has not run out
    survivor.clock.advance(timedelta(seconds=16))
    assert await survivor.reconcile() == 1
    (entry,) = await survivor.entries()
    assert (entry.status, entry.estimated, entry.usage.input_tokens) == ("incomplete", True, 100)
    said = [(message.text, message.status) for message in await survivor.said(entry)]
    assert said == [("x" * 391, "completed"), (said[1][0], "incomplete")]
    await survivor.check_books()
    assert (await survivor.say("Next.", entry.conversation_id)).message_number == 2

    survivor.llm.ended[hold.provider_response_id or ""] = ModelEnded(status="completed", usage=USAGE, text="abc")
    survivor.clock.advance(timedelta(seconds=16))
    assert await survivor.reconcile() == 1
    assert await survivor.reconcile() == 0
    await bench.running.drain(0)  # the dead one wakes up after all, and finds that all is done
    entry = (await survivor.entries())[0]
    assert (entry.status, entry.cost, entry.estimated) == ("completed", PRICE_OF_USAGE, False)
    assert [(m.text, m.status, m.estimated) for m in (await survivor.said(entry))[:2]] == [
        ("x" * 391, "completed", None),
        ("abc", "completed", False),
    ]
    await bench.check_books()


async def test_what_a_process_that_was_taken_for_dead_knows_sets_the_estimate_right(bench: Bench) -> None:
    gate = asyncio.Event()
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=gate, usage=USAGE))
    events = bench.send_message.stream(Caller(), TextTurn("hi", user_id="ada"))
    await anext(events)
    survivor = Bench(store=bench.store)
    survivor.clock.advance(timedelta(minutes=1))
    assert await survivor.reconcile() == 1
    gate.set()
    last = [event async for event in events][-1]
    assert isinstance(last, ReplyCompleted)
    (entry,) = await bench.entries()
    assert (entry.status, entry.cost, entry.estimated) == ("completed", PRICE_OF_USAGE, False)
    assert [message.text for message in await bench.said(entry)] == ["hi", "ab"]
    await bench.check_books()


async def test_a_provider_is_asked_for_what_was_estimated_for_ten_minutes_and_then_no_more(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(deltas=("a",), error=ProviderError("cut"), after=1))
    with pytest.raises(ProviderError):
        await bench.say("hi")
    (response_id,) = (kept.hold.provider_response_id for kept in bench.store.estimates.values())
    bench.clock.advance(timedelta(minutes=9))
    assert await bench.reconcile() == 0
    bench.clock.advance(timedelta(minutes=1, seconds=1))
    bench.llm.ended[response_id or ""] = ModelEnded(status="completed", usage=USAGE, text="abc")
    assert await bench.reconcile() == 0
    assert bench.store.estimates == {}


async def test_a_conversation_begins_also_where_the_provider_has_lost_all_that_was_made_ahead() -> None:
    bench = Bench()
    assert bench.transcript is not None
    ready = ReadyTranscripts(bench.transcript, MemoryErasures(bench.store), bench.clock, most=4)
    over = bench.over(transcript=ready)
    async with ready.kept():
        await asyncio.gather(*(over.send_message(Caller(), TextTurn("hi", user_id=f"u{at}")) for at in range(4)))
        await ready.tidy()
        assert len(bench.transcript.ids) >= 6  # two and more are at hand
        for transcript_id in list(bench.transcript.ids):
            bench.transcript.lose(transcript_id)
        assert (await over.send_message(Caller(), TextTurn("hi", user_id="ada"))).text == "[0] You said: hi"
    await bench.check_books()


@pytest.mark.parametrize("says", [None, "completed", "incomplete"])
async def test_a_turn_of_a_dead_process_counts_where_the_provider_alone_keeps_it_only_if_it_says_that_it_is_whole(
    says: EndStatus | None,
) -> None:
    bench = Bench(policy=replace(POLICY, keep_messages=False))
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=asyncio.Event()))
    events = bench.send_message.stream(Caller(), TextTurn("Well, hello.", user_id="ada"))
    started = await anext(events)
    assert isinstance(started, ReplyStarted)
    await anext(events)
    survivor = Bench(store=bench.store, policy=bench.policy)
    if says is not None:
        usage = Usage(input_tokens=3, output_tokens=2)
        survivor.llm.ended["resp_scripted_1"] = ModelEnded(status=says, usage=usage, text="ab")
    survivor.clock.advance(timedelta(minutes=1))
    assert await survivor.reconcile() == 1
    conversation = await bench.textllm.conversations.get(Caller(), started.conversation_id)
    assert conversation.message_count == (says == "completed")
    assert conversation.title == "Well, hello."  # what was said is not here any more, so that nobody can take it away


@pytest.mark.parametrize("keeps", [True, False])
async def test_a_turn_whose_process_died_before_it_asked_costs_nothing_and_can_be_sent_again(keeps: bool) -> None:
    bench = Bench(policy=replace(POLICY, keep_messages=keeps))
    first = await bench.say("one")
    assert bench.transcript is not None
    bench.transcript.lose(bench.llm.requests[0].transcript_id or "")
    hanging = asyncio.Event()

    class Hanging(MemoryTranscript):
        async def create(self, messages: Sequence[Message], *, read: ReadBlob | None = None) -> str:
            hanging.set()
            await asyncio.Event().wait()
            return await super().create(messages, read=read)

    idempotency = Idempotency("key", "/chat", "print")
    dying = bench.over(transcript=Hanging())
    turn = TextTurn("hi", user_id="ada", idempotency=idempotency)
    reading = asyncio.create_task(dying.send_message(Caller(), turn))
    await hanging.wait()

    survivor = Bench(store=bench.store)
    survivor.clock.advance(timedelta(seconds=30))
    assert await survivor.reconcile() == 1
    assert [entry.response_id for entry in await survivor.ledger.entries("default", "ada")] == [first.response_id]
    assert (await survivor.send_message(Caller(), turn)).text == "[0] You said: hi"
    reading.cancel()
    await survivor.check_books()


async def test_recovery_books_the_model_that_the_provider_named(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=asyncio.Event()))
    await anext(bench.send_message.stream(Caller(), TextTurn("hi", user_id="ada")))
    (hold,) = (kept.hold for kept in bench.store.holds.values())
    await bench.ledger.pend(hold, provider_response_id=hold.provider_response_id, model="gpt-4o-2024-11-20")
    survivor = Bench(store=bench.store)
    survivor.clock.advance(timedelta(seconds=30))
    assert await survivor.reconcile() == 1
    assert [entry.model for entry in await survivor.entries()] == ["gpt-4o-2024-11-20"]


@pytest.mark.parametrize("ended", ["completed", "incomplete"])
async def test_a_reply_that_is_recovered_by_the_providers_word_is_in_its_conversation(
    bench: Bench, ended: EndStatus
) -> None:
    first = await bench.say("one")
    bench.clock.advance(timedelta(seconds=1))
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=asyncio.Event()))
    await anext(bench.send_message.stream(Caller(), TextTurn("two", first.conversation_id)))
    (hold,) = (kept.hold for kept in bench.store.holds.values())
    survivor = Bench(store=bench.store, transcript=bench.transcript)
    survivor.llm.ended[hold.provider_response_id or ""] = ModelEnded(status=ended, usage=USAGE, text="abc")
    survivor.clock.advance(timedelta(seconds=30))
    assert await survivor.reconcile() == 1
    entry = (await survivor.entries())[-1]
    assert (entry.status, entry.cost, entry.estimated) == (ended, PRICE_OF_USAGE, False)
    assert [(m.text, m.status) for m in await survivor.said(entry)][2:] == [("two", "completed"), ("abc", ended)]
    await survivor.check_books()


async def test_what_nobody_can_account_for_is_estimated_after_a_grace_period(bench: Bench) -> None:
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=asyncio.Event()))
    await anext(bench.send_message.stream(Caller(), TextTurn("hi", user_id="ada")))
    survivor = Bench(store=bench.store)
    survivor.clock.advance(timedelta(minutes=11))
    assert await survivor.reconcile() == 1
    await bench.running.drain(0)  # the dead one wakes up after all
    assert [entry.estimated for entry in await bench.ledger.entries("default", "ada")] == [True]
    await bench.check_books()
