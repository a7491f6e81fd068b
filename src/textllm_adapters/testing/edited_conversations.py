"""What every repository of conversations keeps of the port `ConversationRepository`, of edits of what was said."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from textllm_adapters.testing.books import (
    LEASE,
    NOON,
    assert_balanced,
    at_once,
    exchange,
    next_turn,
    reservation,
    settlement,
)
from textllm_adapters.testing.managed_conversations import add, answered, ids
from textllm_adapters.testing.storage import Storage
from textllm_core.errors import ConversationBusyError, ConversationNotFoundError
from textllm_core.records.edits import ConversationEdit
from textllm_core.records.journal import JournalEntry
from textllm_core.records.messages import Idempotency, Message, TextDelta, reply_message_id
from textllm_core.records.parts import InputText, OutputText

LATER = NOON + timedelta(minutes=5)
SAID = (*exchange("the Nile", "It is long."), *exchange("And the Rhine?", "Shorter."))


async def edited(storage: Storage, conversation_id: str, **more: Any) -> None:
    state = await storage.conversations.state("tenant", conversation_id)
    assert state is not None
    known: dict[str, Any] = {"revision": state.revision, "context_tokens": 77, "open_calls": None, "at": LATER}
    await storage.conversations.edit("tenant", "user", conversation_id, ConversationEdit(**(known | more)))


async def said(storage: Storage, conversation_id: str) -> list[str]:
    messages = await storage.conversations.last_messages("tenant", "user", conversation_id, limit=None)
    return [message.text for message in messages]


async def replies_due(storage: Storage) -> list[tuple[str, str]]:
    """Whose replies the provider is to forget, and its names for them: those that nobody was handed yet."""
    due = await storage.erasures.due(at=LATER, latest=LATER + 2 * LEASE, lease_until=LATER + LEASE, limit=9)
    return sorted((erasure.user_id, erasure.provider_id) for erasure in due if erasure.kind == "reply")


class EditedConversationsContract:
    """What is said in a conversation can be changed otherwise than by a turn.

    Fixture `storage`: a `Storage` over an empty store, of this test alone.
    """

    pytestmark = pytest.mark.asyncio

    async def test_messages_come_to_the_end_of_what_was_said(self, storage: Storage) -> None:
        conversation_id = await add(storage)
        empty = await storage.conversations.state("tenant", conversation_id)
        assert empty is not None
        assert not empty.has_past
        await edited(storage, conversation_id, added=SAID[:1])
        await edited(storage, conversation_id, added=SAID[1:], open_calls=("call_1",))
        assert await said(storage, conversation_id) == [message.text for message in SAID]
        state = await storage.conversations.state("tenant", conversation_id)
        assert state is not None
        assert (state.context_tokens, state.open_calls, state.has_past) == (77, ("call_1",), True)
        kept = await storage.conversations.get("tenant", conversation_id)
        assert kept is not None
        assert (kept.message_count, kept.updated_at) == (2, LATER)
        assert await ids(storage, search="rhine") == [conversation_id]

    async def test_a_turn_goes_on_with_them_and_the_books_balance(self, storage: Storage) -> None:
        hold = await answered(storage)
        await edited(storage, hold.conversation_id, added=SAID)
        await storage.ledger.settle(
            await storage.ledger.reserve(await next_turn(storage, hold.conversation_id)), settlement()
        )
        texts = [message.text for message in SAID]
        assert await said(storage, hold.conversation_id) == ["Hello", "Hi", *texts, "Hello", "Hi"]
        await assert_balanced(storage)

    async def test_a_message_goes_and_another_says_something_else(self, storage: Storage) -> None:
        conversation_id = await add(storage)
        await edited(storage, conversation_id, added=SAID)
        assert await ids(storage, search="nile") == [conversation_id]
        asked, replied, *_ = SAID
        rewritten = replace(asked, content=(InputText("the Loire"),))
        await edited(storage, conversation_id, rewritten=rewritten, removed=replied.id)
        assert await said(storage, conversation_id) == ["the Loire", "And the Rhine?", "Shorter."]
        assert await ids(storage, search="nile") == []
        assert await ids(storage, search="loire") == [conversation_id]
        found = await storage.conversations.messages_of("tenant", "user", conversation_id, [asked.id, replied.id, "x"])
        assert [message.text for message in found] == ["the Loire"]

    async def test_messages_are_found_by_their_ids_oldest_first(self, storage: Storage) -> None:
        conversation_id = await add(storage)
        await edited(storage, conversation_id, added=SAID)

        async def found(*messages: Message, user: str = "user") -> list[Message]:
            wanted = [message.id for message in messages]
            return list(await storage.conversations.messages_of("tenant", user, conversation_id, wanted))

        assert await found(SAID[3], SAID[0]) == [SAID[0], SAID[3]]
        assert await found() == await found(*SAID, user="other") == []

    async def test_what_the_provider_has_of_it_is_erased(self, storage: Storage) -> None:
        hold = await answered(storage)
        before = await storage.conversations.state("tenant", hold.conversation_id)
        assert before is not None
        await edited(storage, hold.conversation_id, added=SAID)
        state = await storage.conversations.state("tenant", hold.conversation_id)
        assert state is not None
        assert state.transcript_id is None
        due = await storage.erasures.due(
            at=LATER, latest=LATER + timedelta(days=1), lease_until=LATER + timedelta(hours=1), limit=9
        )
        assert [each.provider_id for each in due] == [before.transcript_id]

    @pytest.mark.parametrize("is_rewritten", [False, True])
    async def test_of_a_reply_that_goes_or_changes_nothing_is_told_again(
        self, storage: Storage, is_rewritten: bool
    ) -> None:
        keys = [Idempotency(key, "POST /chat", "fingerprint") for key in ("gone", "kept")]
        holds = []
        for key in keys:
            hold = await storage.ledger.reserve(reservation(idempotency=key, is_resumable=True))
            await storage.journal.write([JournalEntry(hold, 1, (TextDelta("said"),))])
            await storage.ledger.settle(hold, settlement(remembered=b"said", end_number=2))
            holds.append(hold)
        reply = replace(SAID[1], id=reply_message_id(holds[0].response_id))
        change: dict[str, Any] = {"rewritten": reply} if is_rewritten else {"removed": reply.id}
        await edited(storage, holds[1].conversation_id, **change, remembered=b"gone")  # it is of another conversation
        await edited(storage, holds[0].conversation_id, **change, remembered=b"gone")
        told = [await storage.ledger.replay("tenant", key) for key in keys]
        assert [each and each.remembered for each in told] == [b"gone", b"said"]
        pages = [await storage.journal.read("tenant", "user", hold.response_id, after=0) for hold in holds]
        assert [page and page.events for page in pages] == [None, (TextDelta("said"),)]

    @pytest.mark.parametrize("is_rewritten", [False, True])
    async def test_a_late_correction_brings_nothing_of_a_reply_back_that_went_or_changed(
        self, storage: Storage, is_rewritten: bool
    ) -> None:
        key = Idempotency("gone", "POST /chat", "fingerprint")
        hold = await storage.ledger.reserve(reservation(idempotency=key, is_resumable=True))
        question, answer = exchange("Apples?", "Bananas")
        answer = replace(answer, id=reply_message_id(hold.response_id), estimated=True)
        first = settlement(estimated=True, status="incomplete", remembered=b"Bananas", open_until=NOON + 20 * LEASE)
        await storage.ledger.settle(hold, replace(first, messages=(question, answer), end_number=2))
        left = replace(answer, content=(OutputText("Plums"),))
        change: dict[str, Any] = {"rewritten": left} if is_rewritten else {"removed": answer.id}
        await edited(storage, hold.conversation_id, **change, remembered=b"gone")
        late = settlement(cost="0.2", messages=exchange("Apples?", "Bananas."), remembered=b"Bananas.", end_number=3)
        rest = JournalEntry(hold, 1, (TextDelta("Bananas."),))
        assert await storage.ledger.correct(hold, late, said=rest) is not None
        entry = await storage.ledger.entry("tenant", hold.response_id)
        assert entry is not None
        assert (entry.cost, entry.estimated) == (Decimal("0.2"), False)
        messages = await storage.conversations.last_messages("tenant", "user", hold.conversation_id, limit=None)
        assert list(messages) == [question, *([replace(left, estimated=False)] if is_rewritten else [])]
        told = await storage.ledger.replay("tenant", key)
        assert told is not None
        assert told.remembered == b"gone"
        assert await storage.journal.read("tenant", "user", hold.response_id, after=0) is None
        await assert_balanced(storage)

    @pytest.mark.parametrize("since", ["nothing", "a turn", "an addition", "a removal"])
    async def test_a_late_summary_is_kept_only_where_it_sums_up_all_that_is_there(
        self, storage: Storage, since: str
    ) -> None:
        first = await answered(storage)
        it = "tenant", first.conversation_id
        (question, _) = await storage.conversations.last_messages("tenant", "user", it[1], limit=None)
        early, late = [
            settlement(cost=cost, answered=False, messages=(), summary=text, at=NOON + timedelta(minutes=1))
            for cost, text in (("0.1", "Early."), ("0.2", "Late."))
        ]
        for end in (early, replace(early, summary=None, estimated=True, open_until=LATER)):
            hold = await storage.ledger.reserve(await next_turn(storage, it[1], kind="summary"))
            await storage.ledger.settle(hold, end)
        if since == "a turn":
            turn = await storage.ledger.reserve(await next_turn(storage, it[1]))
            await storage.ledger.settle(turn, settlement(at=LATER))
        elif since != "nothing":
            await edited(storage, it[1], **({"added": SAID} if since == "an addition" else {"removed": question.id}))
        assert await storage.ledger.correct(hold, late) is not None
        kept = await storage.conversations.get(*it)
        assert kept is not None
        assert kept.summary == {"nothing": "Late.", "a removal": None}.get(since, "Early.")
        await assert_balanced(storage)

    async def test_what_the_provider_keeps_as_responses_goes_once_where_something_goes(self, storage: Storage) -> None:
        question, answer = exchange("Apples?", "Bananas.")
        hold = await storage.ledger.reserve(reservation())
        hold = await storage.ledger.pend(hold, provider_response_id="resp_first", model="gpt-4o")
        await storage.ledger.settle(hold, settlement(messages=(question, answer)))
        later = await storage.ledger.reserve(await next_turn(storage, hold.conversation_id))
        later = await storage.ledger.pend(later, provider_response_id="resp_later", model="gpt-4o")
        await storage.ledger.settle(later, settlement())
        await answered(storage)  # another conversation
        await edited(storage, hold.conversation_id, added=SAID)
        assert await replies_due(storage) == []
        await edited(storage, hold.conversation_id, removed=question.id)
        await edited(storage, hold.conversation_id, rewritten=replace(answer, content=(OutputText("Plums"),)))
        assert await replies_due(storage) == [("user", "resp_first"), ("user", "resp_later")]
        entries = await storage.ledger.entries("tenant", "user")
        assert [entry.provider_response_id for entry in entries].count(None) == 2
        await assert_balanced(storage)
        await storage.conversations.erase("tenant", "user", hold.conversation_id, at=LATER, remembered=b"gone")
        assert await replies_due(storage) == []

    async def test_nothing_is_changed_while_a_turn_is_running_or_after_another_change(self, storage: Storage) -> None:
        hold = await answered(storage)
        running = await storage.ledger.reserve(await next_turn(storage, hold.conversation_id))
        with pytest.raises(ConversationBusyError):
            await edited(storage, hold.conversation_id, added=SAID)
        await storage.ledger.settle(running, settlement())
        with pytest.raises(ConversationBusyError):
            await edited(storage, hold.conversation_id, added=SAID, revision=0)
        assert await said(storage, hold.conversation_id) == ["Hello", "Hi", "Hello", "Hi"]
        edit = ConversationEdit(revision=0, context_tokens=0, open_calls=None, at=LATER)
        for unknown in ("conv_x", hold.conversation_id):
            with pytest.raises(ConversationNotFoundError):
                await storage.conversations.edit("another", "user", unknown, edit)

    async def test_of_many_at_once_each_is_whole_or_refused(self, storage: Storage) -> None:
        conversation_id = await add(storage)
        done, refused = await at_once(*(edited(storage, conversation_id, added=exchange("a", "b")) for _ in range(5)))
        assert {type(refusal) for refusal in refused} <= {ConversationBusyError}
        assert await said(storage, conversation_id) == ["a", "b"] * len(done)
        assert done
