"""Transcripts that are made ahead: never for two, never too many, and none is left behind."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from textllm_adapters.memory.erasures import MemoryErasures
from textllm_adapters.memory.store import MemoryStore
from textllm_adapters.memory.transcript import MemoryTranscript
from textllm_adapters.testing.models import user
from textllm_core.erasing import EraseAtProvider
from textllm_core.errors import ProviderUnavailableError, StorageUnavailableError
from textllm_core.ready_transcripts import ReadyTranscripts
from textllm_core.records.erasures import Erasure

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
MOST = 3


@dataclass(slots=True)
class Hands:
    """A clock to be set."""

    at: datetime = NOON

    def now(self) -> datetime:
        return self.at


class Provider(MemoryTranscript):
    """It can be told to be down."""

    is_down = False

    async def create(self, messages: Sequence[object], **more: object) -> str:
        if self.is_down:
            raise ProviderUnavailableError("down", may_have_run=False)
        return await super().create(messages, **more)  # type: ignore[arg-type]  # as they are given


@dataclass(frozen=True, slots=True)
class Listed(MemoryErasures):
    """A list that can be out."""

    outage: asyncio.Event = field(default_factory=asyncio.Event)

    async def foresee(self, erasures: Sequence[Erasure], *, at: datetime) -> None:
        if self.outage.is_set():
            raise StorageUnavailableError("out", storage="database")
        await MemoryErasures.foresee(self, erasures, at=at)


@dataclass(slots=True)
class Bench:
    clock: Hands = field(default_factory=Hands)
    store: MemoryStore = field(default_factory=MemoryStore)
    provider: Provider = field(default_factory=Provider)
    erasures: Listed = field(init=False)
    ready: ReadyTranscripts = field(init=False)

    def __post_init__(self) -> None:
        self.erasures = Listed(self.store)
        self.ready = ReadyTranscripts(self.provider, self.erasures, self.clock, most=MOST)

    async def take(self) -> str:
        """One for a turn, which then keeps it."""
        return await self.ready.create(())

    @property
    def listed(self) -> set[str]:
        return {kept.erasure.provider_id for kept in self.store.erasures.values()}

    async def erase_due(self) -> None:
        await EraseAtProvider(self.erasures, self.provider, self.clock)()


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)


async def test_none_is_made_before_the_first_is_needed_and_then_one_is_at_hand(bench: Bench) -> None:
    async with bench.ready.kept():
        assert not bench.provider.ids
        first = await bench.take()
        await until(lambda: len(bench.provider.ids) == 2 and bool(bench.listed))
        (ahead,) = bench.provider.ids - {first}
        assert bench.listed == {ahead}
        bench.provider.is_down = True  # who gets one at hand asks nobody
        assert await bench.take() == ahead


async def test_no_two_get_the_same_and_only_as_many_as_allowed_are_made_ahead(bench: Bench) -> None:
    async with bench.ready.kept():
        taken: list[str] = []
        for made in (8, 16, 24):
            taken += await asyncio.gather(*(bench.take() for _ in range(8)))
            await until(lambda made=made: len(bench.provider.ids) == made + MOST)  # type: ignore[misc]  # bound now
        assert len(set(taken)) == 24
        assert len(bench.provider.ids) == 24 + MOST
    assert bench.provider.ids == set(taken)


async def test_one_with_messages_is_made_for_them(bench: Bench) -> None:
    async with bench.ready.kept():
        await bench.take()
        await until(lambda: bool(bench.listed))
        made = await bench.ready.create([user("Hello")])
        assert made not in bench.listed
        assert [message.text for message in await bench.ready.messages(made)] == ["Hello"]


async def test_what_was_taken_is_struck_off_the_list_and_stays(bench: Bench) -> None:
    async with bench.ready.kept():
        await bench.take()
        await until(lambda: bool(bench.listed))
        taken = await bench.take()
        assert taken in bench.listed  # until the turn has surely written down that it has it
        await until(lambda: len(bench.listed) == 2)
        bench.clock.at += timedelta(minutes=1)
        await bench.ready.tidy()
        assert taken not in bench.listed
        bench.clock.at += timedelta(hours=2)
        await bench.erase_due()
        assert taken in bench.provider.ids


async def test_what_nobody_takes_is_given_up_in_time(bench: Bench) -> None:
    async with bench.ready.kept():
        first = await bench.take()
        await until(lambda: bool(bench.listed))
        bench.clock.at += timedelta(minutes=10)
        await bench.ready.tidy()
        assert (bench.provider.ids, bench.listed) == ({first}, set())


async def test_one_that_has_aged_is_not_handed_out(bench: Bench) -> None:
    async with bench.ready.kept():
        await bench.take()
        await until(lambda: bool(bench.listed))
        (ahead,) = bench.listed
        bench.clock.at += timedelta(minutes=10)
        assert await bench.take() != ahead


async def test_the_end_leaves_what_was_taken_and_nothing_else(bench: Bench) -> None:
    async with bench.ready.kept():
        taken = {await bench.take()}
        await until(lambda: bool(bench.listed))
        taken.add(await bench.take())
    assert (bench.provider.ids, bench.listed) == (taken, set())
    assert await bench.take() in bench.provider.ids  # without being kept it makes none ahead
    assert not bench.listed


async def test_what_a_process_that_died_had_at_hand_is_erased_by_another(bench: Bench) -> None:
    async with bench.ready.kept():
        first = await bench.take()
        await until(lambda: bool(bench.listed))
        bench.clock.at += timedelta(minutes=29)
        await bench.erase_due()
        assert len(bench.provider.ids) == 2
        bench.clock.at += timedelta(minutes=1)
        await bench.erase_due()
        assert (bench.provider.ids, bench.listed) == ({first}, set())


async def test_none_is_at_hand_that_could_not_be_listed(bench: Bench) -> None:
    bench.erasures.outage.set()
    async with bench.ready.kept():
        first = await bench.take()
        await bench.ready.tidy()
        assert (bench.provider.ids, bench.listed) == ({first}, set())
        bench.erasures.outage.clear()
        await bench.take()
        await until(lambda: bool(bench.listed))


async def test_a_provider_that_is_down_keeps_nothing_from_going_on(bench: Bench) -> None:
    async with bench.ready.kept():
        await bench.take()
        bench.provider.is_down = True
        await bench.ready.tidy()
        with pytest.raises(ProviderUnavailableError):
            await bench.take()
        bench.provider.is_down = False
        await bench.ready.tidy()
        await bench.take()
        await until(lambda: bool(bench.listed))


async def test_what_is_ready_is_no_erasure_that_waits(bench: Bench) -> None:
    async with bench.ready.kept():
        await bench.take()
        await until(lambda: bool(bench.listed))
        waiting = await bench.erasures.waiting()
        assert (waiting.pending, waiting.failing) == (0, 0)


async def test_none_is_given_that_was_erased_because_the_clock_was_set_back(bench: Bench) -> None:
    async with bench.ready.kept():
        await bench.take()
        await until(lambda: bool(bench.listed))
        bench.clock.at -= timedelta(hours=5)
        await bench.erase_due()  # it is listed as put off by a wrong clock
        assert await bench.take() in bench.provider.ids


async def test_what_was_made_before_the_clock_was_set_back_is_given_up(bench: Bench) -> None:
    async with bench.ready.kept():
        first = await bench.take()
        await until(lambda: bool(bench.listed))
        bench.clock.at -= timedelta(hours=5)
        await bench.ready.tidy()
        assert (bench.provider.ids, bench.listed) == ({first}, set())


async def test_what_was_taken_before_the_clock_was_set_back_stays(bench: Bench) -> None:
    async with bench.ready.kept():
        await bench.take()
        await until(lambda: bool(bench.listed))
        taken = await bench.take()
        bench.clock.at -= timedelta(hours=5)
        await bench.ready.tidy()
        await bench.erase_due()
        assert taken in bench.provider.ids
