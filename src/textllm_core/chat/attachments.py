"""The files of messages, on their way to a model."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from textllm_core.errors import StoredFileNotFoundError
from textllm_core.ports.blob_store import BlobStore
from textllm_core.ports.llm import LLM
from textllm_core.records.messages import Message
from textllm_core.records.model import ReadBlob
from textllm_core.records.parts import ContentPart, InputFile, InputImage, InputLink, InputText, words_of
from textllm_core.uploads import Attached

MOST_BYTES: Final = 50 * 1024 * 1024  # of all files of one call: the least that providers publish
_READ_AT_ONCE: Final = 64  # files, each a piece of at most 1 MiB in memory
_LOOKED_FOR_AT_ONCE: Final = 16  # files of one call


@dataclass(frozen=True, slots=True)
class Attachments:
    """Reads files for all models of the process, in bounded memory: at most 64 at a time, a piece of each."""

    blobs: BlobStore
    _places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_READ_AT_ONCE), init=False)

    async def read(self, key: str) -> AsyncIterator[bytes]:
        """Keeps `ModelRequest.read`."""
        async with self._places, aclosing(self.blobs.get(key)) as pieces:
            async for piece in pieces:
                yield piece

    def reading(self, attached: Attached | None) -> ReadBlob:
        """`read`, for a turn with these files beside those that are stored."""
        if attached is None:
            return self.read

        async def read(key: str) -> AsyncIterator[bytes]:
            upload = attached.uploads.get(key)
            if upload is None:
                async for piece in self.read(key):
                    yield piece
            else:
                async with self._places:
                    async for piece in upload.read():
                        yield piece

        return read

    async def sendable(
        self, messages: Sequence[Message], llm: LLM | None, attached: Attached | None = None
    ) -> tuple[Message, ...]:
        """The messages with a note in place of each file that cannot be sent: a conversation outlives its files.

        A file may be deleted or damaged, the model may read none of its kind, or newer files may leave no room for it.
        None is a model that has refused them.
        Raises:
            StorageUnavailableError: nobody can say which files are there still.
        """
        at_hand: dict[str, int | None] = (
            {} if attached is None else {key: upload.size for key, upload in attached.uploads.items()}
        )
        stored = [part for message in messages for part in message.stored_parts if part.key not in at_hand]
        sizes = await self._sizes(stored) | at_hand if stored or at_hand else {}
        room = MOST_BYTES
        sendable: list[Message] = []
        for message in reversed(messages):
            content: list[ContentPart] = []
            for part in message.content:
                if isinstance(part, InputLink):
                    obstacle = _refusal(part, llm)
                    content.append(part if obstacle is None else InputText(f"[The file at {part.url} {obstacle}]"))
                elif not isinstance(part, InputImage | InputFile) or words_of(part) is not None:
                    content.append(part)
                elif (obstacle := _obstacle(part, llm, stored=sizes[part.key], room=room)) is not None:
                    content.append(InputText(f"[The file {part.name} {obstacle}]"))
                else:
                    room -= part.size
                    content.append(part)
            sendable.append(replace(message, content=tuple(content)) if message.has_shown_parts else message)
        return tuple(reversed(sendable))

    async def _sizes(self, parts: Sequence[InputImage | InputFile]) -> dict[str, int | None]:
        """How large what is stored is, by key; None: it is gone."""
        places = asyncio.Semaphore(_LOOKED_FOR_AT_ONCE)

        async def size(key: str) -> int | None:
            async with places:
                try:
                    return await self.blobs.size(key)
                except StoredFileNotFoundError:
                    return None

        keys = {part.key for part in parts}
        return dict(zip(keys, await asyncio.gather(*map(size, keys)), strict=True))


def _refusal(part: InputImage | InputFile | InputLink, llm: LLM | None) -> str | None:
    """Why the model is not shown it; None where it may be."""
    if llm is None:
        return "was sent before, and this model cannot read it."
    is_image = isinstance(part, InputImage) or (isinstance(part, InputLink) and part.kind == "image")
    if is_image and not llm.reads_images:
        return "is an image, and this model reads none."
    if not is_image and not llm.reads_files:
        return "was sent as it is, and this model reads text alone."
    return None


def _obstacle(part: InputImage | InputFile, llm: LLM | None, *, stored: int | None, room: int) -> str | None:
    if (refusal := _refusal(part, llm)) is not None:
        return refusal
    if stored is None:
        return "was deleted."
    if stored != part.size:
        return "was damaged."
    if part.size > room:
        return "is not sent again: newer ones leave no room."
    return None
