"""What the outside sees of a conversation, and what is asked of many."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Final

from msgspec import UNSET, Meta, UnsetType

from textllm_core.errors import (
    InvalidRequestError,
)
from textllm_core.fields import Answered, CreatedAt, Id, Listed, Metadata, TokensRead, TokensWritten, Usd, UserId
from textllm_core.metadata import check_metadata
from textllm_core.money import ZERO
from textllm_core.texts import refuse_half_characters
from textllm_core.wire import Record

MAX_TITLE_CHARS: Final = 500


MAX_TAGS: Final = 16


MAX_TAG_CHARS: Final = 64


class Conversation(Record, frozen=True):
    """A conversation of one user; its encoding is the wire shape.

    Args:
        last_image_url: made when it is asked for; as it is kept, the image's key. None, too, where it was deleted.
    """

    id: Id
    user_id: UserId
    session_id: Annotated[
        str | None, Meta(description="The session, its user's UTC day, of the newest turn; null before the first.")
    ]
    created_at: CreatedAt
    updated_at: Annotated[datetime, Meta(description="The newest turn, UTC.")]
    message_count: Answered
    total_tokens_input: TokensRead
    total_tokens_output: TokensWritten
    total_cost: Usd
    title: Annotated[
        str | None, Meta(description="Its title: the first words of its first message unless another one was set.")
    ]
    summary: Annotated[
        str | None, Meta(description="What was said in it, in a few sentences; null until it is asked for.")
    ]
    tags: Annotated[
        tuple[str, ...], Meta(description="Words to find it by: at most 16 of 1 to 64 characters, none twice.")
    ]
    metadata: Metadata
    is_deleted: Annotated[bool, Meta(description="Whether it is deleted, and could be restored.")]
    last_image_url: Annotated[
        str | None, Meta(description="A link to the newest image of the conversation; null where there is none.")
    ] = None

    @classmethod
    def begun(cls, conversation_id: str, user_id: str, at: datetime, *, replies: int = 0) -> "Conversation":
        """One that has cost nothing yet; `replies`: how many are in it already."""
        return cls(
            id=conversation_id,
            user_id=user_id,
            session_id=None,
            created_at=at,
            updated_at=at,
            message_count=replies,
            total_tokens_input=0,
            total_tokens_output=0,
            total_cost=ZERO,
            title=None,
            summary=None,
            tags=(),
            metadata={},
            is_deleted=False,
        )


class BegunConversation(Record, frozen=True):
    """What decides whether a conversation is still needed."""

    tenant_id: str
    user_id: str
    id: str
    created_at: datetime
    updated_at: datetime


class ConversationPage(Record, frozen=True):
    """Some of the conversations that were asked for; `total` is how many there are."""

    data: Listed[Conversation]
    total: Annotated[int, Meta(description="How many there are.")]
    limit: Annotated[int, Meta(description="How many were asked for at most.")]
    offset: Annotated[int, Meta(description="How many are left out at the beginning.")]


class ConversationFilter(Record, frozen=True, kw_only=True):
    """Which conversations; None is any.

    Args:
        q: a part of the title; capital letters are as small ones.
        search: words that one of its messages has, all of them; in quotes, those that follow each other.
        include_deleted: also those that are deleted and could be restored.
    """

    user_id: str | None = None
    tag: str | None = None
    q: str | None = None
    search: str | None = None
    include_deleted: bool = False


class ConversationChanges(Record, frozen=True, kw_only=True):
    """What is to be different; UNSET stays as it is, None becomes empty.

    Args:
        title: 1 to 500 characters. tags: at most 16 of 1 to 64 characters, none twice.
        metadata: takes the place of all of it; at most 16 pairs, keys of 64 and values of 512 characters.
    """

    title: str | UnsetType | None = UNSET
    tags: Sequence[str] | UnsetType | None = UNSET
    metadata: Mapping[str, str] | UnsetType | None = UNSET

    def checked(self) -> "ConversationChanges":
        """The same.

        Raises:
            InvalidRequestError: one of them cannot be.
        """
        if isinstance(self.title, str) and (len(self.title) > MAX_TITLE_CHARS or not self.title.strip()):
            raise InvalidRequestError.of("title", f"must have 1 to {MAX_TITLE_CHARS} characters, not only spaces")
        tags, metadata = self.tags or (), self.metadata or {}
        if len(tags) > MAX_TAGS or any(len(tag) > MAX_TAG_CHARS or not tag.strip() for tag in tags):
            message = f"may be {MAX_TAGS} at most, of 1 to {MAX_TAG_CHARS} characters each, not only spaces"
            raise InvalidRequestError.of("tags", message)
        if len(set(tags)) < len(tags):
            raise InvalidRequestError.of("tags", "must differ from each other")
        check_metadata(metadata)
        refuse_half_characters(
            title=self.title or None, tags="".join(tags), metadata="".join(map("".join, metadata.items()))
        )
        return self


NOTHING_SET: Final = ConversationChanges()


ANY: Final = ConversationFilter()


class Deletion(Record, frozen=True):
    """A conversation that is deleted; `soft`: it can be restored."""

    id: Id
    soft: Annotated[
        bool, Meta(description="True: it can be restored. False: it is erased for good, here and at the provider.")
    ]
    deleted: Annotated[bool, Meta(description="Always true.")] = True


def title_from(text: str) -> str:
    """The first words of the first message, at most 80 characters."""
    words = " ".join(text.split())
    return words if len(words) <= 80 else words[:80].rsplit(" ", 1)[0].rstrip() + "…"


class ConversationState(Record, frozen=True):
    """What the next turn of a conversation needs to know of it; nothing of it is for the outside.

    Args:
        transcript_id: the provider's side of it; None where it is to be made (anew).
        context_tokens: how many tokens its past has, as the provider last counted.
        message_count: how many of its turns were answered.
        keeps_messages: our own copy of its messages is complete.
        open_calls: the ids of the calls that its last reply asks for; the next turn brings their results.
        revision: changes with every exchange that ends in it, and whenever it is edited.
        last_message: the number of the newest message kept of it; 0: none was.
    """

    id: str
    user_id: str
    transcript_id: str | None
    context_tokens: int
    message_count: int
    revision: int
    keeps_messages: bool
    open_calls: tuple[str, ...] | None = None
    last_message: int = 0

    @property
    def has_past(self) -> bool:
        """Something was said in it."""
        return self.message_count > 0 or self.last_message > 0
