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
        remembered: what a repeat of the turn is told whose reply goes or changes; nothing else is left of that reply.
        context_tokens, open_calls: as the conversation's state has them from now on.
        at: now, aware UTC.
    """

    revision: int
    added: tuple[Message, ...] = ()
    removed: str | None = None
    rewritten: Message | None = None
    remembered: bytes = b""
    context_tokens: int
    open_calls: tuple[str, ...] | None
    at: datetime

    @property
    def replies(self) -> int:
        """How many replies are added."""
        return sum(message.role == "assistant" for message in self.added)

    @property
    def is_loss(self) -> bool:
        """Something that was said goes; so does the summary, which may tell of it."""
        return self.removed is not None or self.rewritten is not None

    @property
    def unsaid(self) -> str | None:
        """The reply whose message goes or changes; the message may as well be none of a reply, and this of nothing."""
        changed = self.removed if self.rewritten is None else self.rewritten.id
        return None if changed is None else f"resp_{changed.removeprefix('msg_')}"
