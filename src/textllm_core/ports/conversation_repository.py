"""Conversations as they are kept."""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from textllm_core.chat.messages import Message
from textllm_core.conversations import Conversation


class Thread(Struct, frozen=True):
    """What the next turn of a conversation needs to know of it; nothing of it is for the outside.

    Args:
        transcript_id: the provider's side of it; None where it is to be made (anew).
        context_tokens: how many tokens its past has, as the provider last counted.
        message_count: how many of its turns were answered.
        keeps_messages: our own copy of its messages is complete.
        revision: changes with every exchange that ends in it.
    """

    conversation_id: str
    user_id: str
    transcript_id: str | None
    context_tokens: int
    message_count: int
    revision: int
    keeps_messages: bool


class ConversationRepository(Protocol):
    """Reads conversations and their messages; the `Ledger` writes them, with each turn. Deleted ones do not exist.

    Every method raises StorageUnavailableError when the storage does not answer.
    """

    async def get(self, tenant_id: str, conversation_id: str) -> Conversation | None:
        """One conversation of the tenant."""
        ...

    async def latest(self, tenant_id: str, user_id: str) -> Conversation | None:
        """The user's conversation with the newest turn."""
        ...

    async def thread(self, tenant_id: str, conversation_id: str) -> Thread | None:
        """What its next turn needs to know."""
        ...

    async def last_messages(
        self, tenant_id: str, user_id: str, conversation_id: str, *, limit: int | None
    ) -> Sequence[Message]:
        """Its newest messages, oldest first; all of them where `limit` is None."""
        ...
