"""What is deleted here, and what a conversation no longer goes on with, is erased at the provider in the end."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest
from msgspec.structs import replace
from tests.unit.conftest import POLICY, Bench

from textllm_adapters.memory.application import memory_conversations
from textllm_adapters.memory.llm import ScriptedReply
from textllm_adapters.memory.transcript import MemoryTranscript
from textllm_core import Caller, TextTurn
from textllm_core.application import Conversations
from textllm_core.errors import (
    ConversationNotFoundError,
    NotFoundError,
    ProviderError,
    ProviderUnavailableError,
    TextLLMError,
)
from textllm_core.events import ErasureFailed, ErasuresWaiting
from textllm_core.records.messages import Message


class Stubborn(MemoryTranscript):
    """Refuses to erase anything `refusals` times."""

    refusals = 0
    left = 0

    async def erase(self, transcript_id: str) -> int:
        if self.refusals:
            self.refusals -= 1
            raise ProviderUnavailableError("not now", may_have_run=False)
        await super().erase(transcript_id)
        return self.left


def managing(bench: Bench) -> Conversations:
    return memory_conversations(
        bench.store, bench.clock, bench.running, bench.files, bench.transcript, telemetry=bench.telemetry
    )


def sides(bench: Bench) -> list[str]:
    assert bench.transcript is not None
    return sorted(bench.transcript.ids)


async def erase_for_good(bench: Bench, conversation_id: str) -> None:
    await managing(bench).delete(Caller(), conversation_id, soft=False)
    await bench.running.drain(10)


async def test_what_the_provider_refuses_is_tried_again_with_growing_pauses() -> None:
    stubborn = Stubborn()
    bench = Bench(transcript=stubborn)
    reply = await bench.say("Hi")
    stubborn.refusals = 3
    erase = managing(bench).erase_at_provider
    await erase_for_good(bench, reply.conversation_id)
    assert len(sides(bench)) == 1
    for pause in (15, 30, 60):
        bench.clock.advance(timedelta(seconds=pause - 1))
        assert await erase() == 0
        assert len(sides(bench)) == 1
        bench.clock.advance(timedelta(seconds=1))
        await erase()
    assert sides(bench) == []
    assert bench.store.erasures == {}


async def test_the_operator_is_told_of_every_failure_and_of_what_waits() -> None:
    stubborn = Stubborn()
    bench = Bench(transcript=stubborn)
    reply = await bench.say("Hi")
    stubborn.refusals = 1
    await erase_for_good(bench, reply.conversation_id)
    failed, waiting = (event for event in bench.telemetry.events if isinstance(event, ErasureFailed | ErasuresWaiting))
    assert isinstance(failed, ErasureFailed)
    assert (failed.attempts, failed.retry_in_s, failed.code) == (1, 15, "provider_unavailable")
    assert (failed.reason, waiting) == ("not now", ErasuresWaiting(pending=1, failing=1, by_provider={"": 1}))
    bench.clock.advance(timedelta(seconds=15))
    await managing(bench).erase_at_provider()
    assert bench.telemetry.events[-1] == ErasuresWaiting(pending=0, failing=0)


async def test_the_operator_is_told_of_what_the_provider_keeps_for_ever_and_it_is_not_asked_again() -> None:
    stubborn = Stubborn()
    stubborn.left = 7
    bench = Bench(transcript=stubborn)
    reply = await bench.say("Hi")
    (provider_id,) = sides(bench)
    await erase_for_good(bench, reply.conversation_id)
    failed, waiting = (event for event in bench.telemetry.events if isinstance(event, ErasureFailed | ErasuresWaiting))
    assert isinstance(failed, ErasureFailed)
    assert (failed.provider_id, failed.retry_in_s, failed.code) == (provider_id, None, "provider_error")
    assert "no way to delete it, or 7 things" in failed.reason
    assert waiting == ErasuresWaiting(pending=0, failing=0)


async def test_a_provider_that_refuses_for_days_is_asked_every_hour() -> None:
    stubborn = Stubborn()
    bench = Bench(transcript=stubborn)
    stubborn.refusals = 2**31
    await erase_for_good(bench, (await bench.say("Hi")).conversation_id)
    for _ in range(50):
        bench.clock.advance(timedelta(hours=1))
        before = stubborn.refusals
        assert await managing(bench).erase_at_provider() == 0
        assert stubborn.refusals == before - 1
    stubborn.refusals = 0
    bench.clock.advance(timedelta(hours=1))
    assert await managing(bench).erase_at_provider() == 1
    assert sides(bench) == []


async def test_many_are_erased_in_one_run(bench: Bench) -> None:
    assert bench.transcript is not None
    made = [await bench.transcript.create([]) for _ in range(35)]
    for transcript_id in made:
        bench.store.to_erase("default", "ada", "transcript", transcript_id, at=bench.clock.now())
    assert await managing(bench).erase_at_provider() == 35
    assert sides(bench) == []


async def test_what_another_worker_has_in_hand_is_left_alone(bench: Bench) -> None:
    assert bench.transcript is not None
    bench.store.to_erase("default", "ada", "transcript", await bench.transcript.create([]), at=bench.clock.now())
    totals = await asyncio.gather(*(managing(bench).erase_at_provider() for _ in range(3)))
    assert sorted(totals) == [0, 0, 1]


async def test_without_a_side_of_the_provider_erasures_wait_until_it_is_back(bench: Bench) -> None:
    reply = await bench.say("Hi")
    stateless = Bench(store=bench.store, transcript=None)
    await erase_for_good(stateless, reply.conversation_id)
    assert len(sides(bench)) == 1
    waiting = ErasuresWaiting(pending=2, failing=0, by_provider={"": 2}, absent={"": 2})  # its side, and the reply
    assert stateless.telemetry.events[-1] == waiting
    await managing(bench).erase_at_provider()
    assert sides(bench) == []


@pytest.mark.parametrize(
    "reply",
    [
        ScriptedReply(text="half", status="incomplete", finish_reason="length"),
        ScriptedReply(deltas=("a", "b"), error=ProviderError("broken"), after=1),
        ScriptedReply(error=ProviderError("broken", may_have_run=True)),
    ],
    ids=["cut", "broken", "unheard"],
)
async def test_a_side_that_is_in_doubt_is_made_anew_and_the_old_one_erased(bench: Bench, reply: ScriptedReply) -> None:
    first = await bench.say("one")
    (old,) = sides(bench)
    bench.llm.script(reply)
    await said(bench, first.conversation_id)
    await managing(bench).erase_at_provider()
    assert sides(bench) == []
    await bench.say("three", first.conversation_id)
    await managing(bench).erase_at_provider()
    (new,) = sides(bench)
    assert new != old


async def said(bench: Bench, conversation_id: str | None = None) -> None:
    """A turn, whatever becomes of it."""
    try:
        await bench.say("two", conversation_id)
    except TextLLMError:
        await bench.running.drain(10)


@pytest.mark.parametrize("error", [ProviderError("401", may_have_run=False), ProviderError("500")])
async def test_a_first_turn_that_fails_leaves_no_side_behind(bench: Bench, error: ProviderError) -> None:
    bench.llm.script(ScriptedReply(error=error))
    await said(bench)
    await managing(bench).erase_at_provider()
    assert sides(bench) == []


async def test_a_refused_turn_keeps_the_side_of_its_conversation(bench: Bench) -> None:
    first = await bench.say("one")
    kept = sides(bench)
    bench.llm.script(ScriptedReply(error=ProviderUnavailableError("429", may_have_run=False)))
    await said(bench, first.conversation_id)
    await managing(bench).erase_at_provider()
    assert sides(bench) == kept
    assert (await bench.say("three", first.conversation_id)).text == "[2] You said: three"


async def test_the_only_copy_is_never_erased_in_doubt() -> None:
    bench = Bench(policy=replace(POLICY, keep_messages=False))
    first = await bench.say("one")
    kept = sides(bench)
    bench.llm.script(ScriptedReply(deltas=("a", "b"), error=ProviderError("broken"), after=1))
    await said(bench, first.conversation_id)
    await managing(bench).erase_at_provider()
    assert sides(bench) == kept


async def test_what_recovery_drops_is_erased(bench: Bench) -> None:
    first = await bench.say("one")
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=asyncio.Event()))
    await anext(bench.send_message.stream(Caller(), TextTurn("two", first.conversation_id)))
    survivor = Bench(store=bench.store, transcript=bench.transcript)
    survivor.clock.advance(timedelta(minutes=11))
    assert await survivor.reconcile() == 1
    await managing(survivor).erase_at_provider()
    assert sides(bench) == []
    assert (await survivor.say("three", first.conversation_id)).text == "[3] You said: three"


async def test_a_user_manages_only_its_own_conversations(bench: Bench) -> None:
    reply = await bench.say("Hi")
    bob, it = Caller(role="user", user_id="bob"), reply.conversation_id
    manage = managing(bench)
    calls = [
        manage.get(bob, it),
        manage.messages(bob, it),
        manage.delete(bob, it),
        manage.delete(bob, it, soft=False),
        manage.restore(bob, it),
    ]
    for call in calls:
        with pytest.raises(ConversationNotFoundError):
            await call
    with pytest.raises(NotFoundError):
        await manage.create(bob, "ada")
    assert (await manage.create(bob)).user_id == "bob"
    assert [each.user_id for each in (await manage.list(bob)).data] == ["bob"]
    ada = Caller(role="user", user_id="ada")
    assert [each.id for each in (await manage.list(ada)).data] == [it]
    assert (await manage.list(Caller(tenant_id="other"))).total == 0
    everything: Sequence[Message] = bench.store.conversations["default", "ada", it].messages
    assert [each.id async for each in manage.messages.every(ada, it)] == [message.id for message in everything]


async def test_what_is_deleted_while_the_process_ends_is_erased_by_another() -> None:
    bench = Bench()
    reply = await bench.say("Hi")
    bench.running.refuse_new()
    assert (await managing(bench).delete(Caller(), reply.conversation_id, soft=False)).id == reply.conversation_id
    assert len(sides(bench)) == 1
    await managing(bench).erase_at_provider()
    assert sides(bench) == []
