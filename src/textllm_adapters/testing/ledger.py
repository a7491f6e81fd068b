"""What every ledger keeps of the port `Ledger`: the books balance, whatever happens at the same time."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from textllm_adapters.testing.books import (
    LEASE,
    NOON,
    TODAY,
    assert_balanced,
    at_once,
    next_turn,
    reservation,
    reserved,
    settlement,
    usd,
)
from textllm_adapters.testing.storage import Storage
from textllm_core.errors import (
    BudgetExceededError,
    ConversationBusyError,
    ConversationNotFoundError,
)
from textllm_core.ids import new_id
from textllm_core.money import ZERO
from textllm_core.records.ledger import Demand
from textllm_core.usage import Usage

ESTIMATE: dict[str, Any] = {"estimated": True, "status": "incomplete", "cost": "0.5", "open_until": NOON + 20 * LEASE}


class LedgerContract:
    """What every ledger keeps of the port `Ledger`: the books balance, whatever happens at the same time.

    Fixture `storage`: a `Storage` over an empty store, of this test alone.
    """

    pytestmark = pytest.mark.asyncio

    async def test_a_reservation_opens_conversation_and_session_and_holds_the_money(self, storage: Storage) -> None:
        asked = reservation(cost="0.75")
        hold = await storage.ledger.reserve(asked)
        session = await storage.sessions.of_day("tenant", "user", TODAY)
        conversation = await storage.conversations.get("tenant", asked.conversation_id)
        assert session is not None
        assert conversation is not None
        assert (hold.amount, hold.session_id, hold.created_at) == (usd("0.75"), session.id, NOON)
        assert (hold.conversation_id, hold.response_id, hold.model) == (conversation.id, asked.response_id, "gpt-4o")
        assert (conversation.title, conversation.message_count, conversation.session_id) == ("Hello", 0, session.id)
        assert (session.conversation_count, session.total_cost, session.is_active) == (1, ZERO, True)
        assert await storage.ledger.entry("tenant", asked.response_id) is None
        await assert_balanced(storage, holds=[hold])

    async def test_what_is_left_is_granted_where_the_most_does_not_fit(self, storage: Storage) -> None:
        await storage.ledger.reserve(reservation(cost="4", limit="5"))
        hold = await storage.ledger.reserve(
            replace(reservation(), demand=Demand(least=usd("0.5"), most=usd("3"), limit=usd("5")))
        )
        assert hold.amount == usd("1")

    async def test_a_refusal_for_the_budget_leaves_no_trace(self, storage: Storage) -> None:
        asked = reservation(cost="6", limit="5")
        with pytest.raises(BudgetExceededError) as refusal:
            await storage.ledger.reserve(asked)
        assert (refusal.value.limit, refusal.value.spent, refusal.value.reserved) == (usd("5"), ZERO, False)
        assert refusal.value.resets_at == datetime(2026, 11, 24, tzinfo=UTC)
        assert await storage.sessions.of_day("tenant", "user", TODAY) is None
        assert await storage.conversations.get("tenant", asked.conversation_id) is None
        assert await storage.ledger.abandoned(at=NOON + 2 * LEASE, lease_until=NOON + 3 * LEASE, limit=10) == []

    async def test_a_refusal_for_the_budget_leaves_the_conversation_free(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        await storage.ledger.settle(hold, settlement(cost="1"))
        with pytest.raises(BudgetExceededError):
            await storage.ledger.reserve(await next_turn(storage, hold.conversation_id, cost="6", limit="5"))
        await storage.ledger.reserve(await next_turn(storage, hold.conversation_id))

    async def test_a_refusal_says_whether_turns_still_running_stand_in_the_way(self, storage: Storage) -> None:
        await storage.ledger.reserve(reservation(cost="4", limit="5"))
        with pytest.raises(BudgetExceededError) as refusal:
            await storage.ledger.reserve(reservation(cost="2", limit="5"))
        assert refusal.value.reserved

    async def test_of_forty_at_once_seven_fit_under_a_cap_for_seven(self, storage: Storage) -> None:
        holds, refusals = await at_once(
            *[storage.ledger.reserve(reservation(cost="0.7", limit="5.0")) for _ in range(40)]
        )
        assert len(holds) == 7
        assert {type(refusal) for refusal in refusals} == {BudgetExceededError}
        await assert_balanced(storage, holds=holds)

    async def test_of_twenty_turns_at_once_in_one_conversation_one_gets_it(self, storage: Storage) -> None:
        first = await storage.ledger.reserve(reservation())
        await storage.ledger.settle(first, settlement())
        turns = [await next_turn(storage, first.conversation_id) for _ in range(20)]
        holds, refusals = await at_once(*[storage.ledger.reserve(turn) for turn in turns])
        assert len(holds) == 1
        assert {type(refusal) for refusal in refusals} == {ConversationBusyError}
        await assert_balanced(storage, holds=holds)

    async def test_a_conversation_is_busy_until_its_turn_is_settled_also_when_the_lease_has_run_out(
        self,
        storage: Storage,
    ) -> None:
        hold = await storage.ledger.reserve(reservation())
        turn = await next_turn(storage, hold.conversation_id)
        late = NOON + 2 * LEASE
        with pytest.raises(ConversationBusyError):
            await storage.ledger.reserve(replace(turn, at=late, lease_until=late + LEASE))
        await storage.ledger.settle(hold, settlement())
        other = await storage.ledger.reserve(await next_turn(storage, hold.conversation_id))
        await assert_balanced(storage, holds=[other])

    async def test_a_turn_on_what_was_read_before_another_ended_is_refused(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        stale = await next_turn(storage, hold.conversation_id)
        await storage.ledger.settle(hold, settlement())
        with pytest.raises(ConversationBusyError):
            await storage.ledger.reserve(stale)
        await storage.ledger.reserve(await next_turn(storage, hold.conversation_id))

    async def test_a_conversation_that_never_was_is_not_found(self, storage: Storage) -> None:
        with pytest.raises(ConversationNotFoundError):
            await storage.ledger.reserve(reservation(revision=0))

    @pytest.mark.parametrize("stranger", [{"tenant_id": "other"}, {"user_id": "other"}])
    async def test_the_conversation_of_others_is_not_found(self, storage: Storage, stranger: dict[str, str]) -> None:
        hold = await storage.ledger.reserve(reservation())
        await storage.ledger.settle(hold, settlement())
        turn = await next_turn(storage, hold.conversation_id)
        with pytest.raises(ConversationNotFoundError):
            await storage.ledger.reserve(replace(turn, **stranger))
        assert await storage.sessions.of_day("tenant", "other", TODAY) is None
        assert await storage.sessions.of_day("other", "user", TODAY) is None

    async def test_asking_again_after_a_cut_off_commit_finds_the_same_hold(self, storage: Storage) -> None:
        asked = reservation()
        hold = await storage.ledger.reserve(asked)
        assert await storage.ledger.reserve(asked) == hold
        await storage.ledger.settle(hold, settlement())
        turn = await next_turn(storage, hold.conversation_id)
        further = await storage.ledger.reserve(turn)
        assert await storage.ledger.reserve(turn) == further
        await assert_balanced(storage, holds=[further])

    async def test_a_conversation_counts_once_in_a_session(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        await storage.ledger.settle(hold, settlement())
        await storage.ledger.reserve(await next_turn(storage, hold.conversation_id))
        session = await storage.sessions.of_day("tenant", "user", TODAY)
        assert session is not None
        assert session.conversation_count == 1

    async def test_a_conversation_of_yesterday_counts_in_the_session_of_today(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        await storage.ledger.settle(hold, settlement())
        tomorrow = NOON + timedelta(days=1)
        turn = replace(await next_turn(storage, hold.conversation_id), at=tomorrow, lease_until=tomorrow + LEASE)
        moved = await storage.ledger.reserve(turn)
        conversation = await storage.conversations.get("tenant", hold.conversation_id)
        session = await storage.sessions.of_day("tenant", "user", tomorrow.date())
        assert session is not None
        assert conversation is not None
        assert moved.session_id == session.id == conversation.session_id != hold.session_id
        assert (session.conversation_count, session.total_cost) == (1, ZERO)

    async def test_the_budget_is_that_of_the_utc_day_even_at_the_turn_of_the_year(self, storage: Storage) -> None:
        before = datetime(2026, 12, 31, 23, 59, 59, 999_999, UTC)
        after = before + timedelta(microseconds=1)
        old = await storage.ledger.reserve(reservation(cost="5", limit="5", at=before))
        with pytest.raises(BudgetExceededError) as refusal:
            await storage.ledger.reserve(reservation(cost="5", limit="5", at=before))
        assert refusal.value.resets_at == after
        new = await storage.ledger.reserve(reservation(cost="5", limit="5", at=after))
        assert old.session_id != new.session_id
        await storage.ledger.settle(old, settlement(cost="4", at=after))
        assert await reserved(storage, at=before) == ZERO
        assert await reserved(storage, at=after) == usd("5")
        old_day = await storage.sessions.of_day("tenant", "user", before.date())
        assert old_day is not None
        assert old_day.total_cost == usd("4")

    async def test_a_pending_exchange_has_an_entry_that_cost_nothing_yet(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        pending = await storage.ledger.pend(hold, provider_response_id="resp_theirs", model="gpt-4o-2024-11-20")
        assert pending == replace(hold, provider_response_id="resp_theirs", reported_model="gpt-4o-2024-11-20")
        entry = await storage.ledger.entry("tenant", hold.response_id)
        assert entry is not None
        assert (entry.status, entry.cost, entry.settled_at, entry.usage) == ("pending", ZERO, None, Usage())
        assert (entry.provider_response_id, entry.model) == ("resp_theirs", "gpt-4o-2024-11-20")
        await assert_balanced(storage, holds=[hold])

    async def test_pending_twice_is_one_entry(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        await storage.ledger.pend(hold, provider_response_id=None, model="gpt-4o")
        await storage.ledger.pend(hold, provider_response_id="resp_theirs", model="gpt-4o")
        [entry] = await storage.ledger.entries("tenant", "user")
        assert entry.provider_response_id == "resp_theirs"

    async def test_a_settled_entry_does_not_become_pending_again(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        await storage.ledger.settle(hold, settlement())
        before = await storage.ledger.entry("tenant", hold.response_id)
        await storage.ledger.pend(hold, provider_response_id="resp_late", model="late")
        assert await storage.ledger.entry("tenant", hold.response_id) == before

    async def test_renewing_keeps_the_exchange_alive(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        turn = await next_turn(storage, hold.conversation_id)
        await storage.ledger.renew([hold], lease_until=NOON + 5 * LEASE)
        assert await storage.ledger.abandoned(at=NOON + 2 * LEASE, lease_until=NOON + 9 * LEASE, limit=10) == []
        with pytest.raises(ConversationBusyError):
            await storage.ledger.reserve(replace(turn, at=NOON + 2 * LEASE))

    async def test_renewing_says_how_much_was_thought(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        await storage.ledger.renew([replace(hold, thought=4800)], lease_until=NOON + LEASE)
        await storage.ledger.renew([replace(hold, thought=9600)], lease_until=NOON + LEASE)
        (abandoned,) = await storage.ledger.abandoned(at=NOON + 2 * LEASE, lease_until=NOON + 3 * LEASE, limit=1)
        assert abandoned.thought == 9600

    async def test_renewing_says_what_the_provider_has_stated_of_the_usage(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        counted = Usage(input_tokens=90, output_tokens=3, cached_tokens=80)
        for known in (None, counted, replace(counted, output_tokens=7)):
            await storage.ledger.renew([replace(hold, counted=known)], lease_until=NOON + LEASE)
        (abandoned,) = await storage.ledger.abandoned(at=NOON + 2 * LEASE, lease_until=NOON + 3 * LEASE, limit=1)
        assert abandoned.counted == replace(counted, output_tokens=7)

    async def test_as_many_exchanges_as_may_run_are_renewed_at_once(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        others = [replace(hold, response_id=new_id("resp")) for _ in range(16_384)]
        await storage.ledger.renew([*others, hold], lease_until=NOON + 5 * LEASE)
        found = await storage.ledger.abandoned(at=NOON + 2 * LEASE, lease_until=NOON + 9 * LEASE, limit=10)
        assert list(found) == []

    async def test_renewing_what_is_settled_does_nothing(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        await storage.ledger.settle(hold, settlement())
        await storage.ledger.renew([hold], lease_until=NOON + 5 * LEASE)
        await storage.ledger.reserve(await next_turn(storage, hold.conversation_id))

    @pytest.mark.parametrize("pended", [True, False])
    async def test_settling_moves_every_counter_together(self, storage: Storage, pended: bool) -> None:
        hold = await storage.ledger.reserve(reservation())
        for _ in range(pended):
            hold = await storage.ledger.pend(hold, provider_response_id="resp_theirs", model="gpt-4o")
        end = settlement(cost="0.25")
        settled = await storage.ledger.settle(hold, end)
        assert settled is not None
        assert (settled.message_number, settled.spent) == (1, usd("0.25"))
        session = await storage.sessions.get("tenant", hold.session_id)
        conversation = await storage.conversations.get("tenant", hold.conversation_id)
        state = await storage.conversations.state("tenant", hold.conversation_id)
        assert session is not None
        assert conversation is not None
        assert state is not None
        assert (session.total_cost, session.total_tokens, session.last_activity) == (usd("0.25"), 120, end.at)
        assert (conversation.message_count, conversation.total_cost, conversation.updated_at) == (
            1,
            usd("0.25"),
            end.at,
        )
        assert (conversation.total_tokens_input, conversation.total_tokens_output) == (100, 20)
        assert (state.transcript_id, state.context_tokens, state.message_count) == ("conv_theirs", 120, 1)
        assert state.open_calls is None
        messages = await storage.conversations.last_messages("tenant", "user", hold.conversation_id, limit=None)
        assert tuple(messages) == tuple(end.messages)
        await assert_balanced(storage)

    async def test_an_entry_has_all_that_is_known_of_its_exchange(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        hold = await storage.ledger.pend(hold, provider_response_id="resp_theirs", model="gpt-4o")
        end = settlement(estimated=True, status="incomplete", metadata={"topic": "bills"})
        await storage.ledger.settle(hold, end)
        entry = await storage.ledger.entry("tenant", hold.response_id)
        assert entry is not None
        assert (entry.tenant_id, entry.user_id, entry.session_id) == ("tenant", "user", hold.session_id)
        assert (entry.conversation_id, entry.response_id) == (hold.conversation_id, hold.response_id)
        assert (entry.kind, entry.model, entry.provider_response_id) == ("text", "gpt-4o-2024-11-20", "resp_theirs")
        assert (entry.status, entry.estimated, entry.usage, entry.cost) == ("incomplete", True, end.usage, end.cost)
        assert (entry.price_source, entry.service_tier, entry.time_to_first_token_ms) == ("table", "default", 321)
        assert (entry.created_at, entry.settled_at) == (NOON, end.at)

    async def test_a_failure_is_charged_but_is_no_answered_turn(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        settled = await storage.ledger.settle(hold, settlement(status="failed", answered=False, messages=()))
        assert settled is not None
        assert (settled.message_number, settled.spent) == (0, usd("0.25"))
        await assert_balanced(storage)

    async def test_a_summary_is_kept_with_its_settlement_and_is_no_answered_turn(self, storage: Storage) -> None:
        first = await storage.ledger.reserve(reservation())
        await storage.ledger.settle(first, settlement(cost="0.25"))
        said = await storage.conversations.last_messages("tenant", "user", first.conversation_id, limit=None)
        for text in ("Greetings.", "Grüße\0 👋", None):
            hold = await storage.ledger.reserve(await next_turn(storage, first.conversation_id, kind="summary"))
            settled = await storage.ledger.settle(
                hold, settlement(cost="0.1", answered=False, messages=(), summary=text)
            )
            assert settled is not None
            assert settled.message_number == 1
        conversation = await storage.conversations.get("tenant", first.conversation_id)
        assert conversation is not None
        assert (conversation.summary, conversation.message_count) == ("Grüße 👋", 1)
        assert conversation.total_cost == usd("0.55")
        kept = await storage.conversations.last_messages("tenant", "user", first.conversation_id, limit=None)
        assert kept == said
        kinds = [entry.kind for entry in await storage.ledger.entries("tenant", "user")]
        assert sorted(kinds) == ["summary", "summary", "summary", "text"]
        await assert_balanced(storage)

    async def test_a_second_settlement_does_nothing(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        await storage.ledger.settle(hold, settlement(cost="0.25"))
        assert await storage.ledger.settle(hold, settlement(cost="9")) is None
        messages = await storage.conversations.last_messages("tenant", "user", hold.conversation_id, limit=None)
        assert len(messages) == 2
        await assert_balanced(storage)

    async def test_of_ten_settlements_at_once_one_counts(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        settled, errors = await at_once(*[storage.ledger.settle(hold, settlement()) for _ in range(10)])
        assert errors == []
        assert sum(one is not None for one in settled) == 1
        await assert_balanced(storage)

    async def test_settling_and_releasing_at_once_does_one_of_the_two(self, storage: Storage) -> None:
        first = await storage.ledger.reserve(reservation())
        await storage.ledger.settle(first, settlement(cost="0.5"))
        for _ in range(8):
            hold = await storage.ledger.reserve(await next_turn(storage, first.conversation_id))
            await storage.ledger.pend(hold, provider_response_id="resp_theirs", model="gpt-4o")
            _, errors = await at_once(storage.ledger.settle(hold, settlement()), storage.ledger.release(hold))
            assert errors == []
            await assert_balanced(storage)

    async def test_turns_of_many_conversations_at_once_all_count(self, storage: Storage) -> None:
        async def turn(number: int) -> None:
            hold = await storage.ledger.reserve(reservation(cost="1", limit="100"))
            hold = await storage.ledger.pend(hold, provider_response_id=f"resp_{number}", model="gpt-4o")
            await storage.ledger.renew([hold], lease_until=NOON + 2 * LEASE)
            await storage.ledger.settle(hold, settlement(cost="0.1"))

        _, errors = await at_once(*[turn(number) for number in range(30)])
        assert errors == []
        session = await storage.sessions.of_day("tenant", "user", TODAY)
        assert session is not None
        assert (session.total_cost, session.conversation_count) == (usd("3"), 30)
        await assert_balanced(storage)

    async def test_spending_more_than_was_held_is_written_in_full(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation(cost="1", limit="5"))
        settled = await storage.ledger.settle(hold, settlement(cost="7.5"))
        assert settled is not None
        assert settled.spent == usd("7.5")
        with pytest.raises(BudgetExceededError):
            await storage.ledger.reserve(reservation(cost="0", limit="5"))

    @pytest.mark.parametrize("cost", ["0.0000000001", "0.1", "0.3", "1234567.0123456789", "0"])
    async def test_money_is_exact_to_the_tenth_decimal(self, storage: Storage, cost: str) -> None:
        running = await storage.ledger.reserve(reservation(cost=cost, limit="99999999"))
        assert running.amount == usd(cost)
        for times in (1, 2, 3):
            hold = await storage.ledger.reserve(reservation(cost=cost, limit="99999999"))
            settled = await storage.ledger.settle(hold, settlement(cost=cost))
            assert settled is not None
            assert settled.spent == times * usd(cost)
        await assert_balanced(storage, holds=[running])

    async def test_a_tenth_and_two_tenths_fill_a_limit_of_three(self, storage: Storage) -> None:
        await storage.ledger.reserve(reservation(cost="0.1", limit="0.3"))
        await storage.ledger.reserve(reservation(cost="0.2", limit="0.3"))
        with pytest.raises(BudgetExceededError):
            await storage.ledger.reserve(reservation(cost="0.0000000001", limit="0.3"))

    async def test_entries_come_oldest_first_and_belong_to_one_user(self, storage: Storage) -> None:
        for minutes in (2, 0, 1):
            at = NOON + timedelta(minutes=minutes)
            await storage.ledger.settle(await storage.ledger.reserve(reservation(at=at)), settlement())
        other = await storage.ledger.reserve(reservation(user_id="other"))
        await storage.ledger.settle(other, settlement())
        entries = await storage.ledger.entries("tenant", "user")
        assert [entry.created_at - NOON for entry in entries] == [timedelta(minutes=number) for number in range(3)]
        assert await storage.ledger.entry("other", other.response_id) is None
        assert await storage.ledger.entry("tenant", other.response_id, user_id="user") is None
        assert await storage.ledger.entry("tenant", other.response_id, user_id="other") is not None
        assert await storage.ledger.entries("other", "user") == []
