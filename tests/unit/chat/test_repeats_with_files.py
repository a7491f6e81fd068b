"""A repeat of a turn with files is answered before its files are looked at."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from functools import partial

import pytest
from msgspec.structs import replace
from tests.image_files import png
from tests.unit.chat.kept_files import FaultyBlobs, kept
from tests.unit.conftest import NOON, POLICY, Bench

from textllm_adapters.memory.application import SCRIPTED_FILE_POLICY
from textllm_adapters.memory.llm import ScriptedReply
from textllm_core import Caller, Reply, ReplyCompleted, ReplyEvent, ReplyStarted
from textllm_core.chat.chat_with_document import DocumentTurn
from textllm_core.chat.chat_with_image import ImageTurn
from textllm_core.errors import (
    Allowance,
    BudgetExceededError,
    ConversationNotFoundError,
    IdempotencyInProgressError,
    IdempotencyMismatchError,
    ProviderUnavailableError,
    RateLimitedError,
    TextLLMError,
)
from textllm_core.records.messages import Idempotency
from textllm_core.records.model import ModelEnded
from textllm_core.uploads import Upload
from textllm_core.usage import Usage
from textllm_core.wire import to_json

ADA = Caller(user_id="ada", role="user")
KEY = Idempotency("key-1", "POST /chat/file", "digest")
FILES = {"image": ("a.png", png(64, 64)), "document": ("a.txt", b"Tea is at five.")}


def never() -> AsyncIterator[bytes]:
    raise AssertionError("a repeat's files are not read")


async def _later(gate: asyncio.Event, content: bytes) -> AsyncIterator[bytes]:
    await gate.wait()
    yield content


@dataclass(frozen=True)
class Door:
    """One of the two use cases that take files, with a file that it takes."""

    kind: str

    @property
    def size(self) -> int:
        return len(FILES[self.kind][1])

    def stream(
        self,
        bench: Bench,
        *,
        caller: Caller = ADA,
        is_readable: bool = True,
        gate: asyncio.Event | None = None,
        conversation_id: str | None = None,
        idempotency: Idempotency = KEY,
        allowance: Allowance | None = None,
    ) -> AsyncGenerator[ReplyEvent, None]:
        name, content = FILES[self.kind]
        file = Upload.of_bytes(name, content) if is_readable else Upload(name, len(content), never)
        if gate is not None:
            file = Upload(name, len(content), partial(_later, gate, content))
        if self.kind == "image":
            images = ImageTurn("Well?", [file], conversation_id, idempotency=idempotency, allowance=allowance)
            return bench.chat_with_image.stream(caller, images)
        document = DocumentTurn("Well?", file, conversation_id, idempotency=idempotency, allowance=allowance)
        return bench.chat_with_document.stream(caller, document)

    async def events(self, bench: Bench, **asked: object) -> list[ReplyEvent]:
        return [event async for event in self.stream(bench, **asked)]  # type: ignore[arg-type]


@pytest.fixture(params=FILES)
def door(request: pytest.FixtureRequest) -> Door:
    return Door(request.param)


async def test_a_repeat_is_told_the_same_without_its_files(door: Door) -> None:
    bench = Bench()
    first = await door.events(bench)
    again = await door.events(bench, is_readable=False)
    assert isinstance(first[0], ReplyStarted)
    assert again[0] == replace(first[0], is_replayed=True, allowance=None)
    assert to_json(again[-1]) == to_json(first[-1])
    assert list(kept(bench.store).values()) == [door.size]
    assert len(bench.llm.requests) == 1
    await bench.check_books()


@pytest.mark.parametrize("is_late", [False, True])
async def test_a_repeat_gets_the_links_of_a_reply_that_the_provider_told_after_a_crash(
    door: Door, is_late: bool
) -> None:
    bench = Bench()
    whole = (await door.events(bench, idempotency=replace(KEY, key="other")))[-1]
    bench.llm.script(ScriptedReply(deltas=("On", "ce"), gate=asyncio.Event()))
    await anext(door.stream(bench))
    (hold,) = (kept.hold for kept in bench.store.holds.values())
    survivor = Bench(store=bench.store, blobs=bench.blobs, clock=bench.clock)
    survivor.clock.advance(timedelta(minutes=1))
    if is_late:
        assert await survivor.reconcile() == 1
        survivor.clock.advance(timedelta(minutes=1))
    word = ModelEnded(status="completed", text="Once", usage=Usage(input_tokens=9, output_tokens=1))
    survivor.llm.ended[hold.provider_response_id or ""] = word
    assert await survivor.reconcile() == 1
    end = (await door.events(survivor, is_readable=False))[-1]
    assert isinstance(whole, ReplyCompleted)
    assert isinstance(end, ReplyCompleted)
    assert (type(end.reply), end.reply.text) == (type(whole.reply), "Once")
    assert [(type(file), file.size) for file in end.files] == [(type(file), file.size) for file in whole.files]
    await bench.running.drain(0)


async def test_a_repeat_is_told_the_same_where_its_own_files_have_filled_the_quota(door: Door) -> None:
    bench = Bench(file_policy=replace(SCRIPTED_FILE_POLICY, max_tenant_bytes=door.size))
    first, again = await door.events(bench), await door.events(bench)
    assert to_json(again[-1]) == to_json(first[-1])


async def test_a_repeat_is_told_the_same_while_nothing_can_be_stored(door: Door) -> None:
    blobs = FaultyBlobs()
    bench = Bench(blobs=blobs)
    blobs.full_after = 1
    first, again = await door.events(bench), await door.events(bench)
    assert to_json(again[-1]) == to_json(first[-1])


async def test_a_repeat_is_refused_while_the_first_one_runs_and_does_not_count(door: Door) -> None:
    bench, gate = Bench(policy=replace(POLICY, rate_per_minute=2)), asyncio.Event()
    bench.llm.script(ScriptedReply(gate=gate))
    async with aclosing(door.stream(bench)) as events:
        await anext(events)
        for _ in range(3):
            with pytest.raises(IdempotencyInProgressError):
                await door.events(bench, is_readable=False)
        gate.set()
    await bench.check_books()
    assert list(kept(bench.store).values()) == [door.size]


async def test_of_two_first_ones_at_once_one_is_answered_and_keeps_its_files(door: Door) -> None:
    bench = Bench()
    outcomes = await asyncio.gather(door.events(bench), door.events(bench), return_exceptions=True)
    assert sorted(type(outcome) is list for outcome in outcomes) == [False, True]
    assert any(isinstance(outcome, IdempotencyInProgressError) for outcome in outcomes)
    await bench.check_books()
    assert list(kept(bench.store).values()) == [door.size]


async def test_a_second_one_is_told_the_same_though_the_first_has_filled_the_quota_meanwhile(door: Door) -> None:
    bench = Bench(file_policy=replace(SCRIPTED_FILE_POLICY, max_tenant_bytes=door.size))
    gate = asyncio.Event()
    second = asyncio.create_task(door.events(bench, gate=gate))
    await asyncio.sleep(0)  # it looks for a first one, and finds none
    first = await door.events(bench)
    gate.set()
    assert to_json((await second)[-1]) == to_json(first[-1])
    assert len(bench.llm.requests) == 1


async def test_the_key_of_another_request_is_refused(door: Door) -> None:
    bench = Bench()
    await door.events(bench)
    with pytest.raises(IdempotencyMismatchError) as refusal:
        await door.events(bench, is_readable=False, idempotency=replace(KEY, fingerprint="another"))
    assert refusal.value.allowance is not None


async def test_a_failure_is_replayed_without_the_files(door: Door) -> None:
    bench = Bench()
    bench.llm.script(ScriptedReply(error=ProviderUnavailableError("500"), unheard="failed"))
    told: list[TextLLMError] = []
    for is_readable in (True, False):
        with pytest.raises(ProviderUnavailableError, match="500") as failure:
            await door.events(bench, is_readable=is_readable)
        told.append(failure.value)
    assert [error.is_replayed for error in told] == [False, True]


async def test_a_user_repeats_nothing_that_another_user_sent(door: Door) -> None:
    bench = Bench()
    replies = [(await door.events(bench, caller=Caller(user_id=user, role="user")))[0] for user in ("ada", "bob")]
    assert [reply.user_id for reply in replies if isinstance(reply, ReplyStarted)] == ["ada", "bob"]
    assert len(kept(bench.store)) == 2


async def test_a_repeat_in_a_conversation_that_is_gone_finds_none(door: Door) -> None:
    bench = Bench()
    conversation_id: str = (await bench.say("Hello")).conversation_id
    await door.events(bench, conversation_id=conversation_id)
    await bench.conversations.hide("default", "ada", conversation_id, at=NOON)
    with pytest.raises(ConversationNotFoundError):
        await door.events(bench, conversation_id=conversation_id, is_readable=False)


@pytest.mark.parametrize("has_failed", [False, True])
async def test_a_repeat_uses_up_nothing_of_the_rate_limit(door: Door, has_failed: bool) -> None:
    bench = Bench(policy=replace(POLICY, rate_per_minute=2))
    if has_failed:
        bench.llm.script(ScriptedReply(error=ProviderUnavailableError("500"), unheard="failed"))
    with suppress(ProviderUnavailableError):
        await door.events(bench)
    for _ in range(3):
        with pytest.raises(ProviderUnavailableError) if has_failed else nullcontext():
            await door.events(bench, is_readable=False)
    await bench.say("Hello")
    with pytest.raises(RateLimitedError):
        await door.events(bench, is_readable=False)


async def test_a_turn_whose_files_were_read_counts_though_it_is_refused_for_money(door: Door) -> None:
    bench = Bench(policy=replace(POLICY, rate_per_minute=2, daily_limit=Decimal("0.0001")))
    for _ in range(2):
        with pytest.raises(BudgetExceededError):
            await door.events(bench)
    with pytest.raises(RateLimitedError):
        await door.events(bench, is_readable=False)


async def test_a_turn_that_was_counted_before_is_not_counted_again(door: Door) -> None:
    bench = Bench(policy=replace(POLICY, rate_per_minute=1))
    counted = Allowance(limit=1, remaining=0, resets_in_s=60)
    first, again = [await door.events(bench, allowance=counted) for _ in range(2)]
    assert to_json(again[-1]) == to_json(first[-1])
    reply: Reply = await bench.say("Hello")
    assert reply.text == "[0] You said: Hello"
