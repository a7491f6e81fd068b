"""What the outside sees of a conversation, and what is asked of many."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

from msgspec import UNSET, Struct, UnsetType

from textllm_core.errors import (
    InvalidRequestError,
)
from textllm_core.metadata import check_metadata
from textllm_core.records.messages import refuse_half_characters

MAX_TITLE_CHARS: Final = 500


MAX_TAGS: Final = 16


MAX_TAG_CHARS: Final = 64


class Conversation(Struct, frozen=True):
    """A conversation of one user; its encoding is the wire shape.

    Args:
        session_id: of its newest turn; None before the first.
        updated_at: time of its newest turn.
        message_count: how many of its turns were answered.
        total_cost: USD.
        last_image_url: a link to its newest image, made when it is asked for; as it is kept, the image's key. None
            where there is none, or it was deleted.
    """

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
    last_image_url: str | None = None


class ConversationPage(Struct, frozen=True):
    """Some of the conversations that were asked for; `total` is how many there are."""

    data: Sequence[Conversation]
    total: int
    limit: int
    offset: int


class ConversationFilter(Struct, frozen=True, kw_only=True):
    """Which conversations; None is any.

    Args:
        q: a part of the title; capital letters are as small ones.
        include_deleted: also those that are deleted and could be restored.
    """

    user_id: str | None = None
    tag: str | None = None
    q: str | None = None
    include_deleted: bool = False


class ConversationChanges(Struct, frozen=True, kw_only=True):
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


class Deletion(Struct, frozen=True):
    """A conversation that is deleted; `soft`: it can be restored."""

    id: str
    soft: bool
    deleted: bool = True


def title_from(text: str) -> str:
    """The first words of the first message, at most 80 characters."""
    words = " ".join(text.split())
    return words if len(words) <= 80 else words[:80].rsplit(" ", 1)[0].rstrip() + "…"


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
