"""What every repository of sessions keeps of the port `SessionRepository`."""

import asyncio
from datetime import timedelta

import pytest
from msgspec.structs import replace

from textllm_adapters.testing.books import NOON, TODAY, assert_balanced, reservation, settlement, usd
from textllm_adapters.testing.storage import Storage
from textllm_core.errors import BudgetExceededError
from textllm_core.records.sessions import Session


class SessionRepositoryContract:
    """What every repository of sessions keeps of the port `SessionRepository`.

    Fixture `storage`: a `Storage` over an empty store, of this test alone.
    """

    pytestmark = pytest.mark.asyncio

    async def test_a_session_is_found_by_id_and_by_day(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        later = NOON + timedelta(minutes=1)
        await storage.ledger.settle(hold, settlement(at=later))
        session = Session(
            id=hold.session_id,
            user_id="user",
            created_at=NOON,
            last_activity=later,
            total_tokens=120,
            total_cost=usd("0.25"),
            conversation_count=1,
            is_active=True,
        )
        assert await storage.sessions.get("tenant", hold.session_id) == session
        assert await storage.sessions.of_day("tenant", "user", TODAY) == session

    async def test_it_says_how_much_of_its_cost_is_an_estimate(self, storage: Storage) -> None:
        for model, cost, estimated in (("a", "0.25", True), ("b", "0.5", True), ("a", "1", False)):
            hold = await storage.ledger.reserve(reservation())
            await storage.ledger.settle(hold, settlement(model=model, cost=cost, estimated=estimated))
        other = await storage.ledger.reserve(reservation(user_id="other"))
        await storage.ledger.settle(other, settlement(estimated=True))
        session = await storage.sessions.end("tenant", "user", hold.session_id)
        assert session is not None
        assert (session.total_cost, session.estimated_cost) == (usd("1.75"), usd("0.75"))
        assert await storage.sessions.of_day("tenant", "user", TODAY) == session
        assert await storage.sessions.since("tenant", "user", TODAY) == [session]
        assert await storage.sessions.get("tenant", session.id) == session

    async def test_each_user_has_one_session_a_day(self, storage: Storage) -> None:
        holds = [
            await storage.ledger.reserve(reservation(user_id=user, at=NOON + timedelta(days=days)))
            for user in ("user", "other")
            for days in (0, 0, 1)
        ]
        assert len({hold.session_id for hold in holds}) == 4

    async def test_a_day_without_turns_has_no_session(self, storage: Storage) -> None:
        await storage.ledger.reserve(reservation())
        assert await storage.sessions.of_day("tenant", "user", TODAY + timedelta(days=1)) is None
        assert await storage.sessions.of_day("tenant", "user", TODAY - timedelta(days=1)) is None

    async def test_nobody_sees_the_session_of_another_tenant(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        assert await storage.sessions.get("other", hold.session_id) is None
        assert await storage.sessions.get("tenant", hold.session_id, user_id="other") is None
        assert await storage.sessions.get("tenant", hold.session_id, user_id="user") is not None
        assert await storage.sessions.of_day("other", "user", TODAY) is None

    @pytest.mark.parametrize("session_id", ["sess_never_made", "", "sess_\0", "sess_\ud800"])
    async def test_what_does_not_exist_is_nothing(self, storage: Storage, session_id: str) -> None:
        assert await storage.sessions.get("tenant", session_id) is None

    async def test_sessions_since_a_day_come_newest_first(self, storage: Storage) -> None:
        for days in (0, 2, 1, 4):
            await storage.ledger.reserve(reservation(at=NOON - timedelta(days=days)))
        await storage.ledger.reserve(reservation(user_id="other"))
        await storage.ledger.reserve(reservation(tenant_id="other"))
        sessions = await storage.sessions.since("tenant", "user", TODAY - timedelta(days=2))
        assert [session.created_at for session in sessions] == [NOON - timedelta(days=days) for days in (0, 1, 2)]
        assert await storage.sessions.since("tenant", "user", TODAY + timedelta(days=1)) == []

    async def test_an_ended_session_is_inactive_and_otherwise_what_it_was(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        await storage.ledger.settle(hold, settlement())
        before = await storage.sessions.get("tenant", hold.session_id)
        assert before is not None
        ended = replace(before, is_active=False)
        for _ in range(2):
            assert await storage.sessions.end("tenant", "user", hold.session_id) == ended
        assert await storage.sessions.of_day("tenant", "user", TODAY) == ended

    async def test_an_ended_session_reopens_with_the_next_turn_of_its_day_and_the_day_stays_spent(
        self,
        storage: Storage,
    ) -> None:
        hold = await storage.ledger.reserve(reservation())
        await storage.ledger.settle(hold, settlement(cost="0.75"))
        await storage.sessions.end("tenant", "user", hold.session_id)
        with pytest.raises(BudgetExceededError):
            await storage.ledger.reserve(reservation(cost="0.5", limit="1"))
        session = await storage.sessions.get("tenant", hold.session_id)
        assert session is not None
        assert not session.is_active
        again = await storage.ledger.reserve(reservation(cost="0.25", limit="1"))
        session = await storage.sessions.get("tenant", hold.session_id)
        assert session is not None
        assert (again.session_id, session.is_active) == (hold.session_id, True)

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["the first one first", "the last one first"])
    async def test_turns_of_an_ended_session_that_are_all_released_leave_it_ended(
        self, storage: Storage, order: tuple[int, int]
    ) -> None:
        first = await storage.ledger.reserve(reservation())
        await storage.ledger.settle(first, settlement())
        await storage.sessions.end("tenant", "user", first.session_id)
        refused = [await storage.ledger.reserve(reservation(at=NOON + timedelta(minutes=at))) for at in (1, 2)]
        for number in order:
            await storage.ledger.release(refused[number])
        session = await storage.sessions.get("tenant", first.session_id)
        assert session is not None
        assert not session.is_active

    @pytest.mark.parametrize("released", ["before", "after", "both"])
    @pytest.mark.parametrize("times", [1, 2])
    async def test_a_turn_that_began_before_the_end_keeps_no_session_active(
        self, storage: Storage, released: str, times: int
    ) -> None:
        """Whatever comes of it, and in whatever order: a turn that was refused leaves no trace."""
        older = await storage.ledger.reserve(reservation())
        for _ in range(times):
            await storage.sessions.end("tenant", "user", older.session_id)
            refused = await storage.ledger.reserve(reservation(at=NOON + timedelta(minutes=1)))
        if released == "before":
            await storage.ledger.release(refused)
        if released == "both":
            await storage.ledger.release(older)
        else:
            await storage.ledger.settle(older, settlement(at=NOON + timedelta(minutes=2)))
        if released != "before":
            await storage.ledger.release(refused)
        session = await storage.sessions.get("tenant", older.session_id)
        is_gone = released == "both" and times == 1
        assert (session is None, session is not None and session.is_active) == (is_gone, False)

    async def test_so_do_turns_that_come_and_are_released_at_once(self, storage: Storage) -> None:
        first = await storage.ledger.reserve(reservation())
        await storage.ledger.settle(first, settlement())
        await storage.sessions.end("tenant", "user", first.session_id)
        for minutes in range(1, 11):
            turns = [reservation(at=NOON + timedelta(minutes=minutes, milliseconds=of)) for of in range(4)]
            refused = await asyncio.gather(*map(storage.ledger.reserve, turns))
            await asyncio.gather(*map(storage.ledger.release, refused))
            session = await storage.sessions.get("tenant", first.session_id)
            assert session is not None
            assert not session.is_active

    async def test_a_turn_that_comes_to_its_end_reopens_an_ended_session_whatever_is_released_after_it(
        self, storage: Storage
    ) -> None:
        first = await storage.ledger.reserve(reservation())
        await storage.ledger.settle(first, settlement())
        await storage.sessions.end("tenant", "user", first.session_id)
        refused = await storage.ledger.reserve(reservation(at=NOON + timedelta(minutes=1)))
        turn = await storage.ledger.reserve(reservation(at=NOON + timedelta(minutes=2)))
        await storage.ledger.settle(turn, settlement(at=NOON + timedelta(minutes=3)))
        await storage.ledger.release(refused)
        session = await storage.sessions.get("tenant", first.session_id)
        assert session is not None
        assert session.is_active

    async def test_a_turn_that_runs_while_its_session_ends_is_settled_all_the_same(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        await storage.sessions.end("tenant", "user", hold.session_id)
        await storage.ledger.settle(hold, settlement())
        session = await storage.sessions.get("tenant", hold.session_id)
        assert session is not None
        assert (session.total_cost, session.is_active) == (usd("0.25"), False)
        await assert_balanced(storage)

    @pytest.mark.parametrize(("tenant_id", "user_id"), [("other", "user"), ("tenant", "other"), ("tenant", "\0")])
    async def test_nobody_ends_the_session_of_another(self, storage: Storage, tenant_id: str, user_id: str) -> None:
        hold = await storage.ledger.reserve(reservation())
        assert await storage.sessions.end(tenant_id, user_id, hold.session_id) is None
        session = await storage.sessions.get("tenant", hold.session_id)
        assert session is not None
        assert session.is_active
