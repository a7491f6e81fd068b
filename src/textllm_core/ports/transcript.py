"""A conversation's messages on the provider's side, so that they need not be sent again with every turn."""

from collections.abc import Sequence
from typing import Protocol

from textllm_core.records.messages import Message
from textllm_core.records.model import ReadBlob


class Transcript(Protocol):
    """Conversations kept by the provider. It adds a turn and its reply by itself, once the reply is complete."""

    def keeps(self, provider_id: str) -> bool:
        """Whether what has this id may be there; False: it begins with the name of a provider that is not asked."""
        ...

    async def create(self, messages: Sequence[Message], *, read: ReadBlob | None = None) -> str:
        """A new transcript that holds `messages`, oldest first, any number; returns its id.

        One without messages may have been made before, for whoever comes first; nobody else gets it.
        Of a reply it may keep the words alone, not whether they are a refusal.

        Args:
            read: as `ModelRequest.read`.
        Raises:
            StoredFileNotFoundError, StorageUnavailableError: a file could not be read.
            ModelError: the provider refused or did not answer; what it may have created is never used.
        """
        ...

    async def messages(self, transcript_id: str) -> Sequence[Message]:
        """All its messages, oldest first.

        Raises:
            ConversationLostError: it is gone.
            ModelError: the provider refused or did not answer.
        """
        ...

    async def erase(self, transcript_id: str) -> int:
        """Erase all its messages, then itself; what is not there counts as erased.

        Returns how many things the provider keeps of it, at least, and has no way to delete: 0 if all is well.
        Raises:
            ModelError, ConversationBusyError: some of it may be left; calling again goes on.
        """
        ...

    async def erase_reply(self, provider_response_id: str) -> int:
        """Erase what is stored of one reply, and the whole transcript that it was written to; returns as `erase`.

        Raises:
            ModelError, ConversationBusyError: some of it may be left; calling again goes on.
        """
        ...
