"""The files that come with a turn: kept before the model is asked, taken back where the turn is not admitted."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Protocol

from textllm_core.chat.running import carried_through
from textllm_core.errors import ConversationNotFoundError, StoredFileNotFoundError, TextLLMError
from textllm_core.ids import new_id
from textllm_core.ports.conversation_repository import ConversationRepository
from textllm_core.tenancy import Caller
from textllm_core.uploads import Upload

TurnFolder = Literal["chat_images", "documents"]


class StoredFile(Protocol):
    """What is kept of an upload: its key, and its name without tricks."""

    @property
    def key(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def size(self) -> int: ...


class StoreFile(Protocol):
    """Keeps an upload as a file of the user; all of it, or nothing."""

    async def __call__(
        self, caller: Caller, upload: Upload, *, user_id: str | None, folder: TurnFolder
    ) -> StoredFile: ...


class DeleteFile(Protocol):
    """Deletes a file, or raises StoredFileNotFoundError or StorageUnavailableError."""

    async def __call__(self, caller: Caller, key: str) -> None: ...


class LinkFile(Protocol):
    """Makes a link by which anyone can read the file for a while, or raises StoredFileNotFoundError."""

    async def __call__(self, caller: Caller, key: str) -> str: ...


@dataclass(frozen=True, slots=True)
class TurnFiles:
    """Keeps, links and takes back the files of turns."""

    store: StoreFile
    delete: DeleteFile
    link: LinkFile
    conversations: ConversationRepository

    async def owner(self, caller: Caller, *, user_id: str | None, conversation_id: str | None) -> str:
        """Whose the files of a turn are: a new user's where nothing says.

        Raises:
            InvalidRequestError, NotFoundError: the caller may not act for the user.
            ConversationNotFoundError: there is none of this id for the caller.
        """
        user = caller.acts_for(user_id)
        if conversation_id is None:
            return user or new_id("user")
        thread = await self.conversations.thread(caller.tenant_id, conversation_id)
        if thread is None or user not in (None, thread.user_id):
            raise ConversationNotFoundError
        return thread.user_id

    async def keep(
        self, caller: Caller, uploads: Sequence[Upload], *, user_id: str, folder: TurnFolder
    ) -> tuple[StoredFile, ...]:
        """Store all of them, or none.

        Raises:
            FileTooLargeError, StorageUnavailableError: nothing was stored.
        """
        stored: list[StoredFile] = []
        try:
            for upload in uploads:
                stored.append(await self.store(caller, upload, user_id=user_id, folder=folder))  # noqa: PERF401
        except BaseException:
            await carried_through(self.take_back(caller, stored))
            raise
        return tuple(stored)

    async def take_back(self, caller: Caller, files: Sequence[StoredFile]) -> None:
        """Delete them; one that the storage does not let go stays among the user's files, who can delete it."""
        for file in files:
            with suppress(TextLLMError):
                await self.delete(caller, file.key)

    async def links(self, caller: Caller, keys: Sequence[str]) -> list[str]:
        """Links to those that still exist.

        Raises:
            StorageUnavailableError
        """
        links: list[str] = []
        for key in keys:
            with suppress(StoredFileNotFoundError):
                links.append(await self.link(caller, key))
        return links
