"""What every ledger keeps of the port `Ledger` at the ends of exchanges: releases, abandoned ones, corrections."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from textllm_adapters.testing.books import (
    LEASE,
    NOON,
    PRICE,
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
from textllm_adapters.testing.storage import Storage
from textllm_core.errors import (
    ConversationBusyError,
    ServiceUnavailableError,
)
from textllm_core.money import ZERO
from textllm_core.records.conversations import ConversationChanges
from textllm_core.records.ledger import Hold
from textllm_core.usage import Usage

ESTIMATE: dict[str, Any] = {"estimated": True, "status": "incomplete", "cost": "0.5", "open_until": NOON + 20 * LEASE}


async def estimated(storage: Storage, **more: Any) -> Hold:
    """An exchange whose provider may yet say what it came to."""
    hold = await storage.ledger.reserve(reservation())
    hold = await storage.ledger.pend(hold, provider_response_id="resp_theirs", model="gpt-4o-2024-11-20")
    await storage.ledger.settle(hold, settlement(messages=exchange("Hello", "H"), **ESTIMATE | more))
    return hold


class LedgerEndsContract:
    """What every ledger keeps of the port `Ledger` at the ends of exchanges: releases, abandoned ones, corrections.

    Fixture `storage`: a `Storage` over an empty store, of this test alone.
    """

    pytestmark = pytest.mark.asyncio

    async def test_a_release_gives_everything_back(self, storage: Storage) -> None:
        first = await storage.ledger.reserve(reservation())
        await storage.ledger.settle(first, settlement())
        hold = await storage.ledger.reserve(await next_turn(storage, first.conversation_id))
        await storage.ledger.release(hold)
        assert await storage.ledger.entry("tenant", hold.response_id) is None
        assert await storage.ledger.settle(hold, settlement()) is None
        await assert_balanced(storage)
        await storage.ledger.reserve(await next_turn(storage, first.conversation_id))

    async def test_an_entry_says_which_calls_of_tools_were_charged(self, storage: Storage) -> None:
        price = replace(PRICE, calls={"web_search": usd("0.01"), "mcp": usd("0.001")})
        hold = await storage.ledger.reserve(reservation(price=price, is_resumable=True))
        (found,) = await storage.ledger.abandoned(at=NOON + 2 * LEASE, lease_until=NOON + 3 * LEASE, limit=1)
        assert (found.price, hold.price) == (price, price)
        used = Usage(input_tokens=100, output_tokens=20, tool_calls={"web_search": 2, "mcp": 1})
        await storage.ledger.settle(
            hold, settlement(usage=used, rates=price.charged(used), **ESTIMATE | {"cost": "0.0215"})
        )
        entry = await storage.ledger.entry("tenant", hold.response_id)
        assert entry is not None
        assert (entry.usage, entry.cost) == (used, usd("0.0215"))
        fewer = replace(used, tool_calls={"web_search": 1})
        await storage.ledger.correct(hold, settlement(cost="0.0105", usage=fewer, rates=price.charged(fewer)))
        entry = await storage.ledger.entry("tenant", hold.response_id)
        assert entry is not None
        assert (entry.usage, entry.cost) == (fewer, usd("0.0105"))
        await assert_balanced(storage)

    async def test_a_release_takes_the_pending_entry_with_it(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        await storage.ledger.pend(hold, provider_response_id=None, model="gpt-4o")
        await storage.ledger.release(hold)
        assert await storage.ledger.entries("tenant", "user") == []

    async def test_a_release_takes_the_conversation_made_for_it_as_well(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        await storage.ledger.release(hold)
        assert await storage.conversations.get("tenant", hold.conversation_id) is None

    async def test_a_session_in_which_no_turn_is_left_goes_with_the_release_of_the_last(self, storage: Storage) -> None:
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
    async def test_a_release_leaves_a_session_as_it_was(self, storage: Storage, is_ended: bool, is_new: bool) -> None:
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

    async def test_a_release_leaves_a_session_in_which_another_turn_runs_open(self, storage: Storage) -> None:
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
        self, storage: Storage, title: str | None
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

    async def test_a_release_leaves_a_conversation_in_the_session_of_its_last_turn(self, storage: Storage) -> None:
        first = await storage.ledger.reserve(reservation())
        await storage.ledger.settle(first, settlement())
        before = await storage.conversations.get("tenant", first.conversation_id)
        tomorrow = NOON + timedelta(days=1)
        hold = await storage.ledger.reserve(await next_turn(storage, first.conversation_id, at=tomorrow))
        await storage.ledger.release(hold)
        assert await storage.conversations.get("tenant", first.conversation_id) == before
        assert await storage.sessions.of_day("tenant", "user", tomorrow.date()) is None

    @pytest.mark.parametrize("title", ["Mine", "Hello"])
    @pytest.mark.parametrize("is_new", [True, False])
    async def test_words_of_a_turn_of_which_nothing_stays_are_no_title(
        self, storage: Storage, is_new: bool, title: str
    ) -> None:
        asked = reservation()
        if not is_new:
            made = await storage.conversations.add("tenant", empty_conversation(None), keeps_messages=True)
            asked = await next_turn(storage, made.id)
        hold = await storage.ledger.reserve(asked)
        if title == "Mine":
            changes = ConversationChanges(title=title)
            await storage.conversations.update("tenant", "user", hold.conversation_id, changes)
        unsaid: dict[str, Any] = {"answered": False, "messages": (), "status": "failed", "unsaid": "Hello"}
        await storage.ledger.settle(hold, settlement(**unsaid))
        found = await storage.conversations.get("tenant", hold.conversation_id)
        assert found is not None
        assert found.title == (title if title == "Mine" else None)
        again = await storage.ledger.reserve(await next_turn(storage, hold.conversation_id))
        await storage.ledger.settle(again, settlement(messages=exchange("Hello", "Hi")))
        later = await storage.ledger.reserve(await next_turn(storage, hold.conversation_id))
        await storage.ledger.settle(later, settlement(**unsaid))
        found = await storage.conversations.get("tenant", hold.conversation_id)
        assert found is not None
        assert found.title == title
        await assert_balanced(storage)

    async def test_a_release_leaves_a_title_that_was_given_meanwhile(self, storage: Storage) -> None:
        made = await storage.conversations.add("tenant", empty_conversation(None), keeps_messages=True)
        hold = await storage.ledger.reserve(await next_turn(storage, made.id))
        await storage.conversations.update("tenant", "user", made.id, ConversationChanges(title="Mine"))
        await storage.ledger.release(hold)
        found = await storage.conversations.get("tenant", made.id)
        assert found is not None
        assert found.title == "Mine"

    async def test_releasing_twice_does_no_harm(self, storage: Storage) -> None:
        other = await storage.ledger.reserve(reservation())
        hold = await storage.ledger.reserve(reservation())
        _, errors = await at_once(*[storage.ledger.release(hold) for _ in range(5)])
        assert errors == []
        assert await reserved(storage) == other.amount

    async def test_releasing_what_is_settled_does_nothing(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        await storage.ledger.settle(hold, settlement())
        await storage.ledger.release(hold)
        await assert_balanced(storage)

    async def test_the_abandoned_are_those_whose_lease_ran_out_and_each_is_handed_out_once(
        self, storage: Storage
    ) -> None:
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

    async def test_the_abandoned_are_leased_again_and_their_conversation_stays_busy(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        turn = await next_turn(storage, hold.conversation_id)
        late = NOON + 2 * LEASE
        await storage.ledger.abandoned(at=late, lease_until=late + LEASE, limit=10)
        with pytest.raises(ConversationBusyError):
            await storage.ledger.reserve(replace(turn, at=late))
        assert await storage.ledger.abandoned(at=late + 2 * LEASE, lease_until=late + 3 * LEASE, limit=10) == [hold]

    async def test_what_is_settled_or_released_is_not_abandoned(self, storage: Storage) -> None:
        await storage.ledger.settle(await storage.ledger.reserve(reservation()), settlement())
        await storage.ledger.release(await storage.ledger.reserve(reservation()))
        assert await storage.ledger.abandoned(at=NOON + 2 * LEASE, lease_until=NOON + 3 * LEASE, limit=10) == []

    async def test_an_entry_names_the_providers_response_also_where_pend_never_came_through(
        self, storage: Storage
    ) -> None:
        hold = await storage.ledger.reserve(reservation())
        await storage.ledger.settle(replace(hold, provider_response_id="resp_theirs"), settlement())
        entry = await storage.ledger.entry(hold.tenant_id, hold.response_id)
        assert entry is not None
        assert entry.provider_response_id == "resp_theirs"

    @pytest.mark.parametrize("metadata", [None, {}, {"order": "Grüße 👋"}])
    async def test_the_abandoned_come_with_all_that_their_process_knew(
        self, storage: Storage, metadata: dict[str, str] | None
    ) -> None:
        said, _ = exchange("Grüße\0 👋", "")
        before = exchange("What\0 came", "before")
        asked = reservation(message=said, said_before=before, metadata=metadata, is_asked=False)
        hold = await storage.ledger.reserve(asked)
        assert (hold.said_before, hold.message, hold.is_asked) == (before, said, False)
        hold = await storage.ledger.ask(hold, transcript_id="conv_theirs")
        hold = await storage.ledger.pend(hold, provider_response_id="resp_theirs", model="gpt-4o-2024-11-20")
        (found,) = await storage.ledger.abandoned(at=NOON + 2 * LEASE, lease_until=NOON + 3 * LEASE, limit=10)
        assert found == hold
        assert (*found.said, found.is_asked, found.transcript_id) == (*before, said, True, "conv_theirs")
        assert found.metadata == metadata
        assert (found.model, found.reported_model) == ("gpt-4o", "gpt-4o-2024-11-20")

    async def test_another_model_that_is_asked_is_known_to_whoever_settles(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        price = replace(hold.price, source="of another")
        hold = await storage.ledger.ask(replace(hold, model="other/größer", price=price), transcript_id=None)
        (found,) = await storage.ledger.abandoned(at=NOON + 2 * LEASE, lease_until=NOON + 3 * LEASE, limit=10)
        assert found == hold
        assert (found.model, found.price) == ("other/größer", price)

    async def test_a_clock_that_is_set_back_is_not_waited_for(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        guess = await estimated(storage)
        back = NOON - timedelta(hours=5)
        assert list(await storage.ledger.abandoned(at=back, lease_until=back + LEASE, limit=10)) == [hold]
        assert await storage.ledger.abandoned(at=back, lease_until=back + LEASE, limit=10) == []
        (bare,) = await storage.ledger.estimated(at=back, next_at=back + LEASE, limit=10)
        assert bare.response_id == guess.response_id
        assert list(await storage.ledger.estimated(at=back, next_at=back + LEASE, limit=10)) == []

    async def test_what_was_given_up_is_not_asked(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation(is_asked=False))
        assert await storage.ledger.release(hold, unless_asked=True)
        assert not await storage.ledger.release(hold, unless_asked=True)
        with pytest.raises(ServiceUnavailableError, match="given up"):
            await storage.ledger.ask(hold, transcript_id=None)
        assert await storage.conversations.get("tenant", hold.conversation_id) is None

    async def test_what_was_asked_meanwhile_is_not_given_up(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation(is_asked=False))
        await storage.ledger.ask(hold, transcript_id=None)
        assert not await storage.ledger.release(hold, unless_asked=True)
        assert await storage.ledger.settle(hold, settlement()) is not None

    @pytest.mark.parametrize("model", ["gpt-4o-2024-11-20", "gpt-4o-mini"])
    async def test_a_correction_moves_every_counter_by_the_difference_once(self, storage: Storage, model: str) -> None:
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
        self, storage: Storage, answered: bool, status: str
    ) -> None:
        hold = await estimated(storage, answered=answered)
        end = settlement(status="failed", usage=Usage(), cost="0", answered=False, messages=())
        assert await storage.ledger.correct(hold, end) is not None
        entry = await storage.ledger.entry("tenant", hold.response_id)
        assert entry is not None
        assert (entry.status, entry.answered, entry.estimated, entry.cost) == (status, answered, False, ZERO)
        await assert_balanced(storage)

    async def test_of_ten_corrections_at_once_one_counts(self, storage: Storage) -> None:
        hold = await estimated(storage)
        done, errors = await at_once(*[storage.ledger.correct(hold, settlement(cost="0.2")) for _ in range(10)])
        assert errors == []
        assert sum(one is not None for one in done) == 1
        await assert_balanced(storage)

    async def test_what_is_exact_is_never_corrected_nor_by_an_estimate(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        assert await storage.ledger.correct(hold, settlement(cost="9")) is None
        await storage.ledger.pend(hold, provider_response_id="resp_theirs", model="gpt-4o")
        assert await storage.ledger.correct(hold, settlement(cost="9")) is None
        await storage.ledger.settle(hold, settlement())
        assert await storage.ledger.correct(hold, settlement(cost="9")) is None
        guessed = await estimated(storage)
        assert await storage.ledger.correct(guessed, settlement(cost="9", estimated=True)) is None
        await assert_balanced(storage)

    async def test_a_cancelled_reply_keeps_its_words_when_its_cost_is_corrected(self, storage: Storage) -> None:
        hold = await estimated(storage, status="cancelled")
        assert await storage.ledger.correct(hold, settlement(cost="0.2")) is not None
        entry = await storage.ledger.entry("tenant", hold.response_id)
        assert entry is not None
        assert (entry.status, entry.cost) == ("cancelled", usd("0.2"))
        said = await storage.conversations.last_messages("tenant", "user", hold.conversation_id, limit=None)
        assert [message.text for message in said] == ["Hello", "H"]
        await assert_balanced(storage)

    async def test_a_correction_brings_nothing_back_that_was_erased(self, storage: Storage) -> None:
        hold = await estimated(storage)
        await storage.conversations.erase("tenant", "user", hold.conversation_id, at=NOON, remembered=b"{}")
        corrected = await storage.ledger.correct(hold, settlement(cost="0.2"))
        assert corrected is not None
        assert (corrected.message_number, corrected.spent) == (0, usd("0.2"))
        assert await storage.conversations.get("tenant", hold.conversation_id) is None
        key = "tenant", "user", hold.conversation_id
        assert list(await storage.conversations.last_messages(*key, limit=None)) == []

    async def test_estimates_are_handed_out_one_by_one_until_their_time_is_over(self, storage: Storage) -> None:
        said, reply = exchange("private", "")
        asked = reservation(message=said, said_before=(reply,), metadata={"private": "17"})
        hold = await storage.ledger.reserve(asked)
        hold = await storage.ledger.pend(hold, provider_response_id="resp_theirs", model="gpt-4o")
        await storage.ledger.settle(hold, settlement(**ESTIMATE))
        bare = replace(hold, message=None, said_before=(), metadata=None)
        at = NOON + LEASE
        handed, errors = await at_once(
            *[storage.ledger.estimated(at=at, next_at=at + LEASE, limit=10) for _ in range(4)]
        )
        assert errors == []
        assert [each for some in handed for each in some] == [bare]
        late = NOON + 20 * LEASE
        assert list(await storage.ledger.estimated(at=at + LEASE, next_at=late, limit=10)) == [bare]
        assert list(await storage.ledger.estimated(at=late, next_at=late, limit=10)) == []

    async def test_what_is_settled_for_good_is_not_asked_for_again(self, storage: Storage) -> None:
        await estimated(storage, open_until=None)
        await storage.ledger.settle(await storage.ledger.reserve(reservation()), settlement())
        assert list(await storage.ledger.estimated(at=NOON + LEASE, next_at=NOON + 2 * LEASE, limit=10)) == []
