"""What every journal of running replies keeps, gives back, and forgets."""

from datetime import timedelta

import pytest

from textllm_adapters.testing.books import NOON, reservation, settlement
from textllm_adapters.testing.storage import Storage
from textllm_core.records.hosted import HostedItem, ToolStep
from textllm_core.records.journal import JournalEntry, JournalPage, RefusedEnd, Spoken
from textllm_core.records.ledger import Hold
from textllm_core.records.messages import ReplyStarted, TextDelta
from textllm_core.records.thoughts import Reasoning, Thought, ThoughtDelta

AWKWARD = 'line\r\nbreak \0 \u2028 👩🏽‍🚀 "quoted"'


async def running(storage: Storage, *, user_id: str = "user", is_resumable: bool = True) -> Hold:
    return await storage.ledger.reserve(reservation(user_id=user_id, is_resumable=is_resumable))


def started(hold: Hold) -> ReplyStarted:
    return ReplyStarted(hold.response_id, hold.conversation_id, hold.user_id, hold.session_id, hold.model)


async def read(storage: Storage, hold: Hold, *, after: int = 0, user_id: str | None = None) -> JournalPage:
    page = await storage.journal.read("tenant", user_id, hold.response_id, after=after)
    assert page is not None
    return page


async def write(storage: Storage, hold: Hold, first: int, *events: Spoken) -> None:
    await storage.journal.write([JournalEntry(hold, first, events)])


class ReplyJournalContract:
    """What every journal of running replies keeps, gives back, and forgets.

    Fixture `storage`: a `Storage` over an empty store, of this test alone.
    """

    pytestmark = pytest.mark.asyncio

    async def test_what_is_written_is_read_from_any_number_on(self, storage: Storage) -> None:
        hold = await running(storage)
        said: list[Spoken] = [started(hold), TextDelta("a"), TextDelta(AWKWARD), TextDelta("c"), TextDelta("d", True)]
        said += [ThoughtDelta("Hm."), Thought(Reasoning(made_by="a/", content="{}"))]
        await write(storage, hold, 1, *said[:3])
        await write(storage, hold, 4, *said[3:])
        for after in range(9):
            page = await read(storage, hold, after=after)
            assert (page.user_id, list(page.events), page.end) == ("user", said[after:], None)

    async def test_what_tools_of_the_providers_do_is_kept_between_the_texts(self, storage: Storage) -> None:
        hold = await running(storage)
        item = HostedItem({"id": "ws_1", "type": "web_search_call", "action": {"query": AWKWARD, "sources": []}})
        begun, done = ToolStep(HostedItem({"id": "ws_1", "type": "web_search_call"}), False), ToolStep(item, True)
        await write(storage, hold, 1, started(hold), begun, TextDelta("a"), done)
        assert (await read(storage, hold, after=1)).events == (begun, TextDelta("a"), done)

    async def test_one_write_may_be_of_many_exchanges(self, storage: Storage) -> None:
        holds = [await running(storage, user_id=f"user{n}") for n in range(3)]
        await storage.journal.write([JournalEntry(hold, 1, (TextDelta(hold.user_id),)) for hold in holds])
        for hold in holds:
            assert (await read(storage, hold)).events == (TextDelta(hold.user_id),)

    async def test_a_write_whose_commit_was_cut_off_is_made_again_with_what_came_since(self, storage: Storage) -> None:
        hold = await running(storage)
        await write(storage, hold, 1, started(hold), TextDelta("a"))
        await write(storage, hold, 1, started(hold), TextDelta("a"), TextDelta("b"))
        assert (await read(storage, hold, after=1)).events == (TextDelta("a"), TextDelta("b"))

    async def test_the_end_comes_with_the_settlement(self, storage: Storage) -> None:
        hold = await running(storage)
        await write(storage, hold, 1, started(hold), TextDelta("a"))
        settled = await storage.ledger.settle(hold, settlement(remembered=b'{"said": "a"}', end_number=3))
        assert settled is not None
        page = await read(storage, hold, after=2)
        assert page.events == ()
        assert page.end is not None
        assert (page.end.number, page.end.replay.remembered) == (3, b'{"said": "a"}')
        assert (page.end.replay.message_number, page.end.replay.spent) == (settled.message_number, settled.spent)

    async def test_the_first_event_comes_with_the_entry_and_the_last_ones_with_the_settlement(
        self, storage: Storage
    ) -> None:
        hold = await running(storage)
        first, rest = started(hold), (TextDelta("a"), TextDelta(AWKWARD))
        for _ in range(2):  # as after a commit that was cut off
            await storage.ledger.pend(
                hold, provider_response_id="theirs", model="m", said=JournalEntry(hold, 1, (first,))
            )
        assert (await read(storage, hold)).events == (first,)
        await write(storage, hold, 2, rest[0])  # whose commit was cut off, so that the settlement has it, too
        await storage.ledger.settle(hold, settlement(remembered=b"{}", end_number=4), said=JournalEntry(hold, 2, rest))
        page = await read(storage, hold)
        assert page.events == (first, *rest)
        assert page.end is not None

    async def test_an_exchange_that_is_over_takes_no_more_events(self, storage: Storage) -> None:
        settled, released = [await running(storage, user_id=f"user{n}") for n in range(2)]
        await storage.ledger.settle(settled, settlement(remembered=b"{}"))
        await storage.ledger.release(released)
        for hold in (settled, released):
            late = JournalEntry(hold, 1, (started(hold),))
            await storage.ledger.pend(hold, provider_response_id="theirs", model="m", said=late)
            assert await storage.ledger.settle(hold, settlement(), said=late) is None
            again = await storage.ledger.reserve(reservation(response_id=hold.response_id, is_resumable=True))
            assert (await read(storage, again)).events == ()

    @pytest.mark.parametrize("is_forgotten", [False, True])
    async def test_a_correction_brings_what_is_missing_where_the_end_is_kept(
        self, storage: Storage, is_forgotten: bool
    ) -> None:
        hold = await running(storage)
        first, rest = started(hold), JournalEntry(hold, 2, (TextDelta("a"), TextDelta("b")))
        await storage.ledger.pend(hold, provider_response_id="theirs", model="m", said=JournalEntry(hold, 1, (first,)))
        await storage.ledger.settle(hold, settlement(remembered=b"{}", estimated=True, end_number=9))
        if is_forgotten:
            await storage.journal.forget(before=NOON + timedelta(days=1), limit=9)
        assert (
            await storage.ledger.correct(hold, settlement(remembered=b'{"n":1}', end_number=4), said=rest) is not None
        )
        if is_forgotten:
            again = await storage.ledger.reserve(reservation(response_id=hold.response_id, is_resumable=True))
            assert (await read(storage, again)).events == ()
        else:
            page = await read(storage, hold)
            assert page.events == (first, *rest.events)
            assert page.end is not None
            assert page.end.number == 4

    @pytest.mark.parametrize("response_id", ["", "\0", "resp_\0", "\ud800", "r" * 5000])
    async def test_an_id_that_no_exchange_could_have_has_none(self, storage: Storage, response_id: str) -> None:
        await running(storage)
        assert await storage.journal.read("tenant", None, response_id, after=0) is None
        await storage.journal.ask_to_cancel("tenant", "user", response_id)
        assert await storage.journal.asked_to_cancel() == []

    async def test_it_is_there_for_its_owner_alone(self, storage: Storage) -> None:
        hold = await running(storage)
        await write(storage, hold, 1, started(hold))
        for is_over in (False, True):
            if is_over:
                await storage.ledger.settle(hold, settlement(remembered=b"{}"))
            assert await storage.journal.read("other", None, hold.response_id, after=0) is None
            assert await storage.journal.read("tenant", "other", hold.response_id, after=0) is None
            assert await storage.journal.read("tenant", None, "resp_unknown", after=0) is None
            assert len((await read(storage, hold, user_id="user")).events) == 1

    @pytest.mark.parametrize("is_settled", [False, True])
    async def test_an_exchange_that_is_not_resumable_has_no_journal(self, storage: Storage, is_settled: bool) -> None:
        hold = await running(storage, is_resumable=False)
        if is_settled:
            await storage.ledger.settle(hold, settlement(remembered=b"{}"))
        assert await storage.journal.read("tenant", None, hold.response_id, after=0) is None

    async def test_a_released_exchange_has_none_any_more(self, storage: Storage) -> None:
        hold = await running(storage)
        await write(storage, hold, 1, started(hold))
        await storage.ledger.release(hold)
        assert await storage.journal.read("tenant", None, hold.response_id, after=0) is None
        again = await storage.ledger.reserve(reservation(response_id=hold.response_id, is_resumable=True))
        assert (await read(storage, again)).events == ()

    async def test_of_a_released_exchange_that_was_begun_its_end_is_kept_for_a_while(self, storage: Storage) -> None:
        begun, silent = [await running(storage, user_id=f"user{n}") for n in range(2)]
        await write(storage, begun, 1, started(begun))
        end = RefusedEnd(number=2, remembered=b'{"why": "not"}', at=NOON)
        for hold in (begun, silent):
            await storage.ledger.release(hold, end=end)
        page = await read(storage, begun)
        assert page.events == ()
        assert page.end is not None
        assert (page.end.number, page.end.replay.remembered) == (2, b'{"why": "not"}')
        assert await storage.journal.read("tenant", None, silent.response_id, after=0) is None
        assert await storage.journal.forget(before=NOON + timedelta(seconds=1), limit=9) == 1
        assert await storage.journal.read("tenant", None, begun.response_id, after=0) is None

    async def test_what_ended_long_ago_is_forgotten_and_nothing_else(self, storage: Storage) -> None:
        old, new, live = [await running(storage, user_id=f"user{n}") for n in range(3)]
        for hold in (old, new, live):
            await write(storage, hold, 1, started(hold))
        await storage.ledger.settle(old, settlement(remembered=b"{}", at=NOON))
        await storage.ledger.settle(new, settlement(remembered=b"{}", at=NOON + timedelta(seconds=1)))
        before = NOON + timedelta(seconds=1)
        assert [await storage.journal.forget(before=before, limit=1) for _ in range(2)] == [1, 0]
        assert await storage.journal.read("tenant", None, old.response_id, after=0) is None
        assert (await read(storage, new)).events == (started(new),)
        assert (await read(storage, live)).events == (started(live),)

    async def test_a_watcher_is_believed_until_it_said(self, storage: Storage) -> None:
        hold = await running(storage)
        assert not await storage.journal.is_watched(hold, at=NOON)
        await storage.journal.watch("tenant", "user", hold.response_id, until=NOON + timedelta(seconds=5))
        assert await storage.journal.is_watched(hold, at=NOON + timedelta(seconds=4))
        assert not await storage.journal.is_watched(hold, at=NOON + timedelta(seconds=5))
        await storage.ledger.settle(hold, settlement(remembered=b"{}"))
        assert not await storage.journal.is_watched(hold, at=NOON)

    async def test_a_cancellation_is_asked_of_a_running_exchange_of_its_owner(self, storage: Storage) -> None:
        hold, other = await running(storage), await running(storage, user_id="other")
        for tenant, user in (("tenant", "other"), ("other", "user")):
            await storage.journal.ask_to_cancel(tenant, user, hold.response_id)
        assert await storage.journal.asked_to_cancel() == []
        for _ in range(2):
            await storage.journal.ask_to_cancel("tenant", "user", hold.response_id)
        assert await storage.journal.asked_to_cancel() == [("tenant", "user", hold.response_id)]
        await storage.ledger.settle(hold, settlement(remembered=b"{}"))
        await storage.journal.ask_to_cancel("tenant", "user", hold.response_id)
        assert await storage.journal.asked_to_cancel() == []
        await storage.ledger.release(other)

    async def test_a_conversation_that_is_erased_takes_its_journals_along(self, storage: Storage) -> None:
        hold, other = await running(storage), await running(storage)
        for each in (hold, other):
            await write(storage, each, 1, started(each), TextDelta("a secret"))
            await storage.ledger.settle(each, settlement(remembered=b"{}"))
        await storage.conversations.erase("tenant", "user", hold.conversation_id, at=NOON, remembered=b"{}")
        assert await storage.journal.read("tenant", None, hold.response_id, after=0) is None
        assert len((await read(storage, other)).events) == 2
