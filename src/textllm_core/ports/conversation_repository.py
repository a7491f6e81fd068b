"""Conversations as they are kept."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Protocol

from textllm_core.records.conversations import (
    BegunConversation,
    Conversation,
    ConversationChanges,
    ConversationFilter,
    ConversationState,
)
from textllm_core.records.edits import ConversationEdit
from textllm_core.records.messages import Message


class ConversationRepository(Protocol):
    """Conversations and their messages; turns are written by the `Ledger`. Hidden ones do not exist unless it says so.

    One that expires is known by its id alone: `list`, `count` and `latest` leave it out.

    Every method raises StorageUnavailableError when the storage does not answer.
    """

    async def get(
        self, tenant_id: str, conversation_id: str, *, user_id: str | None = None, include_deleted: bool = False
    ) -> Conversation | None:
        """One conversation of the tenant, and of the user where one is named: then one shard is asked."""
        ...

    async def list(
        self, tenant_id: str, wanted: ConversationFilter, *, limit: int, offset: int
    ) -> tuple[Sequence[Conversation], int]:
        """Those of the tenant that are wanted, the newest turn first; and how many there are in all."""
        ...

    async def count(self, tenant_id: str, user_id: str, *, at_most: int) -> int:
        """How many the user has, hidden ones too; nobody counts beyond `at_most`."""
        ...

    async def latest(self, tenant_id: str, user_id: str) -> Conversation | None:
        """The user's conversation with the newest turn, of those in which one was answered."""
        ...

    async def state(
        self, tenant_id: str, conversation_id: str, *, user_id: str | None = None
    ) -> ConversationState | None:
        """What its next turn needs to know; of the user's alone, as `get`."""
        ...

    async def last_messages(
        self, tenant_id: str, user_id: str, conversation_id: str, *, limit: int | None
    ) -> Sequence[Message]:
        """Its newest messages, oldest first; all of them where `limit` is None."""
        ...

    async def messages(
        self,
        tenant_id: str,
        user_id: str,
        conversation_id: str,
        *,
        newest_first: bool,
        after: str | None,
        limit: int,
    ) -> Sequence[Message] | None:
        """At most `limit` messages from the one behind `after` on; None where it has no message of that id."""
        ...

    async def add(
        self,
        tenant_id: str,
        conversation: Conversation,
        *,
        keeps_messages: bool,
        at_most: int | None = None,
        expires_at: datetime | None = None,
    ) -> Conversation:
        """Keep a conversation in which nothing was said; it comes back as it is kept.

        Args:
            expires_at: when it goes by itself; None: it stays.
        Raises:
            ForbiddenError: its user has `at_most` already, hidden ones too; also where many are added at once.
        """
        ...

    async def add_imported(
        self,
        tenant_id: str,
        conversation: Conversation,
        messages: Sequence[Message],
        *,
        context_tokens: int,
        at_most: int | None,
        expires_at: datetime | None = None,
    ) -> Conversation | None:
        """Keep a conversation with all that was said in it elsewhere; None: its id is taken, and nothing happens.

        Taken is the id of any conversation of the tenant, a hidden one too, and one that the ledger has still.
        Its `message_count` counts turns that the ledger knows nothing of, and the audit leaves them so.

        Args:
            messages: oldest first.
            context_tokens: an upper bound of what they make.
            expires_at: as `add` has it.
        Raises:
            ForbiddenError: as `add`.
        """
        ...

    async def messages_of(
        self, tenant_id: str, user_id: str, conversation_id: str, message_ids: Collection[str]
    ) -> Sequence[Message]:
        """Those of its messages that have one of these ids, oldest first."""
        ...

    async def edit(self, tenant_id: str, user_id: str, conversation_id: str, edit: ConversationEdit) -> None:
        """Change what was said in it. What the provider has of it becomes due at `edit.at`, and is made anew.

        Of a reply that goes or changes the journal goes, and a repeat of its turn is told `edit.remembered`. Where
        something goes, so does all that the provider keeps as responses: a later one has what was said before it. They
        become due once, and their entries name them no more. The summary, which may tell of it, goes with it.
        Its revision moves on. Replies that are added count in its `message_count` as those of an import do; those that
        are removed were answered all the same.

        Raises:
            ConversationNotFoundError: there is none.
            ConversationBusyError: an exchange is running in it, or its revision is another by now; nothing happens.
        """
        ...

    async def update(
        self, tenant_id: str, user_id: str, conversation_id: str, changes: ConversationChanges
    ) -> Conversation | None:
        """Change it; None where there is none."""
        ...

    async def hide(self, tenant_id: str, user_id: str, conversation_id: str, *, at: datetime) -> None:
        """Mark it as deleted.

        Raises:
            ConversationNotFoundError: there is none.
            ConversationBusyError: an exchange is running in it, or waits to be settled; nothing happens.
        """
        ...

    async def hidden(self, *, before: datetime, limit: int) -> Sequence[tuple[str, str, str]]:
        """Those of any tenant that were hidden before then: tenants, users and ids, the longest hidden first."""
        ...

    async def begun(
        self, *, before: datetime, after: BegunConversation | None, limit: int
    ) -> Sequence[BegunConversation]:
        """Those of any tenant that began before then, hidden ones too and none that expires, the oldest first.

        Args:
            after: the last one of the page before.
        """
        ...

    async def forget_expired(self, *, at: datetime, limit: int) -> int:
        """Remove at most `limit` of any tenant that have expired by then, and keep nothing; how many that were.

        Nothing that was said in them is here, or at the provider, and none is running. What repeats of their turns are
        told stays, as does what the ledger has of them.
        """
        ...

    async def expired(self, *, at: datetime, limit: int) -> Sequence[tuple[str, str, str, datetime]]:
        """Others that have expired by then: tenants, users, ids and `updated_at`, the longest expired first."""
        ...

    async def expire(self, tenant_id: str, user_id: str, conversation_id: str, *, at: datetime) -> None:
        """Have one that expires go at that time instead."""
        ...

    async def restore(self, tenant_id: str, user_id: str, conversation_id: str) -> Conversation | None:
        """Take the mark away, if there is one; None where there is no such conversation, hidden or not."""
        ...

    async def erase(
        self,
        tenant_id: str,
        user_id: str,
        conversation_id: str,
        *,
        at: datetime,
        remembered: bytes,
        silent_since: datetime | None = None,
        hidden_before: datetime | None = None,
    ) -> Sequence[str]:
        """Remove it, hidden or not, with all that was said in it; what the provider has of it becomes due at `at`.

        What the ledger counts and all sums stay; what callers hung on its turns goes. Returns the keys of the files
        that came with its turns, as far as it knows them: they are hidden now.

        Args:
            remembered: what repeats of its turns are told from now on.
            silent_since: it is busy, too, if something was said in it after that.
            hidden_before: it is busy, too, unless it was hidden before then, and is so still.
        Raises:
            ConversationNotFoundError, ConversationBusyError: as `hide`.
        """
        ...
