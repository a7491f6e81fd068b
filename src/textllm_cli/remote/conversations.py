"""A server's conversations."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

from msgspec.structs import asdict

from textllm_cli.remote.client import Client, named
from textllm_core.conversations import MAX_LISTED
from textllm_core.errors import ConversationNotFoundError
from textllm_core.import_conversation import ExportedConversation, ImportedConversation
from textllm_core.list_messages import MAX_MESSAGES, ListedMessage, MessagePage, Order
from textllm_core.records.conversations import (
    ANY,
    Conversation,
    ConversationChanges,
    ConversationFilter,
    ConversationPage,
    Deletion,
)
from textllm_core.tenancy import Caller

# ruff: noqa: ARG002 - on a server it is the key that says who calls

_AT: Final = "conversations"


class RemoteMessages:
    """What was said in a server's conversation; as `ListMessages`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def __call__(
        self,
        caller: Caller,
        conversation_id: str,
        *,
        limit: int = 100,
        order: Order = "asc",
        after: str | None = None,
    ) -> MessagePage:
        path = named(_AT, conversation_id, "messages")
        return await self._client.get(path, MessagePage, limit=limit, order=order, after=after)

    async def every(self, caller: Caller, conversation_id: str) -> AsyncGenerator[ListedMessage, None]:
        """All messages, oldest first."""
        after = None
        while True:
            page = await self(caller, conversation_id, limit=MAX_MESSAGES, after=after)
            for message in page.data:
                yield message
            if not page.has_more:
                return
            after = page.data[-1].id


class RemoteConversations:
    """A server's `Conversations`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.messages = RemoteMessages(client)

    async def list(
        self, caller: Caller, wanted: ConversationFilter = ANY, *, limit: int = 50, offset: int = 0
    ) -> ConversationPage:
        query = asdict(wanted) | {"limit": limit, "offset": offset}
        return await self._client.call("GET", named(_AT), ConversationPage, query=query)

    async def latest(self, caller: Caller, user_id: str) -> Conversation:
        offset = 0
        while True:
            page = await self.list(caller, ConversationFilter(user_id=user_id), limit=MAX_LISTED, offset=offset)
            for conversation in page.data:
                if conversation.message_count:
                    return conversation
            offset += len(page.data)
            if not page.data or offset >= page.total:
                raise ConversationNotFoundError

    async def import_one(
        self, caller: Caller, exported: ExportedConversation, *, user_id: str | None = None
    ) -> ImportedConversation:
        path = named(_AT, "import")
        return await self._client.call("POST", path, ImportedConversation, query={"user_id": user_id}, body=exported)

    async def get(self, caller: Caller, conversation_id: str) -> Conversation:
        return await self._client.get(named(_AT, conversation_id), Conversation)

    async def update(self, caller: Caller, conversation_id: str, changes: ConversationChanges) -> Conversation:
        return await self._client.call("PATCH", named(_AT, conversation_id), Conversation, body=changes)

    async def delete(self, caller: Caller, conversation_id: str, *, soft: bool = True) -> Deletion:
        return await self._client.call("DELETE", named(_AT, conversation_id), Deletion, query={"soft": soft})

    async def restore(self, caller: Caller, conversation_id: str) -> Conversation:
        return await self._client.call("POST", named(_AT, conversation_id, "restore"), Conversation)
