"""A reply that lost its reader is read on, here or in another process, without a gap and without a repeat."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from tests.unit.conftest import Bench

from textllm_adapters.memory.llm import ScriptedReply
from textllm_adapters.memory.reply_journal import MemoryReplyJournal
from textllm_core import Caller, ReplyCompleted, ReplyEvent, ReplyFailed, ReplyStarted, TextDelta, TextTurn
from textllm_core.errors import NotFoundError
from textllm_core.records.journal import JournalEntry
from textllm_core.records.model import ModelEnded
from textllm_core.usage import Usage

USAGE = Usage(input_tokens=100, output_tokens=20)
LAST_ID_OF_LOST = 2**31 - 1


@pytest.fixture
def other(bench: Bench) -> Bench:
    """Another process over the same database."""
    return Bench(store=bench.store, clock=bench.clock)


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textllm_core.chat.resume_reply._LOOK_EVERY_S", 0.001)


async def begun(bench: Bench, text: str = "hi", *, deltas: int = 1) -> tuple[str, AsyncIterator[ReplyEvent]]:
    """A running reply of which the start and some deltas were read, and are in the journal."""
    events = bench.send_message.stream(Caller(), TextTurn(text, user_id="ada", is_resumable=True))
    started = await anext(events)
    assert isinstance(started, ReplyStarted)
    for _ in range(deltas):
        await anext(events)
    await bench.exchange.writer.write()
    return started.response_id, events


async def resumed(bench: Bench, response_id: str, after: int = 0) -> list[tuple[int, ReplyEvent]]:
    resumption = await bench.resume_reply(Caller(), response_id, after=after)
    return [numbered async for numbered in resumption.events]


@pytest.mark.parametrize("is_elsewhere", [False, True])
@pytest.mark.parametrize("after", range(6))
async def test_what_was_missed_comes_first_and_then_what_is_new(
    bench: Bench, other: Bench, after: int, is_elsewhere: bool
) -> None:
    gate = asyncio.Event()
    bench.llm.script(ScriptedReply(deltas=("a", "b", "c"), gate=gate, usage=USAGE))
    response_id, events = await begun(bench)
    reading = asyncio.create_task(resumed(other if is_elsewhere else bench, response_id, after))
    await asyncio.sleep(0.01)
    gate.set()
    whole = [ReplyStarted, "a", "b", "c", ReplyCompleted]
    got = [(number, event.text if isinstance(event, TextDelta) else type(event)) for number, event in await reading]
    assert got == list(enumerate(whole, 1))[after:]
    async with aclosing(events):  # type: ignore[type-var]  # a generator
        assert [event async for event in events][-1] == (await resumed(bench, response_id, 4))[0][1]
    await bench.check_books()


@dataclass(frozen=True)
class GatedJournal(MemoryReplyJournal):
    """Writes once it may."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    may: asyncio.Event = field(default_factory=asyncio.Event)

    async def write(self, entries: Sequence[JournalEntry]) -> None:
        self.asked.set()
        await self.may.wait()
        await super().write(entries)


async def test_a_reply_that_is_over_between_two_writes_can_be_read_again_without_one(
    bench: Bench, other: Bench
) -> None:
    bench.llm.script(ScriptedReply(deltas=("a", "b"), usage=USAGE))
    bench.exchange.writer.journal = GatedJournal(bench.store)
    turn = TextTurn("hi", user_id="ada", is_resumable=True)
    events = [event async for event in bench.send_message.stream(Caller(), turn)]
    assert isinstance(events[0], ReplyStarted)
    assert await resumed(other, events[0].response_id) == list(enumerate(events, 1))


async def test_a_reply_is_settled_once_its_write_is_over_so_that_the_newest_one_stays(
    bench: Bench, other: Bench
) -> None:
    gate = asyncio.Event()
    bench.llm.script(ScriptedReply(deltas=("a", "b", "c"), gate=gate, usage=USAGE))
    events = bench.send_message.stream(Caller(), TextTurn("hi", user_id="ada", is_resumable=True))
    seen = [await anext(events), await anext(events)]
    bench.exchange.writer.journal = journal = GatedJournal(bench.store)
    writing = asyncio.create_task(bench.exchange.writer.write())
    await journal.asked.wait()
    gate.set()
    seen += [await anext(events), await anext(events)]
    await asyncio.sleep(0.01)
    assert bench.store.ends == {}
    journal.may.set()
    await writing
    seen += [event async for event in events]
    assert isinstance(seen[0], ReplyStarted)
    assert await resumed(other, seen[0].response_id) == list(enumerate(seen, 1))
    assert [sorted(pieces) for pieces in bench.store.spoken.values()] == [[1, 2, 3]]


async def test_a_reply_can_be_read_again_until_an_hour_after_its_end(bench: Bench, other: Bench) -> None:
    response_id, events = await begun(bench)
    async for _ in events:
        pass
    await bench.check_books()
    whole = await resumed(other, response_id)
    assert isinstance(whole[-1][1], ReplyCompleted)
    for after in range(len(whole) + 1):
        assert await resumed(other, response_id, after) == whole[after:]
    assert not (await other.resume_reply(Caller(), response_id, after=len(whole) - 1)).is_over
    assert (await other.resume_reply(Caller(), response_id, after=len(whole))).is_over
    bench.clock.advance(timedelta(hours=1))
    await other.remove_expired()
    assert await resumed(other, response_id) == whole
    bench.clock.advance(timedelta(seconds=1))
    await other.remove_expired()
    with pytest.raises(NotFoundError):
        await other.resume_reply(Caller(), response_id)
    assert bench.store.spoken == {}


@pytest.mark.parametrize("caller", [Caller("other"), Caller(role="user", user_id="bob")])
async def test_nobody_else_can_read_or_cancel_it(bench: Bench, other: Bench, caller: Caller) -> None:
    gate = asyncio.Event()
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=gate))
    response_id, _ = await begun(bench)
    for process in (bench, other):
        with pytest.raises(NotFoundError):
            await process.resume_reply(caller, response_id)
        with pytest.raises(NotFoundError):
            await process.cancel_reply(caller, response_id)
    gate.set()
    assert [entry.status for entry in await bench.entries()] == ["completed"]


@pytest.mark.parametrize("has_read", [0, 1, 2, 5])
async def test_a_reply_whose_process_died_ends_in_a_failure_for_whoever_reads_on(
    bench: Bench, other: Bench, has_read: int
) -> None:
    bench.llm.script(ScriptedReply(deltas=("Once upon", " a time"), gate=asyncio.Event()))
    response_id, dead = await begun(bench)
    (hold,) = (kept.hold for kept in bench.store.holds.values())
    reading = asyncio.create_task(resumed(other, response_id, has_read))
    bench.clock.advance(timedelta(minutes=11))
    assert await other.reconcile() == 1
    got = await reading
    assert [number for number, _ in got] == [*range(has_read + 1, 3), LAST_ID_OF_LOST]
    end = got[-1][1]
    assert isinstance(end, ReplyFailed)
    assert (end.response_id, end.error.code) == (response_id, "provider_error")
    assert (await other.resume_reply(Caller(), response_id, after=LAST_ID_OF_LOST)).is_over
    (entry,) = await other.entries()
    assert (entry.status, entry.estimated) == ("incomplete", True)
    assert entry.usage == Usage(input_tokens=hold.input_estimate, output_tokens=3)
    assert [message.text for message in await other.said(entry)][-1] == "Once upon"
    await dead.aclose()  # type: ignore[attr-defined]  # a generator
    await bench.running.drain(0)


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("has_read", [0, 1, 2, 5, LAST_ID_OF_LOST - 1])
async def test_a_reply_whose_process_died_is_read_to_the_end_that_the_provider_tells(
    bench: Bench, other: Bench, has_read: int, is_late: bool
) -> None:
    bench.llm.script(ScriptedReply(deltas=("Once upon", " a time"), gate=asyncio.Event()))
    response_id, dead = await begun(bench)
    (hold,) = (kept.hold for kept in bench.store.holds.values())
    reading = None if is_late else asyncio.create_task(resumed(other, response_id, has_read))
    bench.clock.advance(timedelta(minutes=1))
    if is_late:
        assert await other.reconcile() == 1
        assert isinstance((await resumed(other, response_id, has_read))[-1][1], ReplyFailed)
        bench.clock.advance(timedelta(minutes=1))
    word = ModelEnded(status="completed", text="Once upon a time, there was", usage=USAGE)
    other.llm.ended[hold.provider_response_id or ""] = word
    assert await other.reconcile() == 1
    got = await (reading or resumed(other, response_id, has_read))
    rest = [] if has_read == LAST_ID_OF_LOST - 1 else [(LAST_ID_OF_LOST - 1, TextDelta(" a time, there was"))]
    assert got[-1 - len(rest) : -1] == rest
    assert [number for number, _ in got[: -1 - len(rest)]] == [*range(has_read + 1, 3)]
    number, end = got[-1]
    assert number == LAST_ID_OF_LOST
    assert isinstance(end, ReplyCompleted)
    assert (end.reply.text, end.reply.estimated) == ("Once upon a time, there was", False)
    assert (await other.resume_reply(Caller(), response_id, after=LAST_ID_OF_LOST)).is_over
    await dead.aclose()  # type: ignore[attr-defined]  # a generator
    await bench.running.drain(0)


@pytest.mark.parametrize("is_elsewhere", [False, True])
async def test_a_cancelled_reply_is_told_with_its_cost_and_its_text_is_kept(
    bench: Bench, other: Bench, is_elsewhere: bool
) -> None:
    gate = asyncio.Event()
    bench.llm.script(ScriptedReply(deltas=("Once", " upon"), gate=gate, unheard="cancelled"))
    response_id, events = await begun(bench)
    process = other if is_elsewhere else bench
    reply = await process.cancel_reply(Caller(), response_id)
    assert (reply.text, reply.finish_reason, reply.usage.output) == ("Once", "cancelled", 1)
    assert [event async for event in events] == [ReplyCompleted(reply, at=bench.clock.now())]
    (entry,) = await bench.entries()
    assert (entry.status, entry.estimated, entry.cost) == ("cancelled", True, reply.cost)
    assert reply.cost > 0
    kept = await bench.conversations.last_messages("default", "ada", entry.conversation_id, limit=None)
    assert [(message.text, message.status) for message in kept] == [("hi", "completed"), ("Once", "incomplete")]
    assert await process.cancel_reply(Caller(), response_id) == reply
    again = await bench.say("go on", entry.conversation_id)
    assert again.message_number == 2
    await bench.check_books()


async def test_a_reply_that_is_not_resumable_can_be_cancelled_where_it_runs_alone(bench: Bench, other: Bench) -> None:
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=asyncio.Event(), unheard="cancelled"))
    events = bench.send_message.stream(Caller(), TextTurn("hi", user_id="ada"))
    started = await anext(events)
    assert isinstance(started, ReplyStarted)
    with pytest.raises(NotFoundError):
        await other.cancel_reply(Caller(), started.response_id)
    assert (await bench.cancel_reply(Caller(), started.response_id)).finish_reason == "cancelled"
    await bench.check_books()
    with pytest.raises(NotFoundError):
        await bench.cancel_reply(Caller(), started.response_id)
    await bench.check_books()


async def test_a_detached_reply_that_is_read_elsewhere_is_not_cut_short() -> None:
    bench = Bench(drain_s=0.01, watch=timedelta(seconds=0.05))
    gate = asyncio.Event()
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=gate, unheard="cancelled"))
    response_id, events = await begun(bench)
    reading = asyncio.create_task(resumed(Bench(store=bench.store, clock=bench.clock), response_id))
    await asyncio.sleep(0.01)
    await events.aclose()  # type: ignore[attr-defined]  # a generator
    await asyncio.sleep(0.2)
    gate.set()
    assert isinstance((await reading)[-1][1], ReplyCompleted)
    assert [entry.status for entry in await bench.entries()] == ["completed"]


async def test_a_detached_reply_whose_reader_comes_back_is_not_cut_short() -> None:
    bench = Bench(drain_s=0.05)
    gate = asyncio.Event()
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=gate, unheard="cancelled"))
    response_id, events = await begun(bench)
    await events.aclose()  # type: ignore[attr-defined]  # a generator
    reading = asyncio.create_task(resumed(bench, response_id))
    await asyncio.sleep(0.2)
    gate.set()
    assert isinstance((await reading)[-1][1], ReplyCompleted)
    await bench.check_books()


@pytest.mark.parametrize("leave", ["break", "exception", "cancellation"])
async def test_however_a_program_leaves_a_reply_it_ends_once(bench: Bench, leave: str) -> None:
    gate = asyncio.Event()
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=gate, usage=USAGE))

    async def talk() -> None:
        async with aclosing(bench.send_message.stream(Caller(), TextTurn("hi", user_id="ada"))) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    if leave == "break":
                        break
                    if leave == "exception":
                        raise RuntimeError("the program's own")
                    await asyncio.Event().wait()

    talking = asyncio.create_task(talk())
    await asyncio.sleep(0.01)
    if leave == "cancellation":
        talking.cancel()
    await asyncio.wait([talking])
    gate.set()
    assert [(entry.status, entry.usage) for entry in await bench.entries()] == [("completed", USAGE)]
    if leave == "exception":
        assert isinstance(talking.exception(), RuntimeError)
    await bench.check_books()
