"""Files of turns over a blob store in memory, and documents that are what they say."""

# ruff: noqa: ARG002 - not every double needs all that it is given

import asyncio
from dataclasses import dataclass, field
from itertools import count

from msgspec import Struct

from textllm_adapters.memory.blob_store import MemoryBlobStore
from textllm_core.chat.turn_files import TurnFolder
from textllm_core.errors import StorageUnavailableError, StoredFileNotFoundError, UnsupportedMediaTypeError
from textllm_core.tenancy import Caller
from textllm_core.uploads import Upload


class Kept(Struct, frozen=True):
    key: str
    name: str
    size: int


@dataclass
class KeptFiles:
    """Stores, deletes and links; `kept` has the size of every file by its key.

    Args:
        full_after: how many files fit; `delay`: what deletions wait for, once `deleting` is set.
    """

    blobs: MemoryBlobStore
    kept: dict[str, int] = field(default_factory=dict)
    full_after: int | None = None
    delay: asyncio.Event | None = None
    deleting: asyncio.Event = field(default_factory=asyncio.Event)
    _numbers: "count[int]" = field(default_factory=count)

    async def store(self, caller: Caller, upload: Upload, *, user_id: str | None, folder: TurnFolder) -> Kept:
        if self.full_after is not None and len(self.kept) >= self.full_after:
            raise StorageUnavailableError
        key = f"LLM/{folder}/{user_id}/{next(self._numbers)}_{upload.name}"
        await self.blobs.put(key, upload.read(), max_bytes=upload.size)
        self.kept[key] = upload.size
        return Kept(key, upload.name, upload.size)

    async def delete(self, caller: Caller, key: str) -> None:
        self.deleting.set()
        if self.delay is not None:
            await self.delay.wait()
        if self.kept.pop(key, None) is None:
            raise StoredFileNotFoundError
        await self.blobs.delete(key)

    async def link(self, caller: Caller, key: str) -> str:
        if key not in self.kept:
            raise StoredFileNotFoundError
        return f"https://files.test/{key}"


class Read(Struct, frozen=True):
    media_type: str
    pages: int | None
    text: str = ""


class PlainReader:
    """Takes text for text, and what begins as a PDF does for a PDF of three pages."""

    async def inspect(self, upload: Upload, *, max_pages: int) -> Read:
        content = b"".join([piece async for piece in upload.read()])
        if content.startswith(b"%PDF-"):
            return Read("application/pdf", 3)
        if b"\0" in content:
            raise UnsupportedMediaTypeError("neither text nor PDF")
        return Read("text/plain", None)

    async def read(self, upload: Upload, *, max_chars: int, max_pages: int) -> Read:
        told = await self.inspect(upload, max_pages=max_pages)
        text = b"".join([piece async for piece in upload.read()]).decode()
        return Read(told.media_type, told.pages, f"[page 1] {text}" if told.pages else text)
