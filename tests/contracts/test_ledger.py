"""What every ledger keeps of the port `Ledger`: the books balance, whatever happens at the same time."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from tests.contracts.books import (
    LEASE,
    NOON,
    TODAY,
    assert_balanced,
    at_once,
    empty_conversation,
    exchange,
    next_turn,
    reservation,
    reserved,
    settlement,
    usd,
)
from tests.contracts.conftest import Storage

from textllm_core.errors import (
    BudgetExceededError,
    ConversationBusyError,
    ConversationNotFoundError,
    ServiceUnavailableError,
)
from textllm_core.ids import new_id
from textllm_core.money import ZERO
from textllm_core.records.conversations import ConversationChanges
from textllm_core.records.ledger import Demand, Hold
from textllm_core.usage import Usage

# Reserve


async def test_a_reservation_opens_conversation_and_session_and_holds_the_money(storage: Storage) -> None:
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


async def test_what_is_left_is_granted_where_the_most_does_not_fit(storage: Storage) -> None:
    await storage.ledger.reserve(reservation(cost="4", limit="5"))
    hold = await storage.ledger.reserve(
        replace(reservation(), demand=Demand(least=usd("0.5"), most=usd("3"), limit=usd("5")))
    )
    assert hold.amount == usd("1")


async def test_a_refusal_for_the_budget_leaves_no_trace(storage: Storage) -> None:
    asked = reservation(cost="6", limit="5")
    with pytest.raises(BudgetExceededError) as refusal:
        await storage.ledger.reserve(asked)
    assert (refusal.value.limit, refusal.value.spent, refusal.value.reserved) == (usd("5"), ZERO, False)
    assert refusal.value.resets_at == datetime(2026, 11, 24, tzinfo=UTC)
    assert await storage.sessions.of_day("tenant", "user", TODAY) is None
    assert await storage.conversations.get("tenant", asked.conversation_id) is None
    assert await storage.ledger.abandoned(at=NOON + 2 * LEASE, lease_until=NOON + 3 * LEASE, limit=10) == []


async def test_a_refusal_for_the_budget_leaves_the_conversation_free(storage: Storage) -> None:
    hold = await storage.ledger.reserve(reservation())
    await storage.ledger.settle(hold, settlement(cost="1"))
    with pytest.raises(BudgetExceededError):
        await storage.ledger.reserve(await next_turn(storage, hold.conversation_id, cost="6", limit="5"))
    await storage.ledger.reserve(await next_turn(storage, hold.conversation_id))


async def test_a_refusal_says_whether_turns_still_running_stand_in_the_way(storage: Storage) -> None:
    await storage.ledger.reserve(reservation(cost="4", limit="5"))
    with pytest.raises(BudgetExceededError) as refusal:
        await storage.ledger.reserve(reservation(cost="2", limit="5"))
    assert refusal.value.reserved


async def test_of_forty_at_once_seven_fit_under_a_cap_for_seven(storage: Storage) -> None:
    holds, refusals = await at_once(*[storage.ledger.reserve(reservation(cost="0.7", limit="5.0")) for _ in range(40)])
    assert len(holds) == 7
    assert {type(refusal) for refusal in refusals} == {BudgetExceededError}
    await assert_balanced(storage, holds=holds)


async def test_of_twenty_turns_at_once_in_one_conversation_one_gets_it(storage: Storage) -> None:
    first = await storage.ledger.reserve(reservation())
    await storage.ledger.settle(first, settlement())
    turns = [await next_turn(storage, first.conversation_id) for _ in range(20)]
    holds, refusals = await at_once(*[storage.ledger.reserve(turn) for turn in turns])
    assert len(holds) == 1
    assert {type(refusal) for refusal in refusals} == {ConversationBusyError}
    await assert_balanced(storage, holds=holds)


async def test_a_conversation_is_busy_until_its_turn_is_settled_also_when_the_lease_has_run_out(
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


async def test_a_turn_on_what_was_read_before_another_ended_is_refused(storage: Storage) -> None:
    hold = await storage.ledger.reserve(reservation())
    stale = await next_turn(storage, hold.conversation_id)
    await storage.ledger.settle(hold, settlement())
    with pytest.raises(ConversationBusyError):
        await storage.ledger.reserve(stale)
    await storage.ledger.reserve(await next_turn(storage, hold.conversation_id))


async def test_a_conversation_that_never_was_is_not_found(storage: Storage) -> None:
    with pytest.raises(ConversationNotFoundError):
        await storage.ledger.reserve(reservation(revision=0))


@pytest.mark.parametrize("stranger", [{"tenant_id": "other"}, {"user_id": "other"}])
async def test_the_conversation_of_others_is_not_found(storage: Storage, stranger: dict[str, str]) -> None:
    hold = await storage.ledger.reserve(reservation())
    await storage.ledger.settle(hold, settlement())
    turn = await next_turn(storage, hold.conversation_id)
    with pytest.raises(ConversationNotFoundError):
        await storage.ledger.reserve(replace(turn, **stranger))
    assert await storage.sessions.of_day("tenant", "other", TODAY) is None
    assert await storage.sessions.of_day("other", "user", TODAY) is None


async def test_asking_again_after_a_cut_off_commit_finds_the_same_hold(storage: Storage) -> None:
    asked = reservation()
    hold = await storage.ledger.reserve(asked)
    assert await storage.ledger.reserve(asked) == hold
    await storage.ledger.settle(hold, settlement())
    turn = await next_turn(storage, hold.conversation_id)
    further = await storage.ledger.reserve(turn)
    assert await storage.ledger.reserve(turn) == further
    await assert_balanced(storage, holds=[further])


async def test_a_conversation_counts_once_in_a_session(storage: Storage) -> None:
    hold = await storage.ledger.reserve(reservation())
    await storage.ledger.settle(hold, settlement())
    await storage.ledger.reserve(await next_turn(storage, hold.conversation_id))
    session = await storage.sessions.of_day("tenant", "user", TODAY)
    assert session is not None
    assert session.conversation_count == 1


async def test_a_conversation_of_yesterday_counts_in_the_session_of_today(storage: Storage) -> None:
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


async def test_the_budget_is_that_of_the_utc_day_even_at_the_turn_of_the_year(storage: Storage) -> None:
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


# Pend and renew


async def test_a_pending_exchange_has_an_entry_that_cost_nothing_yet(storage: Storage) -> None:
    hold = await storage.ledger.reserve(reservation())
    pending = await storage.ledger.pend(hold, provider_response_id="resp_theirs", model="gpt-4o-2024-11-20")
    assert pending == replace(hold, provider_response_id="resp_theirs", reported_model="gpt-4o-2024-11-20")
    entry = await storage.ledger.entry("tenant", hold.response_id)
    assert entry is not None
    assert (entry.status, entry.cost, entry.settled_at, entry.usage) == ("pending", ZERO, None, Usage())
    assert (entry.provider_response_id, entry.model) == ("resp_theirs", "gpt-4o-2024-11-20")
    await assert_balanced(storage, holds=[hold])


async def test_pending_twice_is_one_entry(storage: Storage) -> None:
    hold = await storage.ledger.reserve(reservation())
    await storage.ledger.pend(hold, provider_response_id=None, model="gpt-4o")
    await storage.ledger.pend(hold, provider_response_id="resp_theirs", model="gpt-4o")
    [entry] = await storage.ledger.entries("tenant", "user")
    assert entry.provider_response_id == "resp_theirs"


async def test_a_settled_entry_does_not_become_pending_again(storage: Storage) -> None:
    hold = await storage.ledger.reserve(reservation())
    await storage.ledger.settle(hold, settlement())
    before = await storage.ledger.entry("tenant", hold.response_id)
    await storage.ledger.pend(hold, provider_response_id="resp_late", model="late")
    assert await storage.ledger.entry("tenant", hold.response_id) == before


async def test_renewing_keeps_the_exchange_alive(storage: Storage) -> None:
    hold = await storage.ledger.reserve(reservation())
    turn = await next_turn(storage, hold.conversation_id)
    await storage.ledger.renew([hold], lease_until=NOON + 5 * LEASE)
    assert await storage.ledger.abandoned(at=NOON + 2 * LEASE, lease_until=NOON + 9 * LEASE, limit=10) == []
    with pytest.raises(ConversationBusyError):
        await storage.ledger.reserve(replace(turn, at=NOON + 2 * LEASE))


async def test_as_many_exchanges_as_may_run_are_renewed_at_once(storage: Storage) -> None:
    hold = await storage.ledger.reserve(reservation())
    others = [replace(hold, response_id=new_id("resp")) for _ in range(16_384)]
    await storage.ledger.renew([*others, hold], lease_until=NOON + 5 * LEASE)
    found = await storage.ledger.abandoned(at=NOON + 2 * LEASE, lease_until=NOON + 9 * LEASE, limit=10)
    assert list(found) == []


async def test_renewing_what_is_settled_does_nothing(storage: Storage) -> None:
    hold = await storage.ledger.reserve(reservation())
    await storage.ledger.settle(hold, settlement())
    await storage.ledger.renew([hold], lease_until=NOON + 5 * LEASE)
    await storage.ledger.reserve(await next_turn(storage, hold.conversation_id))


# Settle


@pytest.mark.parametrize("pended", [True, False])
async def test_settling_moves_every_counter_together(storage: Storage, pended: bool) -> None:
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
    assert (conversation.message_count, conversation.total_cost, conversation.updated_at) == (1, usd("0.25"), end.at)
    assert (conversation.total_tokens_input, conversation.total_tokens_output) == (100, 20)
    assert (state.transcript_id, state.context_tokens, state.message_count) == ("conv_theirs", 120, 1)
    messages = await storage.conversations.last_messages("tenant", "user", hold.conversation_id, limit=None)
    assert tuple(messages) == tuple(end.messages)
    await assert_balanced(storage)


async def test_an_entry_has_all_that_is_known_of_its_exchange(storage: Storage) -> None:
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


async def test_a_failure_is_charged_but_is_no_answered_turn(storage: Storage) -> None:
    hold = await storage.ledger.reserve(reservation())
    settled = await storage.ledger.settle(hold, settlement(status="failed", answered=False, messages=()))
    assert settled is not None
    assert (settled.message_number, settled.spent) == (0, usd("0.25"))
    await assert_balanced(storage)


async def test_a_summary_is_kept_with_its_settlement_and_is_no_answered_turn(storage: Storage) -> None:
    first = await storage.ledger.reserve(reservation())
    await storage.ledger.settle(first, settlement(cost="0.25"))
    said = await storage.conversations.last_messages("tenant", "user", first.conversation_id, limit=None)
    for text in ("Greetings.", "Grüße\0 👋", None):
        hold = await storage.ledger.reserve(await next_turn(storage, first.conversation_id, kind="summary"))
        settled = await storage.ledger.settle(hold, settlement(cost="0.1", answered=False, messages=(), summary=text))
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


async def test_a_second_settlement_does_nothing(storage: Storage) -> None:
    hold = await storage.ledger.reserve(reservation())
    await storage.ledger.settle(hold, settlement(cost="0.25"))
    assert await storage.ledger.settle(hold, settlement(cost="9")) is None
    messages = await storage.conversations.last_messages("tenant", "user", hold.conversation_id, limit=None)
    assert len(messages) == 2
    await assert_balanced(storage)


async def test_of_ten_settlements_at_once_one_counts(storage: Storage) -> None:
    hold = await storage.ledger.reserve(reservation())
    settled, errors = await at_once(*[storage.ledger.settle(hold, settlement()) for _ in range(10)])
    assert errors == []
    assert sum(one is not None for one in settled) == 1
    await assert_balanced(storage)


async def test_settling_and_releasing_at_once_does_one_of_the_two(storage: Storage) -> None:
    first = await storage.ledger.reserve(reservation())
    await storage.ledger.settle(first, settlement(cost="0.5"))
    for _ in range(8):
        hold = await storage.ledger.reserve(await next_turn(storage, first.conversation_id))
        await storage.ledger.pend(hold, provider_response_id="resp_theirs", model="gpt-4o")
        _, errors = await at_once(storage.ledger.settle(hold, settlement()), storage.ledger.release(hold))
        assert errors == []
        await assert_balanced(storage)


async def test_turns_of_many_conversations_at_once_all_count(storage: Storage) -> None:
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


async def test_spending_more_than_was_held_is_written_in_full(storage: Storage) -> None:
    hold = await storage.ledger.reserve(reservation(cost="1", limit="5"))
    settled = await storage.ledger.settle(hold, settlement(cost="7.5"))
    assert settled is not None
    assert settled.spent == usd("7.5")
    with pytest.raises(BudgetExceededError):
        await storage.ledger.reserve(reservation(cost="0", limit="5"))


@pytest.mark.parametrize("cost", ["0.0000000001", "0.1", "0.3", "1234567.0123456789", "0"])
async def test_money_is_exact_to_the_tenth_decimal(storage: Storage, cost: str) -> None:
    running = await storage.ledger.reserve(reservation(cost=cost, limit="99999999"))
    assert running.amount == usd(cost)
    for times in (1, 2, 3):
        hold = await storage.ledger.reserve(reservation(cost=cost, limit="99999999"))
        settled = await storage.ledger.settle(hold, settlement(cost=cost))
        assert settled is not None
        assert settled.spent == times * usd(cost)
    await assert_balanced(storage, holds=[running])


async def test_a_tenth_and_two_tenths_fill_a_limit_of_three(storage: Storage) -> None:
    await storage.ledger.reserve(reservation(cost="0.1", limit="0.3"))
    await storage.ledger.reserve(reservation(cost="0.2", limit="0.3"))
    with pytest.raises(BudgetExceededError):
        await storage.ledger.reserve(reservation(cost="0.0000000001", limit="0.3"))


async def test_entries_come_oldest_first_and_belong_to_one_user(storage: Storage) -> None:
    for minutes in (2, 0, 1):
        at = NOON + timedelta(minutes=minutes)
        await storage.ledger.settle(await storage.ledger.reserve(reservation(at=at)), settlement())
    other = await storage.ledger.reserve(reservation(user_id="other"))
    await storage.ledger.settle(other, settlement())
    entries = await storage.ledger.entries("tenant", "user")
    assert [entry.created_at - NOON for entry in entries] == [timedelta(minutes=number) for number in range(3)]
    assert await storage.ledger.entry("other", other.response_id) is None
    assert await storage.ledger.entries("other", "user") == []


# Release


async def test_a_release_gives_everything_back(storage: Storage) -> None:
    first = await storage.ledger.reserve(reservation())
    await storage.ledger.settle(first, settlement())
    hold = await storage.ledger.reserve(await next_turn(storage, first.conversation_id))
    await storage.ledger.release(hold)
    assert await storage.ledger.entry("tenant", hold.response_id) is None
    assert await storage.ledger.settle(hold, settlement()) is None
    await assert_balanced(storage)
    await storage.ledger.reserve(await next_turn(storage, first.conversation_id))


async def test_a_release_takes_the_pending_entry_with_it(storage: Storage) -> None:
    hold = await storage.ledger.reserve(reservation())
    await storage.ledger.pend(hold, provider_response_id=None, model="gpt-4o")
    await storage.ledger.release(hold)
    assert await storage.ledger.entries("tenant", "user") == []


async def test_a_release_takes_the_conversation_made_for_it_as_well(storage: Storage) -> None:
    hold = await storage.ledger.reserve(reservation())
    await storage.ledger.release(hold)
    assert await storage.conversations.get("tenant", hold.conversation_id) is None


async def test_a_session_in_which_no_turn_is_left_goes_with_the_release_of_the_last(storage: Storage) -> None:
    made = await storage.conversations.add("tenant", empty_conversation(None), keeps_messages=True)
    holds = [await storage.ledger.reserve(reservation())]
    holds += [await storage.ledger.reserve(await next_turn(storage, made.id))]
    for hold in holds:
        session = await storage.sessions.of_day("tenant", "user", TODAY)
        assert session is not None
        await storage.ledger.release(hold)
    assert await storage.sessions.of_day("tenant", "user", TODAY) is None
    again = await storage.ledger.reserve(await next_turn(storage, made.id))
    await storage.ledger.settle(again, settlement(cost="0"))
    await storage.ledger.release(await storage.ledger.reserve(reservation()))
    await assert_balanced(storage)


@pytest.mark.parametrize("is_new", [True, False], ids=["new conversation", "next turn"])
@pytest.mark.parametrize("is_ended", [True, False], ids=["ended", "active"])
async def test_a_release_leaves_a_session_as_it_was(storage: Storage, is_ended: bool, is_new: bool) -> None:
    first = await storage.ledger.reserve(reservation())
    await storage.ledger.settle(first, settlement())
    if is_ended:
        await storage.sessions.end("tenant", "user", first.session_id)
    before = await storage.sessions.get("tenant", first.session_id)
    later = NOON + timedelta(minutes=1)
    asked = reservation(at=later) if is_new else await next_turn(storage, first.conversation_id, at=later)
    hold = await storage.ledger.reserve(asked)
    running = await storage.sessions.get("tenant", first.session_id)
    assert running is not None
    assert (running.is_active, running.last_activity) == (True, later)
    await storage.ledger.release(hold)
    assert await storage.sessions.get("tenant", first.session_id) == before


async def test_a_release_leaves_a_session_in_which_another_turn_runs_open(storage: Storage) -> None:
    first = await storage.ledger.reserve(reservation())
    await storage.ledger.settle(first, settlement())
    await storage.sessions.end("tenant", "user", first.session_id)
    refused = await storage.ledger.reserve(reservation(at=NOON + timedelta(minutes=1)))
    await storage.ledger.reserve(reservation(at=NOON + timedelta(minutes=2)))
    await storage.ledger.release(refused)
    session = await storage.sessions.get("tenant", first.session_id)
    assert session is not None
    assert (session.is_active, session.last_activity) == (True, NOON + timedelta(minutes=2))


@pytest.mark.parametrize("title", [None, "Mine", "Hello"])
async def test_a_release_leaves_a_conversation_that_was_made_beforehand_as_it_was(
    storage: Storage, title: str | None
) -> None:
    made = await storage.conversations.add("tenant", empty_conversation(title), keeps_messages=True)
    hold = await storage.ledger.reserve(await next_turn(storage, made.id))
    running = await storage.conversations.get("tenant", made.id)
    assert running is not None
    assert (running.title, running.session_id) == (title or "Hello", hold.session_id)
    await storage.ledger.release(hold)
    assert await storage.conversations.get("tenant", made.id) == made
    again = await storage.ledger.reserve(await next_turn(storage, made.id))
    await storage.ledger.settle(again, settlement())
    session = await storage.sessions.of_day("tenant", "user", TODAY)
    assert session is not None
    assert session.conversation_count == 1


async def test_a_release_leaves_a_conversation_in_the_session_of_its_last_turn(storage: Storage) -> None:
    first = await storage.ledger.reserve(reservation())
    await storage.ledger.settle(first, settlement())
    before = await storage.conversations.get("tenant", first.conversation_id)
    tomorrow = NOON + timedelta(days=1)
    hold = await storage.ledger.reserve(await next_turn(storage, first.conversation_id, at=tomorrow))
    await storage.ledger.release(hold)
    assert await storage.conversations.get("tenant", first.conversation_id) == before
    assert await storage.sessions.of_day("tenant", "user", tomorrow.date()) is None


async def test_a_release_leaves_a_title_that_was_given_meanwhile(storage: Storage) -> None:
    made = await storage.conversations.add("tenant", empty_conversation(None), keeps_messages=True)
    hold = await storage.ledger.reserve(await next_turn(storage, made.id))
    await storage.conversations.update("tenant", "user", made.id, ConversationChanges(title="Mine"))
    await storage.ledger.release(hold)
    found = await storage.conversations.get("tenant", made.id)
    assert found is not None
    assert found.title == "Mine"


async def test_releasing_twice_does_no_harm(storage: Storage) -> None:
    other = await storage.ledger.reserve(reservation())
    hold = await storage.ledger.reserve(reservation())
    _, errors = await at_once(*[storage.ledger.release(hold) for _ in range(5)])
    assert errors == []
    assert await reserved(storage) == other.amount


async def test_releasing_what_is_settled_does_nothing(storage: Storage) -> None:
    hold = await storage.ledger.reserve(reservation())
    await storage.ledger.settle(hold, settlement())
    await storage.ledger.release(hold)
    await assert_balanced(storage)


# Abandoned


async def test_the_abandoned_are_those_whose_lease_ran_out_and_each_is_handed_out_once(storage: Storage) -> None:
    dead = [await storage.ledger.reserve(reservation(user_id=f"user_{number}")) for number in range(5)]
    dead[0] = await storage.ledger.pend(dead[0], provider_response_id="resp_theirs", model="gpt-4o")
    late = NOON + 2 * LEASE
    await storage.ledger.reserve(reservation(at=late))
    batches, errors = await at_once(
        *[storage.ledger.abandoned(at=late, lease_until=late + LEASE, limit=2) for _ in range(4)]
    )
    rest = await storage.ledger.abandoned(at=late, lease_until=late + LEASE, limit=9)
    found = [hold for batch in [*batches, rest] for hold in batch]
    assert errors == []
    assert all(len(batch) <= 2 for batch in batches)
    assert sorted(found, key=lambda hold: hold.user_id) == dead


async def test_the_abandoned_are_leased_again_and_their_conversation_stays_busy(storage: Storage) -> None:
    hold = await storage.ledger.reserve(reservation())
    turn = await next_turn(storage, hold.conversation_id)
    late = NOON + 2 * LEASE
    await storage.ledger.abandoned(at=late, lease_until=late + LEASE, limit=10)
    with pytest.raises(ConversationBusyError):
        await storage.ledger.reserve(replace(turn, at=late))
    assert await storage.ledger.abandoned(at=late + 2 * LEASE, lease_until=late + 3 * LEASE, limit=10) == [hold]


async def test_what_is_settled_or_released_is_not_abandoned(storage: Storage) -> None:
    await storage.ledger.settle(await storage.ledger.reserve(reservation()), settlement())
    await storage.ledger.release(await storage.ledger.reserve(reservation()))
    assert await storage.ledger.abandoned(at=NOON + 2 * LEASE, lease_until=NOON + 3 * LEASE, limit=10) == []


async def test_an_entry_names_the_providers_response_also_where_pend_never_came_through(storage: Storage) -> None:
    hold = await storage.ledger.reserve(reservation())
    await storage.ledger.settle(replace(hold, provider_response_id="resp_theirs"), settlement())
    entry = await storage.ledger.entry(hold.tenant_id, hold.response_id)
    assert entry is not None
    assert entry.provider_response_id == "resp_theirs"


# What a process leaves behind, and what the provider says of it later


@pytest.mark.parametrize("metadata", [None, {}, {"order": "Grüße 👋"}])
async def test_the_abandoned_come_with_all_that_their_process_knew(
    storage: Storage, metadata: dict[str, str] | None
) -> None:
    said, _ = exchange("Grüße\0 👋", "")
    hold = await storage.ledger.reserve(reservation(message=said, metadata=metadata, is_asked=False))
    assert (hold.message, hold.is_asked) == (said, False)
    hold = await storage.ledger.ask(hold, transcript_id="conv_theirs")
    hold = await storage.ledger.pend(hold, provider_response_id="resp_theirs", model="gpt-4o-2024-11-20")
    (found,) = await storage.ledger.abandoned(at=NOON + 2 * LEASE, lease_until=NOON + 3 * LEASE, limit=10)
    assert found == hold
    assert (found.message, found.is_asked, found.transcript_id) == (said, True, "conv_theirs")
    assert found.metadata == metadata
    assert (found.model, found.reported_model) == ("gpt-4o", "gpt-4o-2024-11-20")


async def test_a_clock_that_is_set_back_is_not_waited_for(storage: Storage) -> None:
    hold = await storage.ledger.reserve(reservation())
    guess = await estimated(storage)
    back = NOON - timedelta(hours=5)
    assert list(await storage.ledger.abandoned(at=back, lease_until=back + LEASE, limit=10)) == [hold]
    assert await storage.ledger.abandoned(at=back, lease_until=back + LEASE, limit=10) == []
    (bare,) = await storage.ledger.estimated(at=back, next_at=back + LEASE, limit=10)
    assert bare.response_id == guess.response_id
    assert list(await storage.ledger.estimated(at=back, next_at=back + LEASE, limit=10)) == []


async def test_what_was_given_up_is_not_asked(storage: Storage) -> None:
    hold = await storage.ledger.reserve(reservation(is_asked=False))
    await storage.ledger.release(hold, unless_asked=True)
    with pytest.raises(ServiceUnavailableError, match="given up"):
        await storage.ledger.ask(hold, transcript_id=None)
    assert await storage.conversations.get("tenant", hold.conversation_id) is None


async def test_what_was_asked_meanwhile_is_not_given_up(storage: Storage) -> None:
    hold = await storage.ledger.reserve(reservation(is_asked=False))
    await storage.ledger.ask(hold, transcript_id=None)
    await storage.ledger.release(hold, unless_asked=True)
    assert await storage.ledger.settle(hold, settlement()) is not None


ESTIMATE: dict[str, Any] = {"estimated": True, "status": "incomplete", "cost": "0.5", "open_until": NOON + 20 * LEASE}


async def estimated(storage: Storage, **more: Any) -> Hold:
    """An exchange whose provider may yet say what it came to."""
    hold = await storage.ledger.reserve(reservation())
    hold = await storage.ledger.pend(hold, provider_response_id="resp_theirs", model="gpt-4o-2024-11-20")
    await storage.ledger.settle(hold, settlement(messages=exchange("Hello", "H"), **ESTIMATE | more))
    return hold


@pytest.mark.parametrize("model", ["gpt-4o-2024-11-20", "gpt-4o-mini"])
async def test_a_correction_moves_every_counter_by_the_difference_once(storage: Storage, model: str) -> None:
    hold = await estimated(storage)
    exact = settlement(cost="0.2", usage=Usage(input_tokens=7, output_tokens=3), model=model)
    corrected = await storage.ledger.correct(hold, exact)
    assert corrected is not None
    assert (corrected.message_number, corrected.spent) == (1, usd("0.2"))
    entry = await storage.ledger.entry("tenant", hold.response_id)
    assert entry is not None
    assert (entry.status, entry.estimated, entry.cost, entry.model) == ("completed", False, usd("0.2"), model)
    assert (entry.usage, entry.provider_response_id) == (exact.usage, "resp_theirs")
    said = await storage.conversations.last_messages("tenant", "user", hold.conversation_id, limit=None)
    assert [(message.text, message.status) for message in said] == [("Hello", "completed"), ("Hi", "completed")]
    assert sum(row.cost for row in await storage.reports.daily("tenant", "user", TODAY)) == usd("0.2")
    assert sum(row.estimated_cost for row in await storage.reports.daily("tenant", "user", TODAY)) == ZERO
    assert await storage.ledger.correct(hold, settlement(cost="9")) is None
    assert await storage.ledger.estimated(at=NOON + LEASE, next_at=NOON + 2 * LEASE, limit=10) == []
    assert await reserved(storage) == ZERO


@pytest.mark.parametrize(("answered", "status"), [(True, "incomplete"), (False, "failed")])
async def test_a_reply_of_which_text_is_kept_is_incomplete_also_where_the_provider_says_failed(
    storage: Storage, answered: bool, status: str
) -> None:
    hold = await estimated(storage, answered=answered)
    end = settlement(status="failed", usage=Usage(), cost="0", answered=False, messages=())
    assert await storage.ledger.correct(hold, end) is not None
    entry = await storage.ledger.entry("tenant", hold.response_id)
    assert entry is not None
    assert (entry.status, entry.answered, entry.estimated, entry.cost) == (status, answered, False, ZERO)
    await assert_balanced(storage)


async def test_of_ten_corrections_at_once_one_counts(storage: Storage) -> None:
    hold = await estimated(storage)
    done, errors = await at_once(*[storage.ledger.correct(hold, settlement(cost="0.2")) for _ in range(10)])
    assert errors == []
    assert sum(one is not None for one in done) == 1
    await assert_balanced(storage)


async def test_what_is_exact_is_never_corrected_nor_by_an_estimate(storage: Storage) -> None:
    hold = await storage.ledger.reserve(reservation())
    assert await storage.ledger.correct(hold, settlement(cost="9")) is None
    await storage.ledger.pend(hold, provider_response_id="resp_theirs", model="gpt-4o")
    assert await storage.ledger.correct(hold, settlement(cost="9")) is None
    await storage.ledger.settle(hold, settlement())
    assert await storage.ledger.correct(hold, settlement(cost="9")) is None
    guessed = await estimated(storage)
    assert await storage.ledger.correct(guessed, settlement(cost="9", estimated=True)) is None
    await assert_balanced(storage)


async def test_a_cancelled_reply_keeps_its_words_when_its_cost_is_corrected(storage: Storage) -> None:
    hold = await estimated(storage, status="cancelled")
    assert await storage.ledger.correct(hold, settlement(cost="0.2")) is not None
    entry = await storage.ledger.entry("tenant", hold.response_id)
    assert entry is not None
    assert (entry.status, entry.cost) == ("cancelled", usd("0.2"))
    said = await storage.conversations.last_messages("tenant", "user", hold.conversation_id, limit=None)
    assert [message.text for message in said] == ["Hello", "H"]
    await assert_balanced(storage)


async def test_a_correction_brings_nothing_back_that_was_erased(storage: Storage) -> None:
    hold = await estimated(storage)
    await storage.conversations.erase("tenant", "user", hold.conversation_id, at=NOON, remembered=b"{}")
    corrected = await storage.ledger.correct(hold, settlement(cost="0.2"))
    assert corrected is not None
    assert (corrected.message_number, corrected.spent) == (0, usd("0.2"))
    assert await storage.conversations.get("tenant", hold.conversation_id) is None
    key = "tenant", "user", hold.conversation_id
    assert list(await storage.conversations.last_messages(*key, limit=None)) == []


async def test_estimates_are_handed_out_one_by_one_until_their_time_is_over(storage: Storage) -> None:
    said, _ = exchange("private", "")
    hold = await storage.ledger.reserve(reservation(message=said, metadata={"private": "17"}))
    hold = await storage.ledger.pend(hold, provider_response_id="resp_theirs", model="gpt-4o")
    await storage.ledger.settle(hold, settlement(**ESTIMATE))
    bare = replace(hold, message=None, metadata=None)
    at = NOON + LEASE
    handed, errors = await at_once(*[storage.ledger.estimated(at=at, next_at=at + LEASE, limit=10) for _ in range(4)])
    assert errors == []
    assert [each for some in handed for each in some] == [bare]
    late = NOON + 20 * LEASE
    assert list(await storage.ledger.estimated(at=at + LEASE, next_at=late, limit=10)) == [bare]
    assert list(await storage.ledger.estimated(at=late, next_at=late, limit=10)) == []


async def test_what_is_settled_for_good_is_not_asked_for_again(storage: Storage) -> None:
    await estimated(storage, open_until=None)
    await storage.ledger.settle(await storage.ledger.reserve(reservation()), settlement())
    assert list(await storage.ledger.estimated(at=NOON + LEASE, next_at=NOON + 2 * LEASE, limit=10)) == []
