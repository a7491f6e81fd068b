"""What every ledger keeps where another than the user pays."""

from datetime import timedelta
from typing import Any

import pytest

from textllm_adapters.testing.books import NOON, TODAY, next_turn, reservation, settlement, usd
from textllm_adapters.testing.storage import Auditing, Storage
from textllm_core.errors import BudgetExceededError
from textllm_core.records.ledger import Hold, Reservation

KEY = "key_1"


def turn_of(user_id: str, **more: Any) -> Reservation:
    """A first turn of a user for whom the key is charged."""
    return reservation(user_id=user_id, payer_id=KEY, **more)


async def spent(storage: Storage, user_id: str) -> object:
    session = await storage.sessions.of_day("tenant", user_id, TODAY)
    return session and session.total_cost


async def settled(storage: Storage, asked: Reservation, *, cost: str = "0.25") -> Hold:
    hold = await storage.ledger.reserve(asked)
    hold = await storage.ledger.pend(hold, provider_response_id="resp_theirs", model="gpt-4o")
    await storage.ledger.settle(hold, settlement(cost=cost, estimated=True))
    return hold


async def counts(auditing: Auditing) -> list[int]:
    """How many conversations the sessions of the key and of the user count, which the audit finds right."""
    assert [drift async for drift in auditing.audit.drifts()] == []
    sessions = [await auditing.storage.sessions.of_day("tenant", payer, TODAY) for payer in (KEY, "user_a")]
    return [session.conversation_count if session else 0 for session in sessions]


class PayersContract:
    """What every ledger keeps where another than the user pays.

    Fixtures `storage` and `auditing`: as `LedgerContract` and `AuditContract` have them, over a store each.
    """

    pytestmark = pytest.mark.asyncio

    async def test_the_conversation_is_the_users_and_the_money_the_payers(self, storage: Storage) -> None:
        hold = await settled(storage, turn_of("user_a"))
        conversation = await storage.conversations.get("tenant", hold.conversation_id)
        assert conversation is not None
        assert (conversation.user_id, conversation.total_cost) == ("user_a", usd("0.25"))
        assert conversation.session_id == hold.session_id
        session = await storage.sessions.get("tenant", hold.session_id)
        assert session is not None
        assert (session.user_id, session.total_cost, session.conversation_count) == (KEY, usd("0.25"), 1)
        assert await spent(storage, "user_a") is None
        (entry,) = await storage.ledger.entries("tenant", "user_a")
        assert (entry.payer_id, entry.session_id, entry.cost) == (KEY, hold.session_id, usd("0.25"))
        assert await storage.ledger.entries("tenant", KEY) == []
        (used,) = await storage.reports.daily("tenant", KEY, TODAY)
        assert (used.cost, used.estimated_cost, used.messages) == (usd("0.25"), usd("0.25"), 1)
        assert await storage.reports.daily("tenant", "user_a", TODAY) == []
        assert await storage.reports.conversation_count("tenant", KEY, TODAY) == 1
        (named,), _ = await storage.reports.newest_conversations("tenant", KEY, TODAY, limit=9)
        assert named.conversation_id == hold.conversation_id
        assert await storage.reports.conversation_count("tenant", "user_a", TODAY) == 0

    async def test_all_users_of_a_payer_share_its_budget(self, storage: Storage) -> None:
        first = await settled(storage, turn_of("user_a", limit="2"), cost="0.75")
        running = await storage.ledger.reserve(turn_of("user_b", limit="2"))
        for refused in (
            turn_of("user_c", limit="2"),
            await next_turn(storage, first.conversation_id, user_id="user_a", payer_id=KEY, limit="2"),
        ):
            with pytest.raises(BudgetExceededError) as refusal:
                await storage.ledger.reserve(refused)
            assert (refusal.value.spent, refusal.value.reserved) == (usd("0.75"), True)
        assert await storage.ledger.reserve(reservation(user_id="user_a", limit="2"))
        await storage.ledger.release(running)
        again = await storage.ledger.reserve(turn_of("user_c", limit="2"))
        assert (again.user_id, again.payer_id, again.amount) == ("user_c", KEY, usd("1"))

    async def test_a_further_turn_may_be_charged_to_another(self, storage: Storage) -> None:
        first = await settled(storage, turn_of("user_a"))
        for payer_id in (KEY, "key_2", None):
            more = await next_turn(storage, first.conversation_id, user_id="user_a", payer_id=payer_id)
            await settled(storage, more, cost="0.5")
        assert [await spent(storage, user) for user in (KEY, "key_2", "user_a")] == [
            usd("0.75"),
            usd("0.5"),
            usd("0.5"),
        ]
        entries = await storage.ledger.entries("tenant", "user_a")
        assert sorted(str(entry.payer_id) for entry in entries) == ["None", "key_1", "key_1", "key_2"]

    async def test_what_is_abandoned_is_still_charged_to_its_payer(self, storage: Storage) -> None:
        asked = turn_of("user_a")
        await storage.ledger.reserve(asked)
        (left,) = await storage.ledger.abandoned(at=asked.lease_until.replace(year=2099), lease_until=NOON, limit=9)
        assert (left.user_id, left.payer_id) == ("user_a", KEY)
        await storage.ledger.settle(left, settlement(cost="0.5", status="failed", answered=False, messages=()))
        assert (await spent(storage, KEY), await spent(storage, "user_a")) == (usd("0.5"), None)

    @pytest.mark.parametrize(
        ("table", "counter", "user_id"),
        [
            ("sessions", "total_cost", KEY),
            ("sessions", "reserved", KEY),
            ("sessions", "conversation_count", KEY),
            ("daily_usage", "estimated_cost", KEY),
            ("conversations", "total_cost", "user_a"),
        ],
    )
    async def test_the_audit_adds_up_what_a_payer_was_charged_for_others(
        self, auditing: Auditing, table: str, counter: str, user_id: str
    ) -> None:
        await settled(auditing.storage, turn_of("user_a"))
        await settled(auditing.storage, reservation(user_id=KEY), cost="0.125")
        await auditing.storage.ledger.reserve(turn_of("user_a"))
        assert [drift async for drift in auditing.audit.drifts()] == []
        for user in (KEY, "user_a"):
            assert await auditing.audit.repair("tenant", user) == []
        await auditing.move(table, counter, usd("0.5"))
        assert user_id in {drift.user_id async for drift in auditing.audit.drifts()}
        for user in {drift.user_id async for drift in auditing.audit.drifts()}:
            await auditing.audit.repair("tenant", user)
        assert [drift async for drift in auditing.audit.drifts()] == []
        session = await auditing.storage.sessions.of_day("tenant", KEY, TODAY)
        assert session is not None
        assert (session.total_cost, session.conversation_count) == (usd("0.375"), 3)

    async def test_a_conversation_counts_once_for_each_payer_however_often_they_take_turns(
        self, auditing: Auditing
    ) -> None:
        ledger, user = auditing.storage.ledger, {"user_id": "user_a"}
        first = await settled(auditing.storage, turn_of("user_a"))
        assert await counts(auditing) == [1, 0]
        for payer_id in (None, KEY, None, KEY):
            further = await next_turn(auditing.storage, first.conversation_id, payer_id=payer_id, **user)
            hold = await ledger.reserve(further)
            assert await counts(auditing) == [1, 1]
            await ledger.settle(hold, settlement())
        assert await counts(auditing) == [1, 1]

    @pytest.mark.parametrize("is_known", [False, True])
    async def test_a_release_uncounts_a_conversation_for_a_payer_that_had_no_other_turn_in_it(
        self, auditing: Auditing, is_known: bool
    ) -> None:
        ledger, user = auditing.storage.ledger, {"user_id": "user_a"}
        first = await settled(auditing.storage, turn_of("user_a"))
        for payer_id in (None, KEY) if is_known else ():
            turn = await next_turn(auditing.storage, first.conversation_id, payer_id=payer_id, **user)
            await settled(auditing.storage, turn)
        hold = await ledger.reserve(await next_turn(auditing.storage, first.conversation_id, **user))
        assert await counts(auditing) == [1, 1]
        await ledger.release(hold)
        assert await counts(auditing) == [1, int(is_known)]

    async def test_a_later_word_of_the_provider_corrects_what_the_payer_was_charged(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(turn_of("user_a"))
        await storage.ledger.settle(hold, settlement(cost="0.5", estimated=True, open_until=NOON + timedelta(days=1)))
        (left,) = await storage.ledger.estimated(
            at=NOON + timedelta(hours=1), next_at=NOON + timedelta(hours=2), limit=9
        )
        assert left.payer_id == KEY
        assert await storage.ledger.correct(left, settlement(cost="0.25"))
        assert (await spent(storage, KEY), await spent(storage, "user_a")) == (usd("0.25"), None)
        (used,) = await storage.reports.daily("tenant", KEY, TODAY)
        assert (used.cost, used.estimated_cost) == (usd("0.25"), usd("0"))
