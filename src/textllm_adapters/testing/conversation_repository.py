"""What every repository of conversations keeps of the port `ConversationRepository`, of what turns make."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from textllm_adapters.testing.books import LEASE, NOON, exchange, next_turn, reservation, settlement
from textllm_adapters.testing.storage import Storage
from textllm_core.ids import new_id
from textllm_core.records.ledger import Hold
from textllm_core.records.messages import Message
from textllm_core.records.parts import InputText, OutputText, Refusal
from textllm_core.records.thoughts import Reasoning
from textllm_core.records.tools import ToolCall


async def answered(storage: Storage, **more: Any) -> Hold:
    """A conversation with one answered turn."""
    hold = await storage.ledger.reserve(reservation(**more))
    await storage.ledger.settle(hold, settlement())
    return hold


class ConversationRepositoryContract:
    """What every repository of conversations keeps of the port `ConversationRepository`, of what turns make.

    Fixture `storage`: a `Storage` over an empty store, of this test alone.
    """

    pytestmark = pytest.mark.asyncio

    async def test_a_conversation_is_found_by_tenant_and_id(self, storage: Storage) -> None:
        hold = await answered(storage)
        conversation = await storage.conversations.get("tenant", hold.conversation_id)
        state = await storage.conversations.state("tenant", hold.conversation_id)
        assert conversation is not None
        assert state is not None
        assert (conversation.id, conversation.user_id, conversation.created_at) == (hold.conversation_id, "user", NOON)
        assert (conversation.summary, conversation.tags, conversation.metadata) == (None, (), {})
        assert conversation.is_deleted is False
        assert (state.id, state.user_id) == (hold.conversation_id, "user")

    @pytest.mark.parametrize("conversation_id", ["conv_never_made", "", "conv_\0", "conv_\ud800", "ü" * 10_000])
    async def test_what_does_not_exist_is_nothing(self, storage: Storage, conversation_id: str) -> None:
        await answered(storage, conversation_id="conv_")
        assert await storage.conversations.get("tenant", conversation_id) is None
        assert await storage.conversations.state("tenant", conversation_id) is None
        assert list(await storage.conversations.last_messages("tenant", "user", conversation_id, limit=None)) == []

    async def test_nobody_sees_what_belongs_to_others(self, storage: Storage) -> None:
        hold = await answered(storage)
        assert await storage.conversations.get("other", hold.conversation_id) is None
        assert await storage.conversations.state("other", hold.conversation_id) is None
        for read in (storage.conversations.get, storage.conversations.state):
            assert await read("tenant", hold.conversation_id, user_id="other") is None
            assert await read("other", hold.conversation_id, user_id="user") is None
            own = await read("tenant", hold.conversation_id, user_id="user")
            assert own == await read("tenant", hold.conversation_id)
            assert own is not None
        assert await storage.conversations.latest("other", "user") is None
        assert await storage.conversations.latest("tenant", "other") is None
        for tenant, user in [("other", "user"), ("tenant", "other")]:
            assert list(await storage.conversations.last_messages(tenant, user, hold.conversation_id, limit=None)) == []

    async def test_the_latest_is_the_one_with_the_newest_turn(self, storage: Storage) -> None:
        old = await answered(storage)
        await storage.ledger.settle(
            await storage.ledger.reserve(reservation(at=NOON + timedelta(hours=1))),
            settlement(at=NOON + timedelta(hours=1)),
        )
        later = NOON + timedelta(hours=2)
        turn = await next_turn(storage, old.conversation_id, at=later, lease_until=later + LEASE)
        await storage.ledger.settle(await storage.ledger.reserve(turn), settlement(at=later))
        latest = await storage.conversations.latest("tenant", "user")
        assert latest is not None
        assert latest.id == old.conversation_id

    async def test_the_key_of_the_newest_image_stays_until_another_comes(self, storage: Storage) -> None:
        async def newest() -> str | None:
            found = await storage.conversations.get("tenant", hold.conversation_id)
            assert found is not None
            return found.last_image_url

        hold = await answered(storage)
        assert await newest() is None
        for brought, expected in [("LLM/a.png", "LLM/a.png"), (None, "LLM/a.png"), ("LLM/b.png", "LLM/b.png")]:
            turn = await storage.ledger.reserve(await next_turn(storage, hold.conversation_id))
            await storage.ledger.settle(turn, settlement(last_image=brought))
            assert await newest() == expected
        other = await answered(storage)
        found = await storage.conversations.get("tenant", other.conversation_id)
        assert found is not None
        assert found.last_image_url is None

    async def test_the_calls_of_the_last_reply_are_open_until_the_next_one(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        thought = Reasoning(made_by="a/model/", content='{"reasoning_content": "It\\u0000 is"}')
        arguments = '{"city": "Oslo"}'
        content = (
            OutputText("Let me see.", reasoning=replace(thought, words="It\0 is")),
            ToolCall(call_id="call_1", name="weather", arguments=arguments, reasoning=thought),
        )
        asks = Message(id=new_id("msg"), role="assistant", content=content, created_at=NOON, finish_reason="tool_calls")
        await storage.ledger.settle(hold, settlement(messages=(asks,), open_calls=("call_1",)))

        async def open_calls() -> tuple[str, ...] | None:
            state = await storage.conversations.state("tenant", hold.conversation_id)
            assert state is not None
            return state.open_calls

        assert await open_calls() == ("call_1",)
        kept = await storage.conversations.last_messages("tenant", "user", hold.conversation_id, limit=1)
        assert [*kept] == [asks]
        running = await storage.ledger.reserve(await next_turn(storage, hold.conversation_id))
        await storage.ledger.release(running)
        assert await open_calls() == ("call_1",)
        running = await storage.ledger.reserve(await next_turn(storage, hold.conversation_id))
        await storage.ledger.settle(running, settlement())
        assert await open_calls() is None

    async def test_the_revision_changes_with_every_exchange_that_ends(self, storage: Storage) -> None:
        hold = await answered(storage)
        before = await storage.conversations.state("tenant", hold.conversation_id)
        running = await storage.ledger.reserve(await next_turn(storage, hold.conversation_id))
        assert await storage.conversations.state("tenant", hold.conversation_id) == before
        await storage.ledger.settle(running, settlement(answered=False, messages=(), context_tokens=120))
        after = await storage.conversations.state("tenant", hold.conversation_id)
        assert before is not None
        assert after is not None
        assert before.revision != after.revision

    @pytest.mark.parametrize(
        ("limit", "texts"),
        [
            (None, ["Hello", "Hi", "Second", "Reply"]),
            (9, ["Hello", "Hi", "Second", "Reply"]),
            (3, ["Hi", "Second", "Reply"][-3:]),
            (1, ["Reply"]),
            (0, []),
        ],
    )
    async def test_the_newest_messages_come_oldest_first(
        self, storage: Storage, limit: int | None, texts: list[str]
    ) -> None:
        hold = await answered(storage)
        turn = await storage.ledger.reserve(await next_turn(storage, hold.conversation_id))
        await storage.ledger.settle(turn, settlement(messages=exchange("Second", "Reply")))
        messages = await storage.conversations.last_messages("tenant", "user", hold.conversation_id, limit=limit)
        assert [message.text for message in messages] == texts

    @pytest.mark.parametrize(
        "text",
        [
            "plain",
            "",
            "NUL \0 in the middle",
            "\0",
            "line\r\nbreaks\u2028and \x1b[31mescapes\x7f",
            "👩‍👩‍👧‍👦 🏴󠁧󠁢󠁳󠁣󠁴󠁿 \U0010ffff \uffff \ufeff",
            "\\u0000 'quoted\" $1 :name %s {}",
            "e\u0301 is not \u00e9",
            "long ünicode " * 80_000,
        ],
        ids=["plain", "empty", "nul", "only nul", "controls", "emoji", "looks like code", "combining", "a megabyte"],
    )
    async def test_text_comes_back_to_the_character(self, storage: Storage, text: str) -> None:
        said = exchange(text, text)
        hold = await storage.ledger.reserve(reservation())
        await storage.ledger.settle(hold, settlement(messages=said))
        kept = await storage.conversations.last_messages("tenant", "user", hold.conversation_id, limit=None)
        assert tuple(kept) == tuple(said)

    async def test_every_kind_of_part_comes_back(self, storage: Storage) -> None:
        said = (
            Message(id="msg_1", role="user", content=(InputText("a"), InputText("b")), created_at=NOON),
            Message(id="msg_2", role="assistant", content=(), created_at=NOON, status="incomplete"),
            Message(id="msg_3", role="assistant", content=(OutputText("c"), Refusal("no")), created_at=NOON),
            Message(
                id="msg_4",
                role="assistant",
                content=(OutputText("d"),),
                created_at=NOON,
                estimated=True,
                finish_reason="error",
            ),
            Message(
                id="msg_5",
                role="assistant",
                content=(OutputText("e"),),
                created_at=NOON,
                estimated=False,
                finish_reason="stop",
            ),
        )
        hold = await storage.ledger.reserve(reservation())
        await storage.ledger.settle(hold, settlement(messages=said))
        kept = await storage.conversations.last_messages("tenant", "user", hold.conversation_id, limit=None)
        assert tuple(kept) == said

    @pytest.mark.parametrize(
        ("given", "kept"), [("Grüße 👋", "Grüße 👋"), ("a\0b", "ab"), (None, None), ("x" * 1000, "x" * 1000)]
    )
    async def test_a_title_is_kept_without_nul(self, storage: Storage, given: str | None, kept: str | None) -> None:
        hold = await storage.ledger.reserve(reservation(title=given))
        conversation = await storage.conversations.get("tenant", hold.conversation_id)
        assert conversation is not None
        assert conversation.title == kept

    async def test_times_come_back_in_utc_to_the_microsecond(self, storage: Storage) -> None:
        tokyo = NOON.astimezone().replace(microsecond=999_999)
        hold = await storage.ledger.reserve(replace(reservation(), at=tokyo))
        conversation = await storage.conversations.get("tenant", hold.conversation_id)
        assert conversation is not None
        assert conversation.created_at == tokyo
        assert conversation.created_at.utcoffset() == timedelta()

    async def test_a_users_conversations_are_counted_hidden_ones_too_and_no_further_than_asked(
        self, storage: Storage
    ) -> None:
        count = storage.conversations.count
        assert await count("tenant", "user", at_most=9) == 0
        first, *_ = [await storage.ledger.reserve(reservation()) for _ in range(3)]
        await storage.ledger.settle(first, settlement())
        await storage.conversations.hide("tenant", "user", first.conversation_id, at=NOON)
        assert [await count("tenant", "user", at_most=most) for most in (2, 3, 9)] == [2, 3, 3]
        assert [await count(*other, at_most=9) for other in (("tenant", "other"), ("other", "user"))] == [0, 0]
