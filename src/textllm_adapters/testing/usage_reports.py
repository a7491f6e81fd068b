"""What every adapter keeps of the port `UsageReports`."""

import asyncio
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from textllm_adapters.testing.books import NOON, TODAY, next_turn, reservation, settlement, usd
from textllm_adapters.testing.storage import Storage
from textllm_core.records.usage_reports import DailyUsage, UsageOfConversation
from textllm_core.usage import Usage

MODEL = "gpt-4o-2024-11-20"

YESTERDAY = TODAY - timedelta(days=1)
NOTHING_USED = UsageOfConversation(None, None, 0, 0, 0, usd("0"), usd("0"))


async def turn(storage: Storage, conversation_id: str, *, days_ago: int = 0, **end: Any) -> None:
    """A whole exchange in a conversation, which is made unless it is there."""
    at = NOON - timedelta(days=days_ago)
    is_there = await storage.conversations.state("tenant", conversation_id)
    asked = (
        await next_turn(storage, conversation_id, at=at)
        if is_there
        else reservation(conversation_id=conversation_id, at=at)
    )
    await storage.ledger.settle(await storage.ledger.reserve(asked), settlement(at=at + timedelta(seconds=1), **end))


async def daily(storage: Storage, first: date = TODAY, user_id: str | None = "user") -> Sequence[DailyUsage]:
    rows = await storage.reports.daily("tenant", user_id, first)
    return sorted(rows, key=lambda row: (row.day, row.model))


async def conversations(
    storage: Storage, first: date = TODAY, user_id: str = "user", limit: int = 100
) -> tuple[Sequence[UsageOfConversation], UsageOfConversation]:
    return await storage.reports.newest_conversations("tenant", user_id, first, limit=limit)


class UsageReportsContract:
    """What every adapter keeps of the port `UsageReports`.

    Fixture `storage`: a `Storage` over an empty store, of this test alone.
    """

    pytestmark = pytest.mark.asyncio

    async def test_settled_exchanges_add_up_by_day_and_model(self, storage: Storage) -> None:
        await turn(storage, "conv_1", days_ago=1, cost="0.0000000001")
        await turn(storage, "conv_1", cost="0.25")
        await turn(storage, "conv_2", cost="0.5")
        await turn(storage, "conv_3", cost="0.125", model="gpt-5")
        assert await daily(storage, YESTERDAY) == [
            DailyUsage(YESTERDAY, MODEL, 1, 100, 20, usd("0.0000000001")),
            DailyUsage(TODAY, MODEL, 2, 200, 40, usd("0.75")),
            DailyUsage(TODAY, "gpt-5", 1, 100, 20, usd("0.125")),
        ]

    async def test_what_is_estimated_of_the_cost_adds_up_by_itself(self, storage: Storage) -> None:
        await turn(storage, "conv_1", cost="0.25")
        await turn(storage, "conv_2", cost="0.0000000001", estimated=True)
        await turn(storage, "conv_1", cost="0.5", estimated=True, status="failed", answered=False, messages=())
        assert await daily(storage) == [
            DailyUsage(TODAY, MODEL, 2, 300, 60, usd("0.7500000001"), usd("0.5000000001")),
        ]

    async def test_without_a_user_those_of_all_users_of_the_tenant_add_up(self, storage: Storage) -> None:
        for user_id, cost in (("ada", "0.25"), ("bob", "0.0000000001"), ("bob", "0.5")):
            hold = await storage.ledger.reserve(reservation(user_id=user_id))
            await storage.ledger.settle(hold, settlement(cost=cost, estimated=cost == "0.25"))
        await turn(storage, "conv_1", days_ago=1)
        await storage.ledger.settle(await storage.ledger.reserve(reservation(tenant_id="other")), settlement())
        assert await daily(storage, TODAY, None) == [
            DailyUsage(TODAY, MODEL, 3, 300, 60, usd("0.7500000001"), usd("0.25"))
        ]
        assert [row.day for row in await daily(storage, YESTERDAY, None)] == [YESTERDAY, TODAY]
        assert await storage.reports.conversation_count("tenant", None, TODAY) == 3
        assert await storage.reports.conversation_count("tenant", None, YESTERDAY) == 4
        assert await storage.reports.daily("nobody's", None, TODAY) == []

    async def test_days_before_the_first_are_left_out(self, storage: Storage) -> None:
        await turn(storage, "conv_1", days_ago=1)
        assert await daily(storage) == []
        assert await storage.reports.conversation_count("tenant", "user", TODAY) == 0
        assert await conversations(storage) == ([], NOTHING_USED)

    async def test_a_failure_that_was_billed_counts_in_tokens_and_cost_and_not_as_a_message(
        self, storage: Storage
    ) -> None:
        await turn(storage, "conv_1", status="failed", answered=False, messages=(), cost="0.25")
        assert await daily(storage) == [DailyUsage(TODAY, MODEL, 0, 100, 20, usd("0.25"))]

    async def test_an_exchange_counts_on_the_day_of_its_start(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        await storage.ledger.settle(hold, settlement(at=NOON + timedelta(days=1)))
        assert [row.day for row in await daily(storage)] == [TODAY]

    async def test_what_runs_or_was_released_is_not_used(self, storage: Storage) -> None:
        running = await storage.ledger.reserve(reservation())
        await storage.ledger.pend(running, provider_response_id="resp_theirs", model=MODEL)
        released = await storage.ledger.reserve(reservation())
        await storage.ledger.pend(released, provider_response_id="resp_other", model=MODEL)
        await storage.ledger.release(released)
        assert await daily(storage) == []

    async def test_settlements_at_once_are_all_counted(self, storage: Storage) -> None:
        holds = [await storage.ledger.reserve(reservation()) for _ in range(8)]
        await asyncio.gather(*[storage.ledger.settle(hold, settlement(cost="0.1")) for hold in holds])
        assert await daily(storage) == [DailyUsage(TODAY, MODEL, 8, 800, 160, usd("0.8"))]

    async def test_a_model_is_known_by_the_first_255_characters_of_its_name(self, storage: Storage) -> None:
        for ending in "ab":
            await turn(storage, f"conv_{ending}", model="ü\0" + "m" * 5000 + ending, cost="0.5")
        assert await daily(storage) == [DailyUsage(TODAY, "ü" + "m" * 254, 2, 200, 40, usd("1"))]

    async def test_a_conversation_counts_once_where_its_newest_turn_is_in_the_period(self, storage: Storage) -> None:
        await turn(storage, "conv_old", days_ago=2)
        await turn(storage, "conv_both", days_ago=2)
        await turn(storage, "conv_both", days_ago=1)
        await turn(storage, "conv_both")
        await turn(storage, "conv_new")
        counts = [
            await storage.reports.conversation_count("tenant", "user", TODAY - timedelta(days=days))
            for days in range(3)
        ]
        assert counts == [2, 2, 3]

    async def test_a_conversation_made_for_a_turn_that_was_released_is_not_counted(self, storage: Storage) -> None:
        await storage.ledger.release(await storage.ledger.reserve(reservation()))
        assert await storage.reports.conversation_count("tenant", "user", TODAY) == 0

    async def test_conversations_come_newest_first_with_what_they_used_in_the_period(self, storage: Storage) -> None:
        await turn(storage, "conv_1", days_ago=3, cost="8")
        await turn(storage, "conv_2", days_ago=1)
        await turn(storage, "conv_1", usage=Usage(input_tokens=1, output_tokens=2), cost="0.0000000001", estimated=True)
        await turn(storage, "conv_1", status="failed", answered=False, messages=(), cost="0.5")
        tiny = usd("0.0000000001")
        of_1 = UsageOfConversation("conv_1", "Hello", 1, 101, 22, usd("0.5000000001"), tiny)
        of_2 = UsageOfConversation("conv_2", "Hello", 1, 100, 20, usd("0.25"), usd("0"))
        both = UsageOfConversation(None, None, 2, 201, 42, usd("0.7500000001"), tiny)
        of_today = replace(of_1, conversation_id=None, title=None)
        assert await conversations(storage, YESTERDAY) == ([of_1, of_2], both)
        assert await conversations(storage, YESTERDAY, limit=1) == ([of_1], both)
        assert await conversations(storage) == ([of_1], of_today)

    async def test_an_estimate_that_was_corrected_is_none_in_its_conversation(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        await storage.ledger.settle(hold, settlement(cost="0.5", estimated=True, open_until=NOON + timedelta(hours=1)))
        await storage.ledger.correct(hold, settlement(cost="0.25"))
        (used,), total = await conversations(storage)
        assert (used.cost, used.estimated_cost) == (total.cost, total.estimated_cost) == (usd("0.25"), usd("0"))

    async def test_what_runs_or_was_released_is_used_in_no_conversation(self, storage: Storage) -> None:
        running = await storage.ledger.reserve(reservation())
        await storage.ledger.pend(running, provider_response_id="resp_theirs", model=MODEL)
        await storage.ledger.release(await storage.ledger.reserve(reservation()))
        assert await conversations(storage) == ([], NOTHING_USED)

    async def test_what_conversations_used_that_are_in_no_list_is_in_the_sum_alone(self, storage: Storage) -> None:
        await turn(storage, "conv_deleted")
        await storage.conversations.hide("tenant", "user", "conv_deleted", at=NOON)
        asked = reservation(conversation_id="conv_of_v1", expires_at=NOON + timedelta(days=30))
        await storage.ledger.settle(await storage.ledger.reserve(asked), settlement(cost="0.5", estimated=True))
        used = UsageOfConversation(None, None, 2, 200, 40, usd("0.75"), usd("0.5"))
        assert await conversations(storage) == ([], used)

    async def test_each_payer_of_a_conversation_sees_what_it_paid(self, storage: Storage) -> None:
        await turn(storage, "conv_1")
        paid = await next_turn(storage, "conv_1", payer_id="key_1")
        await storage.ledger.settle(await storage.ledger.reserve(paid), settlement(cost="0.5"))
        for payer, cost in (("user", "0.25"), ("key_1", "0.5")):
            (used,), total = await conversations(storage, user_id=payer)
            assert (used.conversation_id, used.messages, used.cost) == ("conv_1", 1, usd(cost))
            assert total.cost == usd(cost)

    @pytest.mark.parametrize(("tenant_id", "user_id"), [("tenant", "other"), ("other", "user")])
    async def test_nobody_sees_what_others_used(self, storage: Storage, tenant_id: str, user_id: str) -> None:
        await turn(storage, "conv_1")
        assert await storage.reports.daily(tenant_id, user_id, TODAY) == []
        assert await storage.reports.conversation_count(tenant_id, user_id, TODAY) == 0
        nothing = await storage.reports.newest_conversations(tenant_id, user_id, TODAY, limit=100)
        assert nothing == ([], NOTHING_USED)

    @pytest.mark.parametrize("user_id", ["", "user_\0", "user_\ud800"])
    async def test_what_does_not_exist_used_nothing(self, storage: Storage, user_id: str) -> None:
        assert await storage.reports.daily("tenant", user_id, TODAY) == []
