"""What is changed of what was said in a conversation, otherwise than by a turn."""

from datetime import datetime

from textllm_core.records.messages import Message, MessageRole
from textllm_core.records.parts import ContentPart
from textllm_core.wire import Record


class SaidMessage(Record, frozen=True, kw_only=True):
    """What somebody is said to have said, before it is kept as a message."""

    role: MessageRole
    content: tuple[ContentPart, ...]


class ConversationEdit(Record, frozen=True, kw_only=True):
    """Messages that come to the end of a conversation, and one that goes, or says something else from now on.

    Args:
        revision: that of the conversation when it was read.
        added: oldest first.
        removed: the id of the message that goes.
        rewritten: a message as it is from now on, under its id.
        context_tokens, open_calls: as the conversation's state has them from now on.
        at: now, aware UTC.
    """

    revision: int
    added: tuple[Message, ...] = ()
    removed: str | None = None
    rewritten: Message | None = None
    context_tokens: int
    open_calls: tuple[str, ...] | None
    at: datetime

    @property
    def replies(self) -> int:
        """How many replies are added."""
        return sum(message.role == "assistant" for message in self.added)
