"""What every `LedgerUpkeep` does: remove what is old, keep what somebody still needs, and leave books that balance."""

from datetime import UTC, date, datetime, timedelta

import pytest
from msgspec.structs import replace

from textllm_adapters.testing.books import next_turn, reservation, settlement, usd
from textllm_adapters.testing.storage import Auditing, Storage
from textllm_core.records.audit import Drift
from textllm_core.records.ledger import Hold
from textllm_core.records.sessions import day_of

# Later than any month that a storage has ready before it is asked.
JANUARY, FEBRUARY, MARCH, APRIL = (datetime(2101, month, 1, 0, 0, 0, tzinfo=UTC) for month in (1, 2, 3, 4))
LAST_OF_JANUARY = FEBRUARY - timedelta(microseconds=1)


async def _drifts(auditing: Auditing) -> list[Drift]:
    return [drift async for drift in auditing.audit.drifts()]


async def _turn(storage: Storage, at: datetime, conversation_id: str | None = None, user_id: str = "user") -> Hold:
    """A settled turn of that moment, in a new conversation where none is given."""
    asked = reservation(at=at, user_id=user_id)
    if conversation_id is not None:
        asked = await next_turn(storage, conversation_id, at=at, user_id=user_id)
    hold = await storage.ledger.reserve(asked)
    await storage.ledger.settle(hold, settlement(at=at))
    return hold


async def _days(storage: Storage, user_id: str = "user") -> list[date]:
    return [day_of(entry.created_at) for entry in await storage.ledger.entries("tenant", user_id)]


class LedgerUpkeepContract:
    """What every `LedgerUpkeep` does: remove what is old, keep what somebody still needs, and leave books that balance.

    Fixture `auditing`: an `Auditing` over an empty store, of this test alone.
    """

    pytestmark = pytest.mark.asyncio

    @pytest.mark.parametrize("is_prepared", [True, False])
    async def test_entries_and_sessions_of_days_before_go_and_all_later_ones_stay(
        self, auditing: Auditing, is_prepared: bool
    ) -> None:
        storage, upkeep = auditing.storage, auditing.storage.upkeep
        if is_prepared:
            await upkeep.prepare(at=JANUARY)
            await upkeep.prepare(at=JANUARY)  # once more is as good as once
        long = await _turn(storage, JANUARY)
        for at in (LAST_OF_JANUARY, FEBRUARY, MARCH):
            await _turn(storage, at, long.conversation_id)
        assert await upkeep.forget_entries(before=day_of(JANUARY), limit=9) == 0
        assert await upkeep.forget_entries(before=day_of(FEBRUARY), limit=9) == 2
        assert await upkeep.forget_sessions(before=day_of(FEBRUARY), limit=9) == 2
        assert await _days(storage) == [day_of(FEBRUARY), day_of(MARCH)]
        left = await storage.sessions.since("tenant", "user", day_of(JANUARY))
        assert [day_of(session.created_at) for session in left] == [day_of(MARCH), day_of(FEBRUARY)]
        used = await storage.reports.daily("tenant", "user", day_of(JANUARY))
        assert (len(used), sum(day.cost for day in used)) == (4, usd("1.00"))
        found = await storage.conversations.get("tenant", long.conversation_id)
        assert found is not None
        assert (found.message_count, found.total_cost) == (4, usd("1.00"))
        assert await storage.ledger.entry("tenant", long.response_id) is None
        await _turn(storage, APRIL, long.conversation_id)
        assert await _drifts(auditing) == []

    async def test_what_no_month_has_room_for_goes_in_steps(self, auditing: Auditing) -> None:
        storage, upkeep = auditing.storage, auditing.storage.upkeep
        for number in range(3):
            await _turn(storage, JANUARY, user_id=f"user{number}")
        assert [await upkeep.forget_entries(before=day_of(MARCH), limit=2) for _ in range(3)] == [2, 1, 0]
        assert [await upkeep.forget_sessions(before=day_of(MARCH), limit=2) for _ in range(3)] == [2, 1, 0]
        assert await _drifts(auditing) == []

    async def test_counters_of_the_time_before_may_say_more_than_what_is_left_but_never_less(
        self, auditing: Auditing
    ) -> None:
        storage, upkeep = auditing.storage, auditing.storage.upkeep
        old = await _turn(storage, JANUARY)
        running = await storage.ledger.reserve(await next_turn(storage, old.conversation_id, at=JANUARY))
        young = await _turn(storage, MARCH)
        assert await upkeep.forget_entries(before=day_of(MARCH), limit=9) == 1
        assert await _drifts(auditing) == []
        await auditing.move("conversations", "total_cost", usd("0.5"))
        await auditing.move("sessions", "total_tokens", 1)
        await auditing.move("sessions", "reserved", usd("0.5"))
        await auditing.move("daily_usage", "messages", 1)
        found = {(drift.table, drift.key.partition(" ")[0], drift.counter) for drift in await _drifts(auditing)}
        assert found == {
            ("conversations", young.conversation_id, "total_cost"),
            ("sessions", young.session_id, "total_tokens"),
            ("sessions", young.session_id, "reserved"),
            ("sessions", old.session_id, "reserved"),
            ("daily_usage", str(day_of(MARCH)), "messages"),
        }
        await auditing.audit.repair("tenant", "user")
        assert await _drifts(auditing) == []
        kept = await storage.conversations.get("tenant", old.conversation_id)
        assert kept is not None
        assert kept.total_cost == usd("0.75")
        await storage.ledger.settle(running, settlement(at=APRIL))
        assert await _drifts(auditing) == []
        await auditing.move("conversations", "total_cost", usd("-1"))
        assert {drift.counter for drift in await _drifts(auditing)} == {"total_cost"}
        assert len(await _drifts(auditing)) == 2
        await auditing.audit.repair("tenant", "user")
        assert await _drifts(auditing) == []

    async def test_a_session_stays_while_a_turn_of_its_day_runs_even_one_that_costs_nothing(
        self, auditing: Auditing
    ) -> None:
        storage, upkeep = auditing.storage, auditing.storage.upkeep
        await upkeep.prepare(at=JANUARY)
        hold = await storage.ledger.reserve(reservation(cost="0", at=JANUARY))
        hold = await storage.ledger.pend(hold, provider_response_id="theirs", model="gpt-4o")
        assert await upkeep.forget_sessions(before=day_of(MARCH), limit=9) == 0
        assert await upkeep.forget_entries(before=day_of(MARCH), limit=9) == 1
        assert await storage.ledger.settle(hold, settlement(cost="0.25", at=MARCH)) is not None
        assert await _days(storage) == [day_of(JANUARY)]  # it is whole, until the next time
        assert await _drifts(auditing) == []
        assert await upkeep.forget_sessions(before=day_of(MARCH), limit=9) == 1
        assert await storage.ledger.correct(hold, settlement(cost="0.5", at=MARCH)) is None
        assert await upkeep.forget_entries(before=day_of(MARCH), limit=9) == 1
        assert await _drifts(auditing) == []

    async def test_an_estimate_that_is_as_old_as_its_session_is_corrected_no_more(self, auditing: Auditing) -> None:
        storage, upkeep = auditing.storage, auditing.storage.upkeep
        hold = await storage.ledger.reserve(reservation(at=JANUARY))
        await storage.ledger.settle(hold, settlement(at=JANUARY, estimated=True, open_until=APRIL))
        assert await upkeep.forget_sessions(before=day_of(FEBRUARY), limit=9) == 1
        assert await storage.ledger.correct(hold, settlement(cost="0.5")) is None
        assert await upkeep.forget_entries(before=day_of(FEBRUARY), limit=9) == 1
        assert await storage.ledger.correct(hold, settlement(cost="0.5")) is None
        assert await _drifts(auditing) == []

    async def test_what_was_removed_once_is_told_for_ever(self, auditing: Auditing) -> None:
        storage, upkeep = auditing.storage, auditing.storage.upkeep
        await _turn(storage, JANUARY)
        assert await upkeep.forget_entries(before=day_of(MARCH), limit=9) == 1
        assert await upkeep.forget_entries(before=day_of(JANUARY), limit=9) == 0  # months are kept for longer now
        assert await _drifts(auditing) == []

    async def test_entries_whose_ids_say_no_time_are_removed_by_their_day(self, auditing: Auditing) -> None:
        storage, upkeep = auditing.storage, auditing.storage.upkeep
        for at in (JANUARY, MARCH):
            asked = replace(reservation(at=at), response_id=f"resp_{at.month:024x}")
            await storage.ledger.settle(await storage.ledger.reserve(asked), settlement(at=at))
        await upkeep.forget_entries(before=day_of(FEBRUARY), limit=9)
        assert day_of(MARCH) in await _days(storage)
        assert await _drifts(auditing) == []
