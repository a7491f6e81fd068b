"""What every repository of conversations keeps of the port `ConversationRepository`, of what people do with them."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from textllm_adapters.testing.books import (
    LEASE,
    NOON,
    TODAY,
    assert_balanced,
    at_once,
    exchange,
    next_turn,
    reservation,
    settlement,
)
from textllm_adapters.testing.file_repository import kept
from textllm_adapters.testing.storage import Storage
from textllm_core.errors import ConversationBusyError, ConversationNotFoundError, ForbiddenError
from textllm_core.ids import new_id
from textllm_core.records.conversations import Conversation, ConversationChanges, ConversationFilter
from textllm_core.records.ledger import AlreadySettledError, Hold
from textllm_core.records.messages import Idempotency, Message
from textllm_core.records.parts import InputFile, InputImage, InputText

GONE = b"gone"


def conversation(**more: Any) -> Conversation:
    """An empty one."""
    empty = Conversation(
        id=new_id("conv"),
        user_id="user",
        session_id=None,
        created_at=NOON,
        updated_at=NOON,
        message_count=0,
        total_tokens_input=0,
        total_tokens_output=0,
        total_cost=Decimal(0),
        title=None,
        summary=None,
        tags=(),
        metadata={},
        is_deleted=False,
    )
    return replace(empty, **more)


async def add(storage: Storage, tenant_id: str = "tenant", **more: Any) -> str:
    return (await storage.conversations.add(tenant_id, conversation(**more), keeps_messages=True)).id


async def ids(storage: Storage, *, limit: int = 100, offset: int = 0, **wanted: Any) -> list[str]:
    found, _ = await storage.conversations.list("tenant", ConversationFilter(**wanted), limit=limit, offset=offset)
    return [each.id for each in found]


async def answered(storage: Storage, **more: Any) -> Hold:
    """A conversation with one answered turn."""
    hold = await storage.ledger.reserve(reservation(**more))
    hold = await storage.ledger.pend(hold, provider_response_id="resp_theirs", model="gpt-4o")
    await storage.ledger.settle(hold, settlement())
    return hold


async def erase(storage: Storage, conversation_id: str, *, user_id: str = "user") -> None:
    await storage.conversations.erase("tenant", user_id, conversation_id, at=NOON, remembered=GONE)


async def paged(storage: Storage, conversation_id: str, *, newest_first: bool, limit: int) -> list[str]:
    texts: list[str] = []
    after = None
    while True:
        page = await storage.conversations.messages(
            "tenant", "user", conversation_id, newest_first=newest_first, after=after, limit=limit
        )
        assert page is not None
        if not page:
            return texts
        texts += [message.text for message in page]
        after = page[-1].id


class ManagedConversationsContract:
    """What every repository of conversations keeps of the port `ConversationRepository`, of what people do with them.

    Fixture `storage`: a `Storage` over an empty store, of this test alone.
    """

    pytestmark = pytest.mark.asyncio

    async def test_what_is_added_comes_back_as_it_is_kept(self, storage: Storage) -> None:
        given = conversation(title="Grüße\0 👋", tags=("a", "b\0"), metadata={"k\0": "v\0"})
        kept = await storage.conversations.add("tenant", given, keeps_messages=True)
        assert kept == replace(given, title="Grüße 👋", tags=("a", "b"), metadata={"k": "v"})
        assert await storage.conversations.get("tenant", given.id) == kept

    async def test_of_fourteen_added_at_once_a_user_gets_as_many_as_allowed(self, storage: Storage) -> None:
        for user in ("ada", "bob"):
            adding = [
                storage.conversations.add("tenant", conversation(user_id=user), keeps_messages=True, at_most=3)
                for _ in range(14)
            ]
            made, refusals = await at_once(*adding)
            assert (len(made), [type(refusal) for refusal in refusals]) == (3, [ForbiddenError] * 11)
            assert await storage.conversations.count("tenant", user, at_most=100) == 3

    @pytest.mark.parametrize("keeps_messages", [True, False])
    async def test_a_turn_goes_on_with_what_was_added(self, storage: Storage, keeps_messages: bool) -> None:
        kept = await storage.conversations.add("tenant", conversation(), keeps_messages=keeps_messages)
        state = await storage.conversations.state("tenant", kept.id)
        assert state is not None
        assert (state.keeps_messages, state.message_count, state.transcript_id) == (keeps_messages, 0, None)
        await storage.ledger.settle(await storage.ledger.reserve(await next_turn(storage, kept.id)), settlement())
        found = await storage.conversations.get("tenant", kept.id)
        assert found is not None
        assert (found.message_count, found.title) == (1, "Hello")
        assert found.session_id is not None
        await assert_balanced(storage)

    async def test_the_first_turn_names_only_what_has_no_name(self, storage: Storage) -> None:
        named = await add(storage, title="Mine")
        await storage.ledger.settle(await storage.ledger.reserve(await next_turn(storage, named)), settlement())
        hold = await answered(storage)
        await storage.conversations.update("tenant", "user", hold.conversation_id, ConversationChanges(title=None))
        turn = await storage.ledger.reserve(await next_turn(storage, hold.conversation_id, title="Second"))
        await storage.ledger.settle(turn, settlement())
        titles = [await storage.conversations.get("tenant", each) for each in (named, hold.conversation_id)]
        assert [found.title if found else "" for found in titles] == ["Mine", None]

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"title": "new"}, {"title": "new"}),
            ({"title": None}, {"title": None}),
            ({"tags": ["x", "y"]}, {"tags": ("x", "y")}),
            ({"tags": None}, {"tags": ()}),
            ({"metadata": {"a": "1"}}, {"metadata": {"a": "1"}}),
            ({"metadata": None}, {"metadata": {}}),
            ({"title": "new", "tags": [], "metadata": {}}, {"title": "new", "tags": (), "metadata": {}}),
            ({}, {}),
        ],
    )
    async def test_only_what_is_named_changes(
        self, storage: Storage, changes: dict[str, Any], expected: dict[str, Any]
    ) -> None:
        before = conversation(title="old", tags=("t",), metadata={"k": "v"})
        await storage.conversations.add("tenant", before, keeps_messages=True)
        changed = await storage.conversations.update("tenant", "user", before.id, ConversationChanges(**changes))
        assert changed == replace(before, **expected)
        assert await storage.conversations.get("tenant", before.id) == changed

    async def test_nothing_of_others_is_changed_hidden_restored_or_erased(self, storage: Storage) -> None:
        mine = await add(storage)
        for tenant, user in [("other", "user"), ("tenant", "other")]:
            assert await storage.conversations.update(tenant, user, mine, ConversationChanges(title="x")) is None
            assert await storage.conversations.restore(tenant, user, mine) is None
            for call in (
                storage.conversations.hide(tenant, user, mine, at=NOON),
                storage.conversations.erase(tenant, user, mine, at=NOON, remembered=GONE),
            ):
                with pytest.raises((ConversationNotFoundError, ConversationBusyError)):
                    await call
        found = await storage.conversations.get("tenant", mine)
        assert found is not None
        assert found.title is None

    async def test_the_newest_turn_comes_first_and_pages_join_without_a_gap(self, storage: Storage) -> None:
        made = [await add(storage, updated_at=NOON + timedelta(seconds=n // 2)) for n in range(6)]
        whole = await ids(storage)
        assert set(whole) == set(made)
        assert [made.index(each) // 2 for each in whole] == [2, 2, 1, 1, 0, 0]
        assert [each for first in range(0, 7, 2) for each in await ids(storage, limit=2, offset=first)] == whole
        hold = await storage.ledger.reserve(await next_turn(storage, made[0], at=NOON + timedelta(hours=1)))
        await storage.ledger.settle(hold, settlement(at=NOON + timedelta(hours=1)))
        assert (await ids(storage))[0] == made[0]

    async def test_the_total_counts_all_pages(self, storage: Storage) -> None:
        for user_id in ("user", "user", "other"):
            await add(storage, user_id=user_id)
        await add(storage, "another_tenant")
        totals = [
            (len(found), total)
            for user_id, limit, offset in [(None, 2, 0), ("user", 1, 1), ("user", 9, 9), ("nobody", 9, 0)]
            for found, total in [
                await storage.conversations.list(
                    "tenant", ConversationFilter(user_id=user_id), limit=limit, offset=offset
                )
            ]
        ]
        assert totals == [(2, 3), (1, 2), (0, 2), (0, 0)]

    async def test_a_tag_is_found_whole(self, storage: Storage) -> None:
        tagged = await add(storage, tags=("work", "50%"))
        await add(storage, tags=("workshop",))
        assert await ids(storage, tag="work") == [tagged]
        assert await ids(storage, tag="50%") == [tagged]
        for other in ("wor", "Work", "%", "", "\0", "'"):
            assert await ids(storage, tag=other) == []

    @pytest.mark.parametrize(
        ("q", "found"),
        [
            ("rivers", [True, False]),
            ("RIVERS", [True, False]),
            ("Größ", [False, True]),
            ("gRÖß", [False, True]),
            ("GRÖSS", [False, False]),
            ("100%", [True, False]),
            ("0%_", [True, False]),
            ("%", [True, False]),
            ("_", [True, False]),
            ("/", [True, False]),
            ("\\", [False, True]),
            ("'", [False, True]),
            ("0%a", [False, False]),
            ("", [True, True]),
        ],
    )
    async def test_a_part_of_the_title_is_found_to_the_letter(
        self, storage: Storage, q: str, found: list[bool]
    ) -> None:
        made = [await add(storage, title=title) for title in ("Three Rivers 100%_/", "Größe \\'")]
        await add(storage)
        wanted = await ids(storage, q=q)
        assert [each in wanted for each in made] == found

    @pytest.mark.parametrize("limit", [1, 3, 4, 9])
    async def test_messages_come_page_by_page_in_both_orders(self, storage: Storage, limit: int) -> None:
        hold = await answered(storage)
        turn = await storage.ledger.reserve(await next_turn(storage, hold.conversation_id))
        await storage.ledger.settle(turn, settlement(messages=exchange("Second", "Reply")))
        texts = ["Hello", "Hi", "Second", "Reply"]
        assert await paged(storage, hold.conversation_id, newest_first=False, limit=limit) == texts
        assert await paged(storage, hold.conversation_id, newest_first=True, limit=limit) == texts[::-1]

    async def test_an_unknown_message_is_no_place_to_go_on(self, storage: Storage) -> None:
        hold, other = await answered(storage), await answered(storage)
        (of_other, *_) = await storage.conversations.last_messages("tenant", "user", other.conversation_id, limit=1)
        for after in ("msg_unknown", "", "\0", of_other.id):
            page = await storage.conversations.messages(
                "tenant", "user", hold.conversation_id, newest_first=False, after=after, limit=1
            )
            assert page is None

    async def test_what_is_hidden_does_not_exist_until_it_is_restored(self, storage: Storage) -> None:
        hold = await answered(storage)
        it, conversations = hold.conversation_id, storage.conversations
        turn = await next_turn(storage, it)
        await conversations.hide("tenant", "user", it, at=NOON)
        assert await conversations.get("tenant", it) is None
        assert await conversations.state("tenant", it) is None
        assert await conversations.latest("tenant", "user") is None
        assert list(await conversations.last_messages("tenant", "user", it, limit=None)) == []
        page = await conversations.messages("tenant", "user", it, newest_first=False, after=None, limit=9)
        assert list(page or ()) == []
        assert await conversations.update("tenant", "user", it, ConversationChanges(title="x")) is None
        assert await ids(storage) == []
        with pytest.raises(ConversationNotFoundError):
            await storage.ledger.reserve(turn)
        with pytest.raises(ConversationNotFoundError):
            await conversations.hide("tenant", "user", it, at=NOON)
        assert await ids(storage, include_deleted=True) == [it]
        hidden = await conversations.get("tenant", it, include_deleted=True)
        assert hidden is not None
        assert hidden.is_deleted
        for _ in range(2):
            assert await conversations.restore("tenant", "user", it) == replace(hidden, is_deleted=False)
        assert len(await conversations.last_messages("tenant", "user", it, limit=None)) == 2
        await storage.ledger.settle(await storage.ledger.reserve(turn), settlement())
        await assert_balanced(storage)

    async def test_what_was_hidden_before_a_time_is_found_the_longest_hidden_first(self, storage: Storage) -> None:
        hidden = [(await answered(storage)).conversation_id for _ in range(3)]
        for days, it in enumerate(hidden):
            await storage.conversations.hide("tenant", "user", it, at=NOON - timedelta(days=days))
        before = NOON - timedelta(hours=1)
        found = await storage.conversations.hidden(before=before, limit=9)
        assert found == [("tenant", "user", it) for it in (hidden[2], hidden[1])]
        assert await storage.conversations.hidden(before=before, limit=1) == found[:1]
        await storage.conversations.restore("tenant", "user", hidden[2])
        assert await storage.conversations.hidden(before=before, limit=9) == found[1:]

    async def test_what_is_hidden_is_still_counted_and_no_longer_shown(self, storage: Storage) -> None:
        hold = await answered(storage)
        await storage.conversations.hide("tenant", "user", hold.conversation_id, at=NOON)
        assert len(await storage.reports.daily("tenant", "user", TODAY)) == 1
        assert await storage.reports.conversation_count("tenant", "user", TODAY) == 1
        assert (await storage.reports.newest_conversations("tenant", "user", TODAY, limit=1))[0] == []
        assert await storage.ledger.entry("tenant", hold.response_id) is not None

    @pytest.mark.parametrize("at", [NOON, NOON + 9 * LEASE], ids=["alive", "abandoned"])
    async def test_while_a_turn_is_not_settled_nothing_is_deleted(self, storage: Storage, at: Any) -> None:
        hold = await storage.ledger.reserve(reservation())
        it = hold.conversation_id
        with pytest.raises(ConversationBusyError):
            await storage.conversations.hide("tenant", "user", it, at=at)
        with pytest.raises(ConversationBusyError):
            await storage.conversations.erase("tenant", "user", it, at=at, remembered=GONE)
        await storage.ledger.settle(hold, settlement())
        await erase(storage, it)
        assert await storage.conversations.get("tenant", it, include_deleted=True) is None

    async def test_a_turn_whose_process_died_is_settled_before_anything_is_erased(self, storage: Storage) -> None:
        dead = await storage.ledger.reserve(reservation())
        with pytest.raises(ConversationBusyError):
            await storage.conversations.erase(
                "tenant", "user", dead.conversation_id, at=NOON + 2 * LEASE, remembered=GONE
            )
        await storage.ledger.settle(dead, settlement())
        await erase(storage, dead.conversation_id)
        assert len(await storage.ledger.entries("tenant", "user")) == 1

    @pytest.mark.parametrize("is_hidden", [False, True])
    async def test_what_is_erased_is_gone_but_its_entries_and_sums_stay(
        self, storage: Storage, is_hidden: bool
    ) -> None:
        hold, other = await answered(storage), await answered(storage)
        it, conversations = hold.conversation_id, storage.conversations
        before = await storage.sessions.of_day("tenant", "user", TODAY)
        used = await storage.reports.daily("tenant", "user", TODAY)
        if is_hidden:
            await conversations.hide("tenant", "user", it, at=NOON)
        await erase(storage, it)
        assert await conversations.get("tenant", it, include_deleted=True) is None
        assert await conversations.restore("tenant", "user", it) is None
        assert list(await conversations.last_messages("tenant", "user", it, limit=None)) == []
        assert await ids(storage, include_deleted=True) == [other.conversation_id]
        with pytest.raises(ConversationNotFoundError):
            await erase(storage, it)
        assert await storage.ledger.entry("tenant", hold.response_id) is not None
        assert await storage.sessions.of_day("tenant", "user", TODAY) == before
        assert await storage.reports.daily("tenant", "user", TODAY) == used
        assert len(await conversations.last_messages("tenant", "user", other.conversation_id, limit=None)) == 2

    async def test_the_files_of_its_turns_are_hidden_with_it_and_no_others(self, storage: Storage) -> None:
        image, document, later, other, elsewhere, lent = [await kept(storage.files, "user") for _ in "abcdef"]
        shown = InputImage(key=image.key, media_type="image/png", size=5, name='"type":"input_file"')
        read = InputFile(key=document.key, media_type="text/plain", size=5, name="a.txt", extracted="Tea")
        borrowed = replace(shown, key=lent.key, is_borrowed=True)
        content = (InputText("What?"), shown, borrowed, read)
        said = Message(id=new_id("msg"), role="user", content=content, created_at=NOON)
        hold = await storage.ledger.reserve(reservation())
        await storage.ledger.settle(hold, settlement(messages=(said, exchange("", "Tea")[1]), last_image=image.key))
        turn = await storage.ledger.reserve(await next_turn(storage, hold.conversation_id))
        await storage.ledger.settle(turn, settlement(messages=(), last_image=later.key))
        named = replace(said, id=new_id("msg"), content=(InputText(f'"input_file" {other.key}'),))
        turn = await storage.ledger.reserve(await next_turn(storage, hold.conversation_id))
        await storage.ledger.settle(turn, settlement(messages=(named,)))
        foreign = replace(read, key=elsewhere.key)
        await storage.ledger.settle(
            await storage.ledger.reserve(reservation()), settlement(messages=(replace(said, content=(foreign,)),))
        )
        hidden = await storage.conversations.erase("tenant", "user", hold.conversation_id, at=NOON, remembered=GONE)
        assert hidden == sorted([image.key, document.key, later.key])
        seen = await storage.files.find("tenant", [*hidden, other.key, elsewhere.key, lent.key])
        assert set(seen) == {other.key, elsewhere.key, lent.key}
        swept = await storage.files.abandoned(NOON + timedelta(days=1), limit=9)
        assert sorted(file.key for _, file in swept) == hidden

    async def test_all_that_the_provider_has_of_it_becomes_due(self, storage: Storage) -> None:
        hold = await answered(storage)
        await answered(storage)
        turn = await storage.ledger.reserve(await next_turn(storage, hold.conversation_id))
        await storage.ledger.settle(turn, settlement())  # the provider never named this one
        await erase(storage, hold.conversation_id)
        due = await storage.erasures.due(at=NOON, latest=NOON + LEASE, lease_until=NOON + LEASE, limit=100)
        assert sorted((erasure.user_id, erasure.kind, erasure.provider_id) for erasure in due) == [
            ("user", "reply", "resp_theirs"),
            ("user", "transcript", "conv_theirs"),
        ]

    async def test_an_empty_conversation_leaves_nothing_to_erase_elsewhere(self, storage: Storage) -> None:
        await erase(storage, await add(storage))
        assert list(await storage.erasures.due(at=NOON, latest=NOON + LEASE, lease_until=NOON + LEASE, limit=9)) == []

    async def test_a_repeat_of_its_turn_is_told_and_makes_nothing_anew(self, storage: Storage) -> None:
        key = Idempotency("key", "POST /chat", "fingerprint")
        hold = await storage.ledger.reserve(reservation(idempotency=key))
        await storage.ledger.settle(hold, settlement(remembered=b"what was said"))
        await erase(storage, hold.conversation_id)
        with pytest.raises(AlreadySettledError) as repeat:
            await storage.ledger.reserve(reservation(idempotency=key))
        assert repeat.value.replay.remembered == GONE
        assert await ids(storage, include_deleted=True) == []

    async def test_a_turn_and_an_erasure_at_once_have_one_winner(self, storage: Storage) -> None:
        for _ in range(5):
            hold = await answered(storage)
            turn = await next_turn(storage, hold.conversation_id)
            _, errors = await at_once(storage.ledger.reserve(turn), erase(storage, hold.conversation_id))
            assert [type(error) for error in errors] in ([ConversationBusyError], [ConversationNotFoundError])
            is_there = await storage.conversations.get("tenant", hold.conversation_id) is not None
            assert is_there is isinstance(errors[0], ConversationBusyError)
