"""A process that ends cuts turns short wherever they are: nothing stays held, and nobody waits for ever."""

import asyncio
from collections.abc import Callable

import pytest
from tests.unit.conftest import Bench

from textllm_adapters.memory.ledger import MemoryLedger
from textllm_adapters.memory.llm import ScriptedReply
from textllm_adapters.memory.store import MemoryStore
from textllm_core import Caller, ReplyFailed, ReplyStarted, TextLLMError, TextTurn
from textllm_core.errors import ConversationBusyError, ProviderUnavailableError, ServiceUnavailableError
from textllm_core.records.journal import JournalEntry
from textllm_core.records.ledger import Hold, Reservation, Settled, Settlement


class Gated:
    """What the storage has begun to do, and when it may say that it is done."""

    def __init__(self) -> None:
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()
        self.refusal: TextLLMError | None = None

    async def pass_through(self) -> None:
        self.begun.set()
        await self.may_end.wait()
        if self.refusal is not None:
            raise self.refusal


def slow_to_reserve(gate: Gated) -> Callable[[MemoryStore], MemoryLedger]:
    class SlowLedger(MemoryLedger):
        async def reserve(self, reservation: Reservation) -> Hold:
            if gate.refusal is not None:
                await gate.pass_through()
            hold = await MemoryLedger.reserve(self, reservation)
            await gate.pass_through()
            return hold

    return SlowLedger


def slow_to_settle(gate: Gated) -> Callable[[MemoryStore], MemoryLedger]:
    class SlowLedger(MemoryLedger):
        async def settle(
            self, hold: Hold, settlement: Settlement, *, said: JournalEntry | None = None
        ) -> Settled | None:
            await gate.pass_through()
            return await MemoryLedger.settle(self, hold, settlement, said=said)

    return SlowLedger


async def let_go_on() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize("refusal", [None, ConversationBusyError()])
async def test_a_turn_cut_short_while_its_hold_is_placed_leaves_nothing_held(refusal: TextLLMError | None) -> None:
    gate = Gated()
    gate.refusal = refusal
    bench = Bench(ledger_type=slow_to_reserve(gate))
    asking = asyncio.create_task(bench.say("hi"))
    await gate.begun.wait()
    draining = asyncio.create_task(bench.running.drain(0))
    await let_go_on()
    gate.may_end.set()
    with pytest.raises(ProviderUnavailableError if refusal is None else type(refusal)):
        await asking
    await draining
    assert await bench.entries() == []
    assert bench.store.conversations == {}
    await bench.check_books()


async def test_turns_that_come_faster_than_they_can_start_wait_in_line_and_are_refused_in_the_end() -> None:
    gate = Gated()
    bench = Bench(ledger_type=slow_to_reserve(gate), max_starting=1, start_timeout_s=0.3)
    first = asyncio.create_task(bench.say("first"))
    await gate.begun.wait()
    with pytest.raises(ServiceUnavailableError, match="More turns came"):
        await bench.say("never")
    second = asyncio.create_task(bench.say("second"))
    await let_go_on()
    assert len(bench.store.holds) == 1
    gate.may_end.set()
    await asyncio.gather(first, second)
    assert len(await bench.entries()) == 2
    await bench.check_books()


async def test_a_turn_cut_short_before_its_first_step_is_refused(bench: Bench) -> None:
    asking = asyncio.create_task(bench.say("hi"))
    await asyncio.sleep(0)  # now its task is made, and has not run
    await bench.running.drain(0)
    async with asyncio.timeout(20):
        with pytest.raises(ProviderUnavailableError):
            await asking
    await bench.check_books()


async def test_a_reply_cancelled_again_and_again_while_it_is_settled_is_settled() -> None:
    gate = Gated()
    bench = Bench(ledger_type=slow_to_settle(gate))
    bench.llm.script(ScriptedReply(deltas=("Once", " upon"), gate=asyncio.Event(), unheard="cancelled"))
    events = bench.send_message.stream(Caller(), TextTurn("Tell me.", user_id="ada"))
    started = await anext(events)
    assert isinstance(started, ReplyStarted)
    running = bench.running.find("default", "ada", started.response_id)
    assert running is not None
    for _ in range(3):
        running.cancel()
        await gate.begun.wait()
        await let_go_on()
    gate.may_end.set()
    assert [event async for event in events]
    assert [entry.status for entry in await bench.entries()] == ["cancelled"]
    await bench.check_books()


@pytest.fixture
def other(bench: Bench) -> Bench:
    """Another process over the same database."""
    return Bench(store=bench.store, clock=bench.clock)


async def test_who_reads_in_a_process_that_ends_reads_on_in_another(bench: Bench, other: Bench) -> None:
    gate = asyncio.Event()
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=gate, unheard="cancelled"))
    events = bench.send_message.stream(Caller(), TextTurn("hi", user_id="ada", is_resumable=True))
    started = await anext(events)
    assert isinstance(started, ReplyStarted)
    resumed = await other.resume_reply(Caller(), started.response_id)
    assert await anext(resumed.events) == (1, started)
    other.running.refuse_new()
    async with asyncio.timeout(20):
        rest = [event async for event in resumed.events]
    assert not any(isinstance(event, ReplyFailed) for _, event in rest)
    gate.set()
    last = rest[-1][0] if rest else 1
    again = await bench.resume_reply(Caller(), started.response_id, after=last)
    numbers = [number async for number, _ in again.events]
    assert numbers == list(range(last + 1, 5))
    await bench.check_books()


async def test_who_cancels_through_a_process_that_ends_is_told_to_ask_again(bench: Bench, other: Bench) -> None:
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=asyncio.Event(), unheard="cancelled"))
    events = bench.send_message.stream(Caller(), TextTurn("hi", user_id="ada", is_resumable=True))
    started = await anext(events)
    assert isinstance(started, ReplyStarted)
    other.running.refuse_new()
    async with asyncio.timeout(20):
        with pytest.raises(ServiceUnavailableError):
            await other.cancel_reply(Caller(), started.response_id)
    assert [event async for event in events]
    await bench.check_books()
