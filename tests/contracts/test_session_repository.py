"""What every session repository keeps of the port `SessionRepository`."""

from datetime import timedelta

import pytest
from tests.contracts.books import NOON, TODAY, reservation, settlement, usd
from tests.contracts.conftest import Storage

from textllm_core.sessions import Session


async def test_a_session_is_found_by_id_and_by_day(storage: Storage) -> None:
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


async def test_each_user_has_one_session_a_day(storage: Storage) -> None:
    holds = [
        await storage.ledger.reserve(reservation(user_id=user, at=NOON + timedelta(days=days)))
        for user in ("user", "other")
        for days in (0, 0, 1)
    ]
    assert len({hold.session_id for hold in holds}) == 4


async def test_a_day_without_turns_has_no_session(storage: Storage) -> None:
    await storage.ledger.reserve(reservation())
    assert await storage.sessions.of_day("tenant", "user", TODAY + timedelta(days=1)) is None
    assert await storage.sessions.of_day("tenant", "user", TODAY - timedelta(days=1)) is None


async def test_nobody_sees_the_session_of_another_tenant(storage: Storage) -> None:
    hold = await storage.ledger.reserve(reservation())
    assert await storage.sessions.get("other", hold.session_id) is None
    assert await storage.sessions.of_day("other", "user", TODAY) is None


@pytest.mark.parametrize("session_id", ["sess_never_made", "", "sess_\0", "sess_\ud800"])
async def test_what_does_not_exist_is_nothing(storage: Storage, session_id: str) -> None:
    assert await storage.sessions.get("tenant", session_id) is None
