"""What every repository of conversations keeps of the port `ConversationRepository`, of what was said elsewhere."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from textllm_adapters.testing.books import NOON, assert_balanced, at_once, exchange, next_turn, settlement
from textllm_adapters.testing.managed_conversations import GONE, add, answered, conversation, ids, paged
from textllm_adapters.testing.storage import Storage
from textllm_core.errors import ForbiddenError
from textllm_core.records.conversations import Conversation
from textllm_core.records.messages import Message
from textllm_core.records.tools import ToolCall

SAID = (*exchange("the Nile\0", "It is long."), *exchange("And the Rhine?", "Shorter."))


def elsewhere(**more: Any) -> Conversation:
    return conversation(message_count=2, updated_at=NOON + timedelta(hours=1), **more)


async def imported(storage: Storage, of: Conversation, *said: Message, at_most: int = 9) -> Conversation | None:
    return await storage.conversations.add_imported("tenant", of, said or SAID, context_tokens=77, at_most=at_most)


class ImportedConversationsContract:
    """Conversations that were said elsewhere are kept as if they had been said here.

    Fixture `storage`: a `Storage` over an empty store, of this test alone.
    """

    pytestmark = pytest.mark.asyncio

    async def test_all_of_it_is_kept_and_a_turn_goes_on_with_it(self, storage: Storage) -> None:
        given = elsewhere(title="Rivers", summary="Two\0 rivers.", tags=("geo",), metadata={"k": "v"})
        kept = await imported(storage, given)
        assert kept == replace(given, summary="Two rivers.")
        assert await storage.conversations.get("tenant", given.id) == kept
        assert list(await storage.conversations.last_messages("tenant", "user", given.id, limit=None)) == list(SAID)
        assert await ids(storage, search="nile") == [given.id]
        state = await storage.conversations.state("tenant", given.id)
        assert state is not None
        assert (state.message_count, state.context_tokens, state.transcript_id) == (2, 77, None)
        await storage.ledger.settle(await storage.ledger.reserve(await next_turn(storage, given.id)), settlement())
        went_on = await storage.conversations.get("tenant", given.id)
        assert went_on is not None
        assert (went_on.message_count, went_on.title, went_on.total_tokens_output) == (3, "Rivers", 20)
        texts = ["the Nile\0", "It is long.", "And the Rhine?", "Shorter.", "Hello", "Hi"]
        assert await paged(storage, given.id, newest_first=False, limit=4) == texts
        await assert_balanced(storage)

    async def test_calls_of_its_last_reply_wait_for_their_results(self, storage: Storage) -> None:
        asked, replied = exchange("Is it raining?", "Let me see.")
        call = ToolCall(call_id="call_1", name="weather", arguments="{}")
        given = elsewhere()
        await imported(storage, given, asked, replace(replied, content=(*replied.content, call)))
        state = await storage.conversations.state("tenant", given.id)
        assert state is not None
        assert state.open_calls == ("call_1",)

    async def test_of_very_many_messages_none_is_lost(self, storage: Storage) -> None:
        said = [message for number in range(700) for message in exchange(f"q{number}", f"a{number}")]
        given = elsewhere()
        await imported(storage, given, *said)
        kept = await storage.conversations.last_messages("tenant", "user", given.id, limit=None)
        assert [message.id for message in kept] == [message.id for message in said]

    async def test_an_id_that_is_or_was_anothers_is_not_given_away(self, storage: Storage) -> None:
        hidden, others, erased = await add(storage), await add(storage, user_id="other"), await answered(storage)
        await storage.conversations.hide("tenant", "user", hidden, at=NOON)
        await storage.conversations.erase("tenant", "user", erased.conversation_id, at=NOON, remembered=GONE)
        for taken in (hidden, others, erased.conversation_id):
            assert await imported(storage, elsewhere(id=taken)) is None
            assert await storage.conversations.last_messages("tenant", "user", taken, limit=None) in ([], ())
        of_another = await storage.conversations.add_imported(
            "another", elsewhere(id=hidden), SAID, context_tokens=1, at_most=1
        )
        assert of_another is not None

    async def test_of_many_at_once_one_gets_the_id_and_a_user_no_more_than_allowed(self, storage: Storage) -> None:
        given = elsewhere()
        kept, _ = await at_once(*(imported(storage, given) for _ in range(6)))
        assert [each for each in kept if each is not None] == [given]
        made, refusals = await at_once(*(imported(storage, elsewhere(), at_most=3) for _ in range(6)))
        assert (len(made), [type(refusal) for refusal in refusals]) == (2, [ForbiddenError] * 4)
