"""What every repository of conversations keeps of the port `ConversationRepository`, of those that go by themselves."""

from datetime import timedelta
from typing import Any

import pytest

from textllm_adapters.testing.books import (
    LEASE,
    NOON,
    TODAY,
    at_once,
    exchange,
    next_turn,
    reservation,
    reserved,
    settlement,
    usd,
)
from textllm_adapters.testing.managed_conversations import GONE, conversation, ids
from textllm_adapters.testing.storage import Storage
from textllm_core.errors import ConversationBusyError
from textllm_core.money import ZERO
from textllm_core.records.ledger import AlreadySettledError, Hold, Settlement
from textllm_core.records.messages import Idempotency

SOON, LATER = NOON + timedelta(minutes=1), NOON + timedelta(days=30)


def of_nothing(**more: Any) -> Settlement:
    """The end of a turn of which nothing is kept."""
    return settlement(messages=(), transcript_id=None, **more)


async def of_one_turn(storage: Storage, **more: Any) -> Hold:
    hold = await storage.ledger.reserve(reservation(keeps_messages=False, title=None, expires_at=NOON, **more))
    await storage.ledger.settle(hold, of_nothing(remembered=b"told"))
    return hold


async def for_a_time(storage: Storage, **more: Any) -> Hold:
    hold = await storage.ledger.reserve(reservation(expires_at=LATER, **more))
    await storage.ledger.settle(hold, settlement())
    return hold


class ExpiringConversationsContract:
    """Conversations that go by themselves are known by their ids alone, and what they cost stays.

    Fixture `storage`: a `Storage` over an empty store, of this test alone.
    """

    pytestmark = pytest.mark.asyncio

    async def test_they_are_in_no_list_and_count_as_none(self, storage: Storage) -> None:
        stays = await storage.ledger.reserve(reservation())
        await storage.ledger.settle(stays, settlement())
        goes = await for_a_time(storage, at=SOON)
        await of_one_turn(storage, at=SOON)
        made = await storage.conversations.add("tenant", conversation(), keeps_messages=True, expires_at=LATER)
        taken_in = await storage.conversations.add_imported(
            "tenant", conversation(), exchange("Hello", "Hi"), context_tokens=7, at_most=None, expires_at=LATER
        )
        assert taken_in is not None
        assert await ids(storage) == [stays.conversation_id]
        assert await ids(storage, search="hello") == [stays.conversation_id]
        assert await storage.conversations.count("tenant", "user", at_most=9) == 1
        latest = await storage.conversations.latest("tenant", "user")
        assert latest is not None
        assert latest.id == stays.conversation_id
        for known in (goes.conversation_id, made.id, taken_in.id):
            assert await storage.conversations.get("tenant", known) is not None
        await storage.ledger.reserve(await next_turn(storage, goes.conversation_id, at=SOON))

    async def test_those_that_keep_nothing_go_by_hundreds_and_the_books_stay(self, storage: Storage) -> None:
        gone = [await of_one_turn(storage) for _ in range(3)]
        keyed = await of_one_turn(storage, idempotency=Idempotency("key", "route", "same"))
        running = await storage.ledger.reserve(reservation(keeps_messages=False, expires_at=NOON))
        kept = await for_a_time(storage)
        assert await storage.conversations.forget_expired(at=NOON - LEASE, limit=9) == 0
        assert [await storage.conversations.forget_expired(at=SOON, limit=3) for _ in range(3)] == [3, 1, 0]
        for hold in (*gone, keyed):
            assert await storage.conversations.get("tenant", hold.conversation_id) is None
            entry = await storage.ledger.entry("tenant", hold.response_id)
            assert entry is not None
            assert entry.cost == usd("0.25")
        session = await storage.sessions.of_day("tenant", "user", TODAY)
        assert session is not None
        assert session.total_cost == usd("1.25")
        with pytest.raises(AlreadySettledError) as told:
            await storage.ledger.reserve(reservation(idempotency=Idempotency("key", "route", "same")))
        assert told.value.replay.remembered == b"told"
        assert await storage.ledger.settle(running, of_nothing()) is not None
        assert await storage.conversations.forget_expired(at=LATER, limit=9) == 1
        assert await storage.conversations.get("tenant", kept.conversation_id) is not None
        assert await reserved(storage) == ZERO

    async def test_an_estimate_is_set_right_though_its_conversation_has_gone(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation(keeps_messages=False, expires_at=NOON))
        hold = await storage.ledger.pend(hold, provider_response_id="resp_theirs", model="gpt-4o")
        await storage.ledger.settle(hold, of_nothing(estimated=True, status="incomplete", open_until=NOON + 20 * LEASE))
        assert await storage.conversations.forget_expired(at=SOON, limit=9) == 1
        assert await storage.ledger.correct(hold, of_nothing(cost="0.5")) is not None
        entry = await storage.ledger.entry("tenant", hold.response_id)
        assert entry is not None
        assert (entry.cost, entry.estimated) == (usd("0.5"), False)

    async def test_those_that_keep_something_are_named_unless_they_are_busy(self, storage: Storage) -> None:
        first, second = await for_a_time(storage), await for_a_time(storage)
        busy = await for_a_time(storage)
        await storage.ledger.reserve(await next_turn(storage, busy.conversation_id))
        assert await storage.conversations.expired(at=LATER - LEASE, limit=9) == []
        found = await storage.conversations.expired(at=LATER, limit=9)
        at = settlement().at
        assert set(found) == {("tenant", "user", hold.conversation_id, at) for hold in (first, second)}
        await storage.conversations.expire("tenant", "user", first.conversation_id, at=LATER + LEASE)
        assert [each[2] for each in await storage.conversations.expired(at=LATER, limit=9)] == [second.conversation_id]
        await storage.conversations.erase("tenant", "user", second.conversation_id, at=NOON, remembered=GONE)
        assert [each[2] for each in await storage.conversations.expired(at=LATER + LEASE, limit=9)] == [
            first.conversation_id
        ]

    async def test_those_that_stay_are_read_by_when_they_began_a_page_at_a_time(self, storage: Storage) -> None:
        tenant, at = "tenant", settlement().at
        begun = [await storage.ledger.reserve(reservation(at=NOON + number * LEASE)) for number in (2, 0, 1, 3, 3)]
        for hold in begun:
            await storage.ledger.settle(hold, settlement())
        await storage.conversations.hide(tenant, "user", begun[1].conversation_id, at=NOON)
        await for_a_time(storage)
        before = NOON + 4 * LEASE
        first = await storage.conversations.begun(before=before, after=None, limit=2)
        assert [each.id for each in first] == [begun[1].conversation_id, begun[2].conversation_id]
        assert [each.created_at for each in first] == [NOON, NOON + LEASE]
        assert {(each.tenant_id, each.user_id, each.updated_at) for each in first} == {(tenant, "user", at)}
        pages = [first]
        while pages[-1]:
            pages.append(await storage.conversations.begun(before=before, after=pages[-1][-1], limit=2))
        assert [len(page) for page in pages] == [2, 2, 1, 0]
        assert {each.id for page in pages for each in page} == {hold.conversation_id for hold in begun}
        assert len(await storage.conversations.begun(before=NOON + 3 * LEASE, after=None, limit=9)) == 3

    async def test_one_in_which_something_was_said_meanwhile_is_not_erased(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        await storage.ledger.settle(hold, settlement())
        erase, said_at = storage.conversations.erase, settlement().at
        with pytest.raises(ConversationBusyError):
            await erase("tenant", "user", hold.conversation_id, at=LATER, remembered=GONE, silent_since=said_at - LEASE)
        assert await ids(storage) == [hold.conversation_id]
        await erase("tenant", "user", hold.conversation_id, at=LATER, remembered=GONE, silent_since=said_at)
        assert await ids(storage) == []

    async def test_one_that_was_restored_meanwhile_is_not_erased(self, storage: Storage) -> None:
        conversations, before = storage.conversations, NOON + LEASE
        hold = await storage.ledger.reserve(reservation())
        await storage.ledger.settle(hold, settlement())
        it = "tenant", "user", hold.conversation_id
        await conversations.hide(*it, at=NOON)
        await conversations.restore(*it)
        for hidden_at in (None, before):
            if hidden_at is not None:
                await conversations.hide(*it, at=hidden_at)
            with pytest.raises(ConversationBusyError):
                await conversations.erase(*it, at=LATER, remembered=GONE, hidden_before=before)
        await conversations.erase(*it, at=LATER, remembered=GONE, hidden_before=LATER)
        assert await ids(storage, include_deleted=True) == []

    async def test_of_a_restoration_and_a_purge_at_once_one_happens_as_a_whole(self, storage: Storage) -> None:
        conversations = storage.conversations
        for _ in range(5):
            hold = await storage.ledger.reserve(reservation())
            await storage.ledger.settle(hold, settlement())
            it = "tenant", "user", hold.conversation_id
            await conversations.hide(*it, at=NOON)
            purge = conversations.erase(*it, at=LATER, remembered=GONE, hidden_before=LATER)
            made, refusals = await at_once(conversations.restore(*it), purge)
            said = await conversations.last_messages(*it, limit=None)
            if refusals:
                assert [type(refusal) for refusal in refusals] == [ConversationBusyError]
                assert (len(said), await conversations.get("tenant", it[2])) == (2, made[0])
            else:
                assert (None in made, list(said)) == (True, [])
                assert await conversations.get("tenant", it[2], include_deleted=True) is None

    async def test_one_that_stays_is_not_made_to_go(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        await storage.ledger.settle(hold, settlement())
        await storage.conversations.expire("tenant", "user", hold.conversation_id, at=NOON)
        assert await storage.conversations.expired(at=LATER, limit=9) == []
        assert await ids(storage) == [hold.conversation_id]
