"""Conversations in memory."""

from collections.abc import Sequence
from dataclasses import dataclass

from textllm_adapters.memory.store import KeptConversation, MemoryStore
from textllm_core.chat.messages import Message
from textllm_core.conversations import Conversation
from textllm_core.ports.conversation_repository import Thread


@dataclass(frozen=True, slots=True)
class MemoryConversationRepository:
    """A `ConversationRepository` that reads a store in memory."""

    store: MemoryStore

    async def get(self, tenant_id: str, conversation_id: str) -> Conversation | None:
        kept = self._kept(tenant_id, conversation_id)
        return None if kept is None else kept.conversation

    async def latest(self, tenant_id: str, user_id: str) -> Conversation | None:
        found = [
            kept.conversation
            for (tenant, user, _), kept in self.store.conversations.items()
            if (tenant, user) == (tenant_id, user_id) and not kept.conversation.is_deleted
        ]
        return max(found, key=lambda conversation: (conversation.updated_at, conversation.id), default=None)

    async def thread(self, tenant_id: str, conversation_id: str) -> Thread | None:
        kept = self._kept(tenant_id, conversation_id)
        if kept is None:
            return None
        return Thread(
            conversation_id=kept.conversation.id,
            user_id=kept.conversation.user_id,
            transcript_id=kept.transcript_id,
            context_tokens=kept.context_tokens,
            message_count=kept.conversation.message_count,
            revision=kept.revision,
            keeps_messages=kept.keeps_messages,
        )

    async def last_messages(
        self, tenant_id: str, user_id: str, conversation_id: str, *, limit: int | None
    ) -> Sequence[Message]:
        kept = self.store.conversations.get((tenant_id, user_id, conversation_id))
        if kept is None or kept.conversation.is_deleted:
            return ()
        return kept.messages if limit is None else kept.messages[max(0, len(kept.messages) - limit) :]

    def _kept(self, tenant_id: str, conversation_id: str) -> KeptConversation | None:
        for (tenant, _, kept_id), kept in self.store.conversations.items():
            if (tenant, kept_id) == (tenant_id, conversation_id) and not kept.conversation.is_deleted:
                return kept
        return None
