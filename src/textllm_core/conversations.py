"""Conversations: what the outside sees of one, and how it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from msgspec import Struct

from textllm_core.errors import ConversationLostError, ConversationNotFoundError

if TYPE_CHECKING:  # the port speaks of the records of this module
    from textllm_core.chat.messages import Message
    from textllm_core.ports.conversation_repository import ConversationRepository, Thread
    from textllm_core.ports.transcript import Transcript
    from textllm_core.tenancy import Caller


class Conversation(Struct, frozen=True):
    """A conversation of one user. `message_count` counts turns that were answered; money is USD."""

    id: str
    user_id: str
    session_id: str | None
    created_at: datetime
    updated_at: datetime
    message_count: int
    total_tokens_input: int
    total_tokens_output: int
    total_cost: Decimal
    title: str | None
    summary: str | None
    tags: tuple[str, ...]
    metadata: Mapping[str, str]
    is_deleted: bool


def title_from(text: str) -> str:
    """The first words of the first message, at most 80 characters."""
    words = " ".join(text.split())
    return words if len(words) <= 80 else words[:80].rsplit(" ", 1)[0].rstrip() + "…"


@dataclass(frozen=True, slots=True)
class LatestConversation:
    """The conversation in which a user spoke last."""

    conversations: ConversationRepository

    async def __call__(self, caller: Caller, user_id: str) -> Conversation:
        """
        Raises:
            ConversationNotFoundError: there is none yet.
            NotFoundError: the caller may not act for the user.
        """
        user = caller.acts_for(user_id) or user_id
        if (found := await self.conversations.latest(caller.tenant_id, user)) is None:
            raise ConversationNotFoundError
        return found


@dataclass(frozen=True, slots=True)
class ListMessages:
    """What was said in a conversation.

    Args:
        transcript: where the messages of conversations are read of which no copy is kept here.
    """

    conversations: ConversationRepository
    transcript: Transcript | None

    async def __call__(self, caller: Caller, conversation_id: str) -> Sequence[Message]:
        """All messages, oldest first.

        Raises:
            ConversationNotFoundError: not the caller's, deleted, or unknown.
            ConversationLostError, ModelError: the provider keeps the only copy, and it is gone or out of reach.
        """
        thread = await self._thread(caller, conversation_id)
        if not thread.keeps_messages and thread.message_count:
            if self.transcript is None or thread.transcript_id is None:
                raise ConversationLostError
            return await self.transcript.messages(thread.transcript_id)
        return await self.conversations.last_messages(
            caller.tenant_id, thread.user_id, thread.conversation_id, limit=None
        )

    async def _thread(self, caller: Caller, conversation_id: str) -> Thread:
        thread = await self.conversations.thread(caller.tenant_id, conversation_id)
        if thread is None or caller.user_id not in (None, thread.user_id):
            raise ConversationNotFoundError
        return thread
