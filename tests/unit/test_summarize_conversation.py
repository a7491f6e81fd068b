"""A summary is charged like a turn, and is none: nothing is said in the conversation by it."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import timedelta
from decimal import Decimal

import pytest
from msgspec.structs import replace
from tests.unit.conftest import GPT, POLICY, Bench

from textllm_adapters.memory.application import memory_conversations
from textllm_adapters.memory.llm import ScriptedReply
from textllm_core import Caller, Conversation, LedgerEntry, ReplyEvent, ReplyFailed, ReplyStarted, Usage
from textllm_core.errors import (
    BudgetExceededError,
    ContentRefusedError,
    ConversationBusyError,
    ConversationLostError,
    ConversationNotFoundError,
    InvalidRequestError,
    ProviderError,
    RateLimitedError,
    TextLLMError,
)
from textllm_core.policy import SUMMARY_PROMPT
from textllm_core.records.messages import Idempotency

USAGE = Usage(input_tokens=1000, cached_tokens=200, output_tokens=100)
PRICE_OF_USAGE = Decimal("0.00325")
REFUSAL = ScriptedReply(text="I would rather not.", finish_reason="refusal")
BENCHES: dict[str, Callable[[], Bench]] = {
    "transcript": Bench,
    "stateless": lambda: Bench(transcript=None),
    "provider alone": lambda: Bench(policy=replace(POLICY, keep_messages=False)),
}


@pytest.fixture(params=BENCHES)
def each_bench(request: pytest.FixtureRequest) -> Bench:
    """Where messages live: on both sides, on ours alone, on the provider's alone."""
    return BENCHES[request.param]()


async def kept(bench: Bench, conversation_id: str) -> Conversation:
    found = await bench.conversations.get("default", conversation_id)
    assert found is not None
    return found


async def charged(bench: Bench) -> LedgerEntry:
    """The entry of the only summary."""
    (entry,) = (entry for entry in await bench.entries() if entry.kind == "summary")
    return entry


async def begun(events: AsyncGenerator[ReplyEvent, None]) -> None:
    """Read the first event, and leave."""
    async with aclosing(events):
        assert isinstance(await anext(events), ReplyStarted)


async def test_a_summary_is_kept_and_charged_and_the_conversation_goes_on_as_if_nothing_was(each_bench: Bench) -> None:
    bench = each_bench
    first = await bench.say("one")
    second = await bench.say("two", first.conversation_id)
    state = await bench.conversations.state("default", first.conversation_id)
    before = await kept(bench, first.conversation_id)
    bench.llm.script(ScriptedReply(text=" We counted.\n", usage=USAGE))
    after = await bench.summarize(Caller(), first.conversation_id)
    assert after == await kept(bench, first.conversation_id)
    assert (after.summary, after.message_count, after.title) == ("We counted.", 2, "one")
    assert after.total_cost == before.total_cost + PRICE_OF_USAGE
    assert after.total_tokens_input == before.total_tokens_input + 1000

    request = bench.llm.requests[-1]
    texts = ["one", "[0] You said: one", "two", second.text, SUMMARY_PROMPT]
    assert ([message.text for message in request.messages], request.transcript_id) == (texts, None)
    now = await bench.conversations.state("default", first.conversation_id)
    assert state is not None
    assert now == replace(state, revision=state.revision + 1)
    entry = await charged(bench)
    assert (entry.status, entry.answered, entry.usage, entry.cost) == ("completed", False, USAGE, PRICE_OF_USAGE)
    third = await bench.say("three", first.conversation_id)
    assert (third.text, third.message_number) == ("[4] You said: three", 3)
    assert (await kept(bench, first.conversation_id)).summary == "We counted."
    assert bench.store.erasures == {}
    await bench.check_books()


async def test_the_operators_words_ask_for_it_and_bound_what_is_sent() -> None:
    policy = replace(POLICY, prompts={"default": "Be brief.", "summary": "Sum up."}, max_history_items=2)
    bench = Bench(policy=policy, transcript=None)
    first = await bench.say("one")
    await bench.say("two", first.conversation_id)
    await bench.summarize(Caller(), first.conversation_id)
    request = bench.llm.requests[-1]
    assert [message.text for message in request.messages] == ["two", "[2] You said: two", "Sum up."]
    assert request.instructions == "Be brief."


async def test_a_later_summary_takes_the_place_of_an_earlier_one(bench: Bench) -> None:
    first = await bench.say("one")
    for text in ("Early.", "Late."):
        bench.llm.script(ScriptedReply(text=text))
        assert (await bench.summarize(Caller(), first.conversation_id)).summary == text


async def test_a_summary_that_reached_its_longest_length_is_kept(bench: Bench) -> None:
    first = await bench.say("one")
    bench.llm.script(ScriptedReply(text="We", status="incomplete", finish_reason="length"))
    assert (await bench.summarize(Caller(), first.conversation_id)).summary == "We"
    assert (await charged(bench)).status == "incomplete"
    assert (await bench.say("two", first.conversation_id)).text == "[2] You said: two"


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (REFUSAL, ContentRefusedError),
        (ScriptedReply(text=" \n"), ProviderError),
        (ScriptedReply(text="no", content_filtered=True, status="incomplete"), ContentRefusedError),
        (ScriptedReply(text="no", status="failed"), ProviderError),
        (ScriptedReply(text="no no", error=ProviderError("It broke off."), after=1), ProviderError),
    ],
)
async def test_what_is_no_summary_leaves_the_earlier_one_and_the_conversation_as_it_was(
    each_bench: Bench, reply: ScriptedReply, error: type[TextLLMError]
) -> None:
    bench = each_bench
    first = await bench.say("one")
    bench.llm.script(ScriptedReply(text="Early."), reply)
    await bench.summarize(Caller(), first.conversation_id)
    with pytest.raises(error):
        await bench.summarize(Caller(), first.conversation_id)
    assert (await kept(bench, first.conversation_id)).summary == "Early."
    assert len(await bench.entries()) == 3
    assert (await bench.say("two", first.conversation_id)).text == "[2] You said: two"
    assert bench.store.erasures == {}
    await bench.check_books()


async def test_a_conversation_without_answers_is_refused_and_costs_nothing(bench: Bench) -> None:
    made = await memory_conversations(bench.store, bench.clock, bench.running, bench.files).create(Caller(), "ada")
    with pytest.raises(InvalidRequestError) as refusal:
        await bench.summarize(Caller(), made.id)
    assert [field for field, _ in refusal.value.errors] == ["conversation_id"]
    assert (bench.llm.requests, bench.store.holds, await bench.entries()) == ([], {}, [])


async def test_a_conversation_whose_messages_are_all_deleted_is_refused_and_costs_nothing(bench: Bench) -> None:
    said = await bench.say("one")
    kept_messages = await bench.conversations.last_messages("default", said.user_id, said.conversation_id, limit=None)
    for message in kept_messages:
        await bench.textllm.conversations.remove_part(Caller(), said.conversation_id, message.id, [0])
    asked = len(bench.llm.requests)
    with pytest.raises(InvalidRequestError, match="all messages are deleted"):
        await bench.summarize(Caller(), said.conversation_id)
    assert (len(bench.llm.requests), bench.store.holds, len(await bench.entries())) == (asked, {}, 1)
    await bench.say("two", said.conversation_id)
    assert (await bench.summarize(Caller(), said.conversation_id)).summary is not None


@pytest.mark.parametrize("caller", [Caller("other"), Caller("default", "user", "bob")])
async def test_a_conversation_of_others_is_not_found(bench: Bench, caller: Caller) -> None:
    first = await bench.say("one")
    with pytest.raises(ConversationNotFoundError):
        await bench.summarize(caller, first.conversation_id)
    assert len(bench.llm.requests) == 1


async def test_a_running_turn_and_a_running_summary_keep_each_other_out(bench: Bench) -> None:
    first = await bench.say("one")
    gate = asyncio.Event()
    bench.llm.script(ScriptedReply(deltas=("We", " counted."), gate=gate))
    await begun(bench.summarize.stream(Caller(), first.conversation_id))
    with pytest.raises(ConversationBusyError):
        await bench.say("two", first.conversation_id)
    with pytest.raises(ConversationBusyError):
        await bench.summarize(Caller(), first.conversation_id)
    gate.set()
    await bench.running.drain(10)  # nobody reads it any more, and it is kept all the same
    assert (await kept(bench, first.conversation_id)).summary == "We counted."
    await bench.check_books()


async def test_it_counts_in_the_rate_limit_and_is_held_by_the_budget() -> None:
    bench = Bench(policy=replace(POLICY, rate_per_minute=2))
    first = await bench.say("one")
    await bench.summarize(Caller(), first.conversation_id)
    with pytest.raises(RateLimitedError):
        await bench.summarize(Caller(), first.conversation_id)
    poor = Bench(store=bench.store, policy=replace(POLICY, daily_limit=Decimal("0.0001")))
    with pytest.raises(BudgetExceededError):
        await poor.summarize(Caller(), first.conversation_id)
    assert len(await bench.entries()) == 2


async def test_a_repeat_with_the_same_key_asks_the_model_once(bench: Bench) -> None:
    first = await bench.say("one")
    key = Idempotency("k", "summary", "0")
    bench.llm.script(ScriptedReply(text="We counted."))
    once = await bench.summarize(Caller(), first.conversation_id, key)
    again = await bench.summarize(Caller(), first.conversation_id, key)
    assert again == once
    assert (once.summary, len(bench.llm.requests)) == ("We counted.", 2)
    bench.llm.script(REFUSAL)
    refused = replace(key, key="refused")
    for _ in range(2):
        with pytest.raises(ContentRefusedError):
            await bench.summarize(Caller(), first.conversation_id, refused)
    assert len(bench.llm.requests) == 3


@pytest.mark.parametrize("keeps", [True, False])
async def test_recovery_of_a_summary_leaves_the_providers_side_in_use(keeps: bool) -> None:
    bench = Bench(policy=replace(POLICY, keep_messages=keeps))
    first = await bench.say("one")
    before = await bench.conversations.state("default", first.conversation_id)
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=asyncio.Event()))
    await anext(bench.summarize.stream(Caller(), first.conversation_id))  # whose process dies here
    survivor = Bench(store=bench.store, transcript=bench.transcript, policy=bench.policy)
    survivor.clock.advance(timedelta(minutes=11))
    assert await survivor.reconcile() == 1
    after = await survivor.conversations.state("default", first.conversation_id)
    assert before is not None
    assert after == replace(before, revision=before.revision + 1)
    entry = await charged(survivor)
    assert (entry.status, entry.estimated, entry.cost) == ("incomplete", True, GPT.cost(entry.usage))
    assert entry.cost > 0
    assert bench.store.erasures == {}
    assert (await survivor.say("two", first.conversation_id)).text == "[2] You said: two"


async def test_what_the_provider_alone_kept_and_lost_is_not_summed_up(bench: Bench) -> None:
    alone = Bench(store=bench.store, transcript=bench.transcript, policy=replace(POLICY, keep_messages=False))
    first = await alone.say("one")
    state = await alone.conversations.state("default", first.conversation_id)
    assert state is not None
    assert alone.transcript is not None
    alone.transcript.lose(state.transcript_id or "")
    with pytest.raises(ConversationLostError):
        await alone.summarize(Caller(), first.conversation_id)
    assert len(await alone.entries()) == 1
    await alone.check_books()


async def test_a_shutdown_cuts_a_summary_short_and_charges_it(bench: Bench) -> None:
    first = await bench.say("one")
    bench.llm.script(ScriptedReply(deltas=("We", " counted."), gate=asyncio.Event()))
    async with aclosing(bench.summarize.stream(Caller(), first.conversation_id)) as events:
        assert isinstance(await anext(events), ReplyStarted)
        await bench.running.drain(0)
        *_, end = [event async for event in events]
    assert isinstance(end, ReplyFailed)
    assert (await kept(bench, first.conversation_id)).summary is None
    assert (await charged(bench)).status == "cancelled"
    await bench.check_books()
