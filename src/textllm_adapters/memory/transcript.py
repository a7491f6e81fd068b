"""Transcripts that stay in this process."""

import hashlib
from collections.abc import Sequence, Set

from textllm_core.errors import ConversationLostError
from textllm_core.ids import new_id
from textllm_core.records.messages import Message
from textllm_core.records.model import ReadBlob
from textllm_core.rules.transcripts import ends_with


class MemoryTranscript:
    """A `Transcript` in a dictionary; the model that answers from it adds what is said with `append`.

    `received` has the SHA-256 of every file it was made with, by key.
    """

    def __init__(self) -> None:
        self.received: dict[str, str] = {}
        self._messages: dict[str, tuple[Message, ...]] = {}

    def keeps(self, provider_id: str) -> bool:
        """Whatever has the name of a provider is not here."""
        return "/" not in provider_id

    async def create(self, messages: Sequence[Message], *, read: ReadBlob | None = None) -> str:
        self.received |= await digests(messages, read)
        transcript_id = new_id("conv")
        self._messages[transcript_id] = tuple(messages)
        return transcript_id

    async def add(self, transcript_id: str, turn: Sequence[Message], *, read: ReadBlob | None = None) -> bool:
        if ends_with(await self.messages(transcript_id), turn):
            return turn[-1].role == "assistant"
        self.received |= await digests(turn, read)
        self.append(transcript_id, turn)
        return True

    async def messages(self, transcript_id: str) -> Sequence[Message]:
        if transcript_id not in self._messages:
            raise ConversationLostError
        return self._messages[transcript_id]

    async def erase(self, transcript_id: str) -> int:
        self._messages.pop(transcript_id, None)
        return 0

    async def erase_reply(self, provider_response_id: str) -> int:  # noqa: ARG002 - it is kept nowhere else
        """Replies are kept in their transcripts alone, so there is nothing to erase."""
        return 0

    @property
    def ids(self) -> Set[str]:
        """Those that are there."""
        return self._messages.keys()

    def append(self, transcript_id: str, messages: Sequence[Message]) -> None:
        """Add a turn and its reply, or raise ConversationLostError."""
        if transcript_id not in self._messages:
            raise ConversationLostError
        self._messages[transcript_id] += tuple(messages)

    def lose(self, transcript_id: str) -> None:
        """Forget a transcript, as the provider may."""
        del self._messages[transcript_id]


async def digests(messages: Sequence[Message], read: ReadBlob | None) -> dict[str, str]:
    """The SHA-256 of each file in the messages, in lower-case hex, by key; a real provider would be sent the bytes."""
    found: dict[str, str] = {}
    for part in (part for message in messages for part in message.stored_parts):
        if read is None:
            raise ValueError("a message has files, and nothing to read them with")
        digest = hashlib.sha256()
        async for piece in read(part.key):
            digest.update(piece)
        found[part.key] = digest.hexdigest()
    return found
