"""What everything keeps that keeps the port `StoredResponses`."""

from typing import Any

import pytest
from msgspec.structs import replace

from textllm_adapters.testing.books import NOON
from textllm_adapters.testing.edited_conversations import edited
from textllm_adapters.testing.managed_conversations import GONE, add
from textllm_adapters.testing.storage import Storage
from textllm_core.ids import new_id
from textllm_core.records.messages import Message, reply_message_id
from textllm_core.records.parts import OutputText
from textllm_core.records.stored_responses import FollowedResponse, ResponseFailure, StoredResponse


def response(conversation_id: str, **more: Any) -> StoredResponse:
    known = StoredResponse(
        tenant_id="tenant",
        user_id="user",
        id=new_id("resp"),
        conversation_id=conversation_id,
        message_ids=("msg_1", "msg_2"),
        asked='{"instructions":"Be brief."}',
        created_at=NOON,
        is_background=True,
        is_of_conversation=True,
    )
    return replace(known, **more)


class StoredResponsesContract:
    """Responses can be asked for again, for as long as their conversation is there.

    Fixture `storage`: a `Storage` over an empty store, of this test alone.
    """

    pytestmark = pytest.mark.asyncio

    async def test_one_comes_back_as_it_was_kept(self, storage: Storage) -> None:
        kept = response(await add(storage))
        await storage.responses.add(kept)
        assert await storage.responses.get("tenant", kept.id) == kept
        await storage.responses.add(replace(kept, asked="{}"))
        assert await storage.responses.get("tenant", kept.id) == kept

    async def test_another_tenant_has_none_of_it(self, storage: Storage) -> None:
        kept = response(await add(storage))
        await storage.responses.add(kept)
        assert await storage.responses.get("another", kept.id) is None
        assert await storage.responses.remove("another", "user", kept.id) is None
        assert await storage.responses.remove("tenant", "other", kept.id) is None
        assert await storage.responses.get("tenant", "resp_x") is None

    async def test_whoever_follows_one_learns_of_its_conversation_and_whether_it_is_the_last(
        self, storage: Storage
    ) -> None:
        conversation_id = await add(storage)
        kept = response(conversation_id)
        assert await storage.responses.followed("tenant", kept.id) is None
        await storage.responses.add(kept)
        reply, later = (
            Message(id=it, role="assistant", content=(OutputText("Well."),), created_at=NOON)
            for it in (reply_message_id(kept.id), "msg_later")
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
            assert await storage.responses.followed("tenant", kept.id) == FollowedResponse(kept, state, is_last)
        assert await storage.responses.followed("another", kept.id) is None
        await storage.conversations.hide("tenant", "user", conversation_id, at=NOON)
        assert await storage.responses.followed("tenant", kept.id) is None

    async def test_why_it_failed_is_kept(self, storage: Storage) -> None:
        kept = response(await add(storage))
        failure = ResponseFailure("provider_error", "It broke off.")
        await storage.responses.fail("tenant", "user", kept.id, failure)
        assert await storage.responses.get("tenant", kept.id) is None
        await storage.responses.add(kept)
        await storage.responses.fail("tenant", "user", kept.id, failure)
        assert await storage.responses.get("tenant", kept.id) == replace(kept, failure=failure)

    async def test_who_removes_one_learns_how_many_others_its_conversation_has(self, storage: Storage) -> None:
        conversation_id, other = await add(storage), await add(storage)
        kept = [response(conversation_id), response(conversation_id), response(other)]
        for each in kept:
            await storage.responses.add(each)
        assert [await storage.responses.remove("tenant", "user", each.id) for each in kept] == [1, 0, 0]
        assert await storage.responses.remove("tenant", "user", kept[0].id) is None
        assert await storage.responses.get("tenant", kept[0].id) is None

    async def test_it_goes_with_its_conversation(self, storage: Storage) -> None:
        conversation_id = await add(storage)
        kept = response(conversation_id)
        await storage.responses.add(kept)
        await storage.conversations.hide("tenant", "user", conversation_id, at=NOON)
        assert await storage.responses.get("tenant", kept.id) is None
        await storage.conversations.restore("tenant", "user", conversation_id)
        assert await storage.responses.get("tenant", kept.id) == kept
        await storage.conversations.erase("tenant", "user", conversation_id, at=NOON, remembered=GONE)
        await storage.responses.add(kept)  # it came too late
        assert await storage.responses.get("tenant", kept.id) is None
