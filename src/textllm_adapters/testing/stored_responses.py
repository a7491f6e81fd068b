"""What everything keeps that keeps the port `StoredResponses`."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from textllm_adapters.testing.books import NOON, assert_balanced, next_turn, reservation, settlement
from textllm_adapters.testing.edited_conversations import edited
from textllm_adapters.testing.managed_conversations import GONE, add
from textllm_adapters.testing.storage import Storage
from textllm_core.errors import BudgetExceededError, ConversationBusyError
from textllm_core.records.ledger import Reservation
from textllm_core.records.messages import Message, reply_message_id
from textllm_core.records.parts import OutputText
from textllm_core.records.stored_responses import AskedResponse, FollowedResponse, ResponseFailure, StoredResponse

ASKED = AskedResponse(message_ids=("msg_1", "msg_2"), asked='{"instructions":"Be brief."}', is_of_conversation=True)
IN_BACKGROUND = replace(ASKED, is_background=True)


def kept_of(asked: Reservation) -> StoredResponse:
    stored = asked.stored_response
    assert stored is not None
    return stored


async def kept(storage: Storage, conversation_id: str | None = None, asked: AskedResponse = ASKED) -> StoredResponse:
    """A response that has ended; its conversation has no messages."""
    conversation_id = conversation_id or await add(storage)
    of_turn = await next_turn(storage, conversation_id, response=asked)
    await storage.ledger.settle(await storage.ledger.reserve(of_turn), settlement(messages=()))
    return kept_of(of_turn)


class StoredResponsesContract:
    """Responses can be asked for again, for as long as their conversation is there.

    Fixture `storage`: a `Storage` over an empty store, of this test alone.
    """

    pytestmark = pytest.mark.asyncio

    async def test_one_is_there_as_soon_as_its_turn_is_admitted(self, storage: Storage) -> None:
        first = reservation(response=ASKED)
        hold = await storage.ledger.reserve(first)
        assert await storage.ledger.reserve(first) == hold
        assert await storage.responses.get("tenant", first.response_id) == kept_of(first)
        await storage.ledger.settle(hold, settlement())
        for more in ({}, {"at": NOON + timedelta(days=1)}):  # in the session of its conversation, and in another one
            following = await next_turn(storage, first.conversation_id, response=IN_BACKGROUND, **more)
            await storage.ledger.settle(await storage.ledger.reserve(following), settlement())
            assert await storage.responses.get("tenant", following.response_id) == kept_of(following)
        assert await storage.responses.get("tenant", first.response_id) == kept_of(first)

    async def test_of_a_turn_that_is_refused_there_is_none(self, storage: Storage) -> None:
        held = await storage.ledger.reserve(reservation(cost="60"))
        unheld = reservation(cost="60", response=ASKED)
        busy = await next_turn(storage, held.conversation_id, response=ASKED)
        for refused, why in ((unheld, BudgetExceededError), (busy, ConversationBusyError)):
            with pytest.raises(why):
                await storage.ledger.reserve(refused)
            assert await storage.responses.get("tenant", refused.response_id) is None

    @pytest.mark.parametrize("begins", [True, False])
    async def test_with_a_release_goes_what_nobody_was_told_of(self, storage: Storage, begins: bool) -> None:
        async def asked(response: AskedResponse) -> Reservation:
            if begins:
                return reservation(response=response)
            return await next_turn(storage, await add(storage), response=response)

        for failure in (None, ResponseFailure("service_unavailable", "Its worker ended.")):
            told = await asked(ASKED)
            await storage.ledger.release(await storage.ledger.reserve(told), failure=failure)
            assert await storage.responses.get("tenant", told.response_id) is None
            told = await next_turn(storage, await add(storage), response=IN_BACKGROUND)
            await storage.ledger.release(await storage.ledger.reserve(told), failure=failure)
            assert await storage.responses.get("tenant", told.response_id) == replace(kept_of(told), failure=failure)

    @pytest.mark.parametrize("asked", [ASKED, IN_BACKGROUND])
    async def test_with_a_settlement_goes_what_nobody_was_told_of(self, storage: Storage, asked: AskedResponse) -> None:
        for is_untold in (True, False):
            of_turn = reservation(response=asked)
            hold = await storage.ledger.reserve(of_turn)
            end = settlement(messages=(), answered=False, is_untold=is_untold)
            assert await storage.ledger.settle(hold, end) is not None
            found = await storage.responses.get("tenant", hold.response_id)
            assert found == (None if is_untold and not asked.is_background else kept_of(of_turn))
            await storage.ledger.settle(hold, replace(end, is_untold=True))  # it is settled already
            assert await storage.responses.get("tenant", hold.response_id) == found
        await assert_balanced(storage)

    async def test_another_tenant_has_none_of_it(self, storage: Storage) -> None:
        stored = await kept(storage)
        assert await storage.responses.get("another", stored.id) is None
        assert await storage.responses.remove("another", "user", stored.id) is None
        assert await storage.responses.remove("tenant", "other", stored.id) is None
        assert await storage.responses.get("tenant", "resp_x") is None

    async def test_whoever_follows_one_learns_of_its_conversation_and_whether_it_is_the_last(
        self, storage: Storage
    ) -> None:
        conversation_id = await add(storage)
        assert await storage.responses.followed("tenant", "resp_x") is None
        stored = await kept(storage, conversation_id)
        reply, later = (
            Message(id=it, role="assistant", content=(OutputText("Well."),), created_at=NOON)
            for it in (reply_message_id(stored.id), "msg_later")
        )
        edits: list[tuple[dict[str, Any], bool]] = [
            ({}, False),
            ({"added": (reply,)}, True),
            ({"added": (later,)}, False),
            ({"removed": later.id}, True),
        ]
        for edit, is_last in edits:
            await edited(storage, conversation_id, **edit)
            state = await storage.conversations.state("tenant", conversation_id)
            assert state is not None
            known = FollowedResponse(
                id=stored.id, conversation=state, is_of_conversation=True, has_failed=False, is_last=is_last
            )
            assert await storage.responses.followed("tenant", stored.id) == known
        made = await kept(storage, conversation_id, replace(ASKED, is_of_conversation=False))
        await storage.responses.fail("tenant", "user", stored.id, ResponseFailure("provider_error", "It broke off."))
        for each, is_of_conversation, has_failed in ((stored, True, True), (made, False, False)):
            followed = await storage.responses.followed("tenant", each.id)
            assert followed is not None
            assert (followed.is_of_conversation, followed.has_failed) == (is_of_conversation, has_failed)
        assert await storage.responses.followed("another", stored.id) is None
        await storage.conversations.hide("tenant", "user", conversation_id, at=NOON)
        assert await storage.responses.followed("tenant", stored.id) is None

    async def test_why_it_failed_is_kept(self, storage: Storage) -> None:
        failure = ResponseFailure("provider_error", "It broke off.")
        await storage.responses.fail("tenant", "user", "resp_x", failure)
        assert await storage.responses.get("tenant", "resp_x") is None
        stored = await kept(storage)
        await storage.responses.fail("tenant", "user", stored.id, failure)
        assert await storage.responses.get("tenant", stored.id) == replace(stored, failure=failure)

    async def test_who_removes_one_learns_how_many_others_its_conversation_has(self, storage: Storage) -> None:
        conversation_id, other = await add(storage), await add(storage)
        stored = [await kept(storage, each) for each in (conversation_id, conversation_id, other)]
        assert [await storage.responses.remove("tenant", "user", each.id) for each in stored] == [1, 0, 0]
        assert await storage.responses.remove("tenant", "user", stored[0].id) is None
        assert await storage.responses.get("tenant", stored[0].id) is None

    async def test_it_goes_with_its_conversation(self, storage: Storage) -> None:
        conversation_id = await add(storage)
        stored = await kept(storage, conversation_id)
        await storage.conversations.hide("tenant", "user", conversation_id, at=NOON)
        assert await storage.responses.get("tenant", stored.id) is None
        await storage.conversations.restore("tenant", "user", conversation_id)
        assert await storage.responses.get("tenant", stored.id) == stored
        await storage.conversations.erase("tenant", "user", conversation_id, at=NOON, remembered=GONE)
        assert await storage.responses.get("tenant", stored.id) is None
