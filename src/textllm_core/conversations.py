"""Conversations: what the outside sees of one, and what can be done with it."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from textllm_core.chat.replay import remembered_failure
from textllm_core.chat.running import RunningExchanges
from textllm_core.chat.turn_files import TurnFiles
from textllm_core.erasing import EraseAtProvider
from textllm_core.errors import (
    Allowance,
    ConversationNotFoundError,
    InvalidRequestError,
    ServiceUnavailableError,
    StorageUnavailableError,
)
from textllm_core.files import AdmitUpload
from textllm_core.ids import new_id, new_user_id
from textllm_core.ports.clock import Clock
from textllm_core.ports.conversation_repository import ConversationRepository
from textllm_core.records.conversations import (
    ANY,
    NOTHING_SET,
    Conversation,
    ConversationChanges,
    ConversationFilter,
    ConversationPage,
    Deletion,
)
from textllm_core.rules.searching import phrases_of
from textllm_core.tenancy import Caller
from textllm_core.texts import refuse_half_characters

MAX_LISTED: Final = 100
MAX_OFFSET: Final = 2**31 - 1


async def _all_shown(files: TurnFiles, caller: Caller, kept: Sequence[Conversation]) -> list[Conversation]:
    """The conversations, each with a link to its newest image."""
    links = await files.links_to(caller, [each.last_image_url for each in kept if each.last_image_url is not None])
    return [replace(each, last_image_url=links.get(each.last_image_url or "")) for each in kept]


async def _shown(files: TurnFiles, caller: Caller, kept: Conversation) -> Conversation:
    (shown,) = await _all_shown(files, caller, [kept])
    return shown


async def _found(
    conversations: ConversationRepository, caller: Caller, conversation_id: str, *, include_deleted: bool = False
) -> Conversation:
    found = await conversations.get(
        caller.tenant_id, conversation_id, user_id=caller.user_id, include_deleted=include_deleted
    )
    if found is None:
        raise ConversationNotFoundError
    return found


@dataclass(frozen=True, slots=True)
class CreateConversation:
    """Open a conversation before anything is said in it; it counts as a turn does in its user's rate limit.

    Args:
        keeps_messages: our own copy of its messages is to be kept.
        max_per_user: how many a user may have.
    """

    conversations: ConversationRepository
    admit: AdmitUpload
    clock: Clock
    keeps_messages: bool
    max_per_user: int

    async def __call__(
        self,
        caller: Caller,
        user_id: str | None = None,
        changes: ConversationChanges = NOTHING_SET,
        *,
        allowance: Allowance | None = None,
    ) -> Conversation:
        """The conversation, empty but for `changes`; without a user, a new one is made for it.

        Args:
            allowance: what is left of the user's rate limit, where this has been counted already.
        Raises:
            RateLimitedError: too many requests.
            ForbiddenError: the user has as many as a user may have.
            InvalidRequestError: `user_id` is malformed, or one of the changes cannot be.
            NotFoundError: the caller may not act for the user.
        """
        user, now, asked = caller.acts_for(user_id), self.clock.now(), changes.checked()
        if allowance is None:
            await self.admit(caller, user)
        conversation = replace(
            Conversation.begun(new_id("conv"), user or new_user_id(), now),
            title=asked.title or None,
            tags=tuple(asked.tags or ()),
            metadata=asked.metadata or {},
        )
        at_most = None if user is None else self.max_per_user  # a new user has none
        return await self.conversations.add(
            caller.tenant_id, conversation, keeps_messages=self.keeps_messages, at_most=at_most
        )


@dataclass(frozen=True, slots=True)
class ListConversations:
    """Conversations of a user, or of all users of a tenant."""

    conversations: ConversationRepository
    files: TurnFiles

    async def __call__(
        self, caller: Caller, wanted: ConversationFilter = ANY, *, limit: int = 50, offset: int = 0
    ) -> ConversationPage:
        """Those with the newest turn first.

        Raises:
            InvalidRequestError: `limit` is not 1 to 100, `offset` below 0, `user_id` malformed, or a text is
                empty or has NUL.
            NotFoundError: the caller may not act for the user.
        """
        if not 1 <= limit <= MAX_LISTED:
            raise InvalidRequestError.of("limit", f"must be a whole number from 1 to {MAX_LISTED}")
        if not 0 <= offset <= MAX_OFFSET:
            raise InvalidRequestError.of("offset", f"must be a whole number from 0 to {MAX_OFFSET}")
        refuse_half_characters(q=wanted.q, tag=wanted.tag, search=wanted.search)
        for field, text in (("q", wanted.q), ("tag", wanted.tag)):
            if text == "":
                raise InvalidRequestError.of(field, "must not be empty; leave it out instead")
            if text is not None and "\0" in text:  # no store keeps it, so it is in no title and no tag
                raise InvalidRequestError.of(field, "must not contain the character NUL")
        if wanted.search is not None:
            phrases_of(wanted.search)
        asked = replace(wanted, user_id=caller.acts_for(wanted.user_id))
        found, total = await self.conversations.list(caller.tenant_id, asked, limit=limit, offset=offset)
        return ConversationPage(await _all_shown(self.files, caller, found), total, limit, offset)


@dataclass(frozen=True, slots=True)
class LatestConversation:
    """The conversation in which a user spoke last, and was answered."""

    conversations: ConversationRepository
    files: TurnFiles

    async def __call__(self, caller: Caller, user_id: str) -> Conversation:
        """
        Raises:
            ConversationNotFoundError: there is none yet.
            NotFoundError: the caller may not act for the user.
        """
        user = caller.acts_for(user_id) or user_id
        if (found := await self.conversations.latest(caller.tenant_id, user)) is None:
            raise ConversationNotFoundError
        return await _shown(self.files, caller, found)


@dataclass(frozen=True, slots=True)
class GetConversation:
    """One conversation by its id."""

    conversations: ConversationRepository
    files: TurnFiles

    async def __call__(self, caller: Caller, conversation_id: str) -> Conversation:
        """
        Raises:
            ConversationNotFoundError: not the caller's, deleted, or unknown.
        """
        return await _shown(self.files, caller, await _found(self.conversations, caller, conversation_id))


@dataclass(frozen=True, slots=True)
class UpdateConversation:
    """Name a conversation, tag it, or hang metadata on it."""

    conversations: ConversationRepository
    files: TurnFiles

    async def __call__(self, caller: Caller, conversation_id: str, changes: ConversationChanges) -> Conversation:
        """The conversation as it is then.

        Raises:
            InvalidRequestError: one of the changes cannot be.
            ConversationNotFoundError: not the caller's, deleted, or unknown.
        """
        asked = changes.checked()
        found = await _found(self.conversations, caller, conversation_id)
        changed = await self.conversations.update(caller.tenant_id, found.user_id, found.id, asked)
        if changed is None:
            raise ConversationNotFoundError
        return await _shown(self.files, caller, changed)


@dataclass(frozen=True, slots=True)
class DeleteConversation:
    """Hide a conversation so that it can be restored, or erase it for good, here and on the provider's side."""

    conversations: ConversationRepository
    files: TurnFiles
    erase_at_provider: EraseAtProvider
    running: RunningExchanges
    clock: Clock

    async def __call__(self, caller: Caller, conversation_id: str, *, soft: bool = True) -> Deletion:
        """Its ledger entries and what was counted stay. What is hidden already can still be erased.

        Erased here means: all that was said is gone when this returns, and the files that came with its turns can be
        seen no more, as far as our own copy of its messages names them. Their bytes are deleted and the provider is
        told at once, by a task of its own, and again until it is done.
        Raises:
            ConversationNotFoundError: not the caller's, hidden already, or unknown.
            ConversationBusyError: a turn is running in it.
        """
        found = await _found(self.conversations, caller, conversation_id, include_deleted=not soft)
        key = caller.tenant_id, found.user_id, found.id
        if soft:
            await self.conversations.hide(*key, at=self.clock.now())
        else:
            gone = remembered_failure(None, ConversationNotFoundError())
            files = await self.conversations.erase(*key, at=self.clock.now(), remembered=gone)
            with suppress(ServiceUnavailableError):  # this process has no time for it: another one does it
                self.running.start(self._erase_elsewhere(caller, found.user_id, files))
        return Deletion(found.id, soft)

    async def _erase_elsewhere(self, caller: Caller, user_id: str, files: Sequence[str]) -> None:
        await self.files.discard(caller.tenant_id, user_id, files)  # what stays is hidden, and swept
        with suppress(StorageUnavailableError):  # it is done with the next run
            await self.erase_at_provider()


@dataclass(frozen=True, slots=True)
class RestoreConversation:
    """Show a hidden conversation again."""

    conversations: ConversationRepository
    files: TurnFiles

    async def __call__(self, caller: Caller, conversation_id: str) -> Conversation:
        """The conversation; the same again where it was not hidden.

        Raises:
            ConversationNotFoundError: not the caller's, erased, or unknown.
        """
        found = await _found(self.conversations, caller, conversation_id, include_deleted=True)
        restored = await self.conversations.restore(caller.tenant_id, found.user_id, found.id)
        if restored is None:
            raise ConversationNotFoundError
        return await _shown(self.files, caller, restored)
