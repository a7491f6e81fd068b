"""A stream whose model does not begin is begun without it; what comes of the turn is an event then."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pytest
from msgspec.structs import replace
from tests.unit.chat.test_reasoning import Hurried
from tests.unit.conftest import POLICY, Bench

from textllm_adapters.memory.llm import ScriptedReply
from textllm_adapters.memory.reply_journal import MemoryReplyJournal
from textllm_core import Caller, ReplyCompleted, ReplyEvent, ReplyFailed, ReplyStarted, TextDelta, TextTurn
from textllm_core.chat.chat_with_document import DocumentTurn
from textllm_core.errors import (
    ContentRefusedError,
    ContextTooLongError,
    ConversationBusyError,
    InvalidRequestError,
    NotFoundError,
    ProviderError,
    ProviderUnavailableError,
    StorageUnavailableError,
    TextLLMError,
    UnsupportedMediaTypeError,
)
from textllm_core.problem_details import problem_of_error
from textllm_core.records.journal import JournalEntry
from textllm_core.uploads import Upload

IMPATIENT = replace(POLICY, begin_within_s=0.0)
REFUSAL = ContentRefusedError()


@pytest.fixture
def bench() -> Bench:
    return Bench(policy=IMPATIENT)


class Beginning(asyncio.Event):
    """What a model waits for, and whether it does."""

    def __init__(self) -> None:
        super().__init__()
        self.is_awaited = asyncio.Event()

    async def wait(self) -> Literal[True]:
        self.is_awaited.set()
        return await super().wait()


async def waiting(
    bench: Bench, begins: Beginning, *, is_resumable: bool = True
) -> tuple[asyncio.Task[ReplyEvent], AsyncIterator[ReplyEvent]]:
    """A turn that was admitted, and whose model does not begin."""
    events = bench.send_message.stream(Caller(), TextTurn("hi", user_id="ada", is_resumable=is_resumable))
    first = asyncio.ensure_future(anext(events))
    await begins.is_awaited.wait()
    return first, events


async def test_a_stream_is_begun_before_its_model_and_told_once(bench: Bench) -> None:
    begins = Beginning()
    bench.llm.script(ScriptedReply(deltas=("a", "b"), begins=begins))
    first, events = await waiting(bench, begins)
    assert not first.done()
    await bench.exchange.writer.write()
    started = await first
    assert isinstance(started, ReplyStarted)
    assert started.model == "gpt-4o"
    begins.set()
    rest = [event async for event in events]
    assert [type(event) for event in rest] == [TextDelta, TextDelta, ReplyCompleted]
    other = Bench(store=bench.store, clock=bench.clock)
    resumption = await other.resume_reply(Caller(), started.response_id)
    assert [event async for _, event in resumption.events] == [started, *rest]
    await bench.check_books()


def test_a_stream_whose_files_took_their_time_to_be_read_is_begun_at_once() -> None:
    async def slow() -> AsyncIterator[bytes]:
        await asyncio.sleep(11)
        yield b"Tea is at five."

    async def ask() -> ReplyEvent:
        bench, begins = Bench(policy=replace(POLICY, begin_within_s=10.0)), Beginning()
        bench.llm.script(ScriptedReply(begins=begins))
        turn = DocumentTurn("Well?", Upload("a.txt", 15, slow), is_resumable=True)
        events = bench.chat_with_document.stream(Caller(user_id="ada", role="user"), turn)
        first = asyncio.ensure_future(anext(events))
        await begins.is_awaited.wait()
        await bench.exchange.writer.write()
        async with asyncio.timeout(1):
            started = await first
        begins.set()
        await bench.running.drain(1)
        return started

    with asyncio.Runner(loop_factory=Hurried) as runner:
        assert isinstance(runner.run(ask()), ReplyStarted)


async def test_another_process_reads_it_on_before_the_model_has_begun(bench: Bench) -> None:
    begins = Beginning()
    bench.llm.script(ScriptedReply(deltas=("a",), begins=begins))
    first, _events = await waiting(bench, begins)
    await bench.exchange.writer.write()
    started = await first
    assert isinstance(started, ReplyStarted)
    other = Bench(store=bench.store, clock=bench.clock)
    resumption = await other.resume_reply(Caller(), started.response_id)
    assert resumption.started == started
    begins.set()
    assert isinstance([event async for _, event in resumption.events][-1], ReplyCompleted)


REFUSALS = (
    REFUSAL,
    ContextTooLongError("17 tokens do not fit"),
    InvalidRequestError.of("temperature", "must be at most 2"),
    UnsupportedMediaTypeError("This model reads no images."),
    ProviderError("The provider knows no model of this name.", may_have_run=False),
    ProviderUnavailableError("The provider answers 429.", may_have_run=False, retry_after_s=17),
    ConversationBusyError(retry_after_s=9),
)


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.code)
async def test_another_process_tells_why_a_turn_was_refused_after_its_stream_had_begun(
    bench: Bench, refusal: TextLLMError
) -> None:
    begins = Beginning()
    bench.llm.script(ScriptedReply(begins=begins, error=refusal))
    first, events = await waiting(bench, begins)
    await bench.exchange.writer.write()
    started = await first
    assert isinstance(started, ReplyStarted)
    other = Bench(store=bench.store, clock=bench.clock)
    resumption = await other.resume_reply(Caller(), started.response_id)
    begins.set()
    number, end = [numbered async for numbered in resumption.events][-1]
    told = [event async for event in events][-1]
    assert isinstance(end, ReplyFailed)
    assert isinstance(told, ReplyFailed)
    assert type(told.error) is type(refusal)
    assert (number, end.response_id, problem_of_error(end.error)) == (2, told.response_id, problem_of_error(told.error))
    await bench.running.drain(1)
    with pytest.raises(type(refusal)) as later:
        await other.resume_reply(Caller(), started.response_id)
    assert problem_of_error(later.value) == problem_of_error(told.error)


@pytest.mark.parametrize("is_early", [False, True])
async def test_a_refusal_is_an_event_once_the_stream_is_begun_and_leaves_nothing(bench: Bench, is_early: bool) -> None:
    begins = Beginning()
    bench.llm.script(ScriptedReply(begins=begins, error=REFUSAL))
    first, events = await waiting(bench, begins)
    if is_early:
        await bench.exchange.writer.write()
        started = await first
        assert isinstance(started, ReplyStarted)
        begins.set()
        assert [event async for event in events] == [ReplyFailed(started.response_id, REFUSAL)]
        await bench.running.drain(1)
        with pytest.raises(NotFoundError):
            await bench.resume_reply(Caller(user_id="bob"), started.response_id)
        with pytest.raises(ContentRefusedError):  # for as long as a reply can be read on
            await bench.resume_reply(Caller(), started.response_id)
    else:
        begins.set()
        with pytest.raises(ContentRefusedError):
            await first
    await bench.check_books()
    assert bench.store.spoken == {}
    assert bench.store.conversations == {}


async def test_what_nobody_can_resume_waits_for_its_model(bench: Bench) -> None:
    begins = Beginning()
    bench.llm.script(ScriptedReply(begins=begins, error=REFUSAL))
    first, _ = await waiting(bench, begins, is_resumable=False)
    await bench.exchange.writer.write()
    begins.set()
    with pytest.raises(ContentRefusedError):
        await first


@dataclass(frozen=True)
class SlowJournal(MemoryReplyJournal):
    """Takes what it is given first once it may, or loses it."""

    is_lost: bool
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    may: asyncio.Event = field(default_factory=asyncio.Event)

    async def write(self, entries: Sequence[JournalEntry]) -> None:
        if not self.asked.is_set():
            self.asked.set()
            await self.may.wait()
            if self.is_lost:
                raise StorageUnavailableError
        await super().write(entries)


@pytest.mark.parametrize("is_lost", [False, True])
@pytest.mark.parametrize("refusal", [None, REFUSAL])
async def test_a_model_that_begins_or_refuses_while_the_first_event_is_being_written_is_told_once(
    bench: Bench, is_lost: bool, refusal: ContentRefusedError | None
) -> None:
    begins = Beginning()
    bench.llm.script(ScriptedReply(deltas=("a",), begins=begins, error=refusal))
    bench.exchange.writer.journal = journal = SlowJournal(bench.store, is_lost)
    first, events = await waiting(bench, begins)
    writing = asyncio.create_task(bench.exchange.writer.write())
    await journal.asked.wait()
    begins.set()
    await asyncio.sleep(0.01)
    assert not first.done()
    journal.may.set()
    await writing
    if refusal is not None and is_lost:
        with pytest.raises(ContentRefusedError):
            await first
    else:
        kinds = [type(await first), *[type(event) async for event in events]]
        assert kinds == ([ReplyStarted, TextDelta, ReplyCompleted] if refusal is None else [ReplyStarted, ReplyFailed])
    await bench.check_books()
    assert bool(bench.store.spoken) == (refusal is None)
