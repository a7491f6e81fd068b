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

    async def add(self, transcript_id: str, turn: Sequence[Message], *, read: ReadBlob | None = None) -> bool:
        """Have it keep a turn of which nobody knows whether it was added when the reply broke off; never twice.

        What stands at its end is looked at first, as `rules.transcripts.ends_with` tells it. Nothing is added where the
        turn is there; nor where it has no reply to be told by, and the same words stand there, perhaps of an earlier
        one. No model is asked, and nothing of it is charged. Who stops waiting for it does not know what came of it.

        Args:
            turn: what was said, the user's message last, and what is known of the reply, if that has any words. Of a
                reply it may keep the words alone, and as if it were whole.
            read: as `ModelRequest.read`; a file that cannot be read, or that it does not take, is a note in its place.
        Returns:
            Whether the turn is there now, and can be told by its reply or was added by this call.
        Raises:
            ConversationLostError: it is gone.
            ConversationBusyError: a reply is still written in it.
            ModelError: the provider refused or did not answer; some of the turn may have been added.
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
