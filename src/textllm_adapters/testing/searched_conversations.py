"""What every repository of conversations keeps of the port `ConversationRepository`, of searches in what was said."""

from textllm_adapters.testing.books import NOON, next_turn, reservation, settlement
from textllm_adapters.testing.managed_conversations import GONE, ids
from textllm_adapters.testing.storage import Storage
from textllm_core.ids import new_id
from textllm_core.records.conversations import ConversationFilter
from textllm_core.records.messages import Message
from textllm_core.records.parts import InputText, OutputText


def asked(text: str) -> Message:
    return Message(id=new_id("msg"), role="user", content=(InputText(text),), created_at=NOON)


def answered(text: str) -> Message:
    return Message(id=new_id("msg"), role="assistant", content=(OutputText(text),), created_at=NOON)


async def said(storage: Storage, text: str, user_id: str = "user") -> str:
    hold = await storage.ledger.reserve(reservation(user_id=user_id))
    messages = (asked(text), answered(f"About {text}: Café 漢字 “x”."))
    await storage.ledger.settle(hold, settlement(messages=messages))
    return hold.conversation_id


class SearchedConversationsContract:
    """Conversations are found by the words of their messages."""

    async def test_conversations_are_found_by_what_was_said_in_them(self, storage: Storage) -> None:
        rivers = await said(storage, "the longest River of Africa")
        lakes = await said(storage, "lakes; river-like ones, too", user_id="other")
        for search, found in [
            ("RIVER", {rivers, lakes}),
            ("longest africa", {rivers}),
            ('"longest river"', {rivers}),
            ('"river longest"', set()),
            ("lakes africa", set()),
            ("cafe", {rivers, lakes}),
            ("漢", {rivers, lakes}),
            ("字漢", set()),
            ("riv", set()),
            ("' OR \" * - NEAR(", set()),
        ]:
            assert set(await ids(storage, search=search)) == found, search
        assert await ids(storage, search="river", user_id="other") == [lakes]
        assert await ids(storage, search="river", tag="none") == []
        nobody = await storage.conversations.list("nobody", ConversationFilter(search="river"), limit=9, offset=0)
        assert nobody == ([], 0)

    async def test_what_is_said_later_is_found_and_what_is_erased_is_not(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        await storage.ledger.settle(hold, settlement(messages=(asked("a heron"),)))
        assert await ids(storage, search="heron") == [hold.conversation_id]
        again = await storage.ledger.reserve(await next_turn(storage, hold.conversation_id))
        await storage.ledger.settle(again, settlement(messages=(asked("an egret"),)))
        assert await ids(storage, search="egret") == [hold.conversation_id]
        assert await ids(storage, search="heron egret") == []  # not in one message
        await storage.conversations.erase("tenant", "user", hold.conversation_id, at=NOON, remembered=GONE)
        assert await ids(storage, search="heron") == []
