"""Where the files of turns are kept in tests, with its faults, and a reader of documents that reads little."""

import asyncio
from collections.abc import AsyncIterator, Mapping

from textllm_adapters.memory.blob_store import MemoryBlobStore
from textllm_adapters.memory.document_reader import MemoryDocumentReader
from textllm_adapters.memory.store import MemoryStore
from textllm_core.errors import ServiceUnavailableError, StorageUnavailableError, UnsupportedMediaTypeError
from textllm_core.ports.blob_store import StoredBlob
from textllm_core.ports.document_reader import Document, DocumentText
from textllm_core.tenancy import Owner
from textllm_core.uploads import Upload


class FaultyBlobs:
    """A store that has room for `full_after` blobs; deletions wait for `delay`, once `deleting` is set.

    It makes no links once `is_away`.
    """

    def __init__(self) -> None:
        self._blobs = MemoryBlobStore()
        self._stored = 0
        self.full_after: int | None = None
        self.delay: asyncio.Event | None = None
        self.deleting = asyncio.Event()
        self.is_away = False
        self.get, self.size, self.sweep = self._blobs.get, self._blobs.size, self._blobs.sweep

    async def put(self, key: str, content: AsyncIterator[bytes], *, max_bytes: int) -> StoredBlob:
        if self.full_after is not None and self._stored >= self.full_after:
            raise StorageUnavailableError
        blob = await self._blobs.put(key, content, max_bytes=max_bytes)
        self._stored += 1
        return blob

    async def link(self, key: str, *, expires_in_s: int, name: str, media_type: str) -> str | None:
        if self.is_away:
            raise StorageUnavailableError
        return await self._blobs.link(key, expires_in_s=expires_in_s, name=name, media_type=media_type)

    async def delete(self, key: str) -> None:
        self.deleting.set()
        if self.delay is not None:
            await self.delay.wait()
        await self._blobs.delete(key)


def kept(store: MemoryStore) -> Mapping[str, int]:
    """The size of every file by its key, oldest first."""
    return {key[2]: kept.file.size for key, kept in store.files.items()}


class PlainReader(MemoryDocumentReader):
    """Takes text for text, and what begins as a PDF does for a PDF of three pages that show all of it.

    Attributes:
        busy_for: of whom it takes no documents.
    """

    def __init__(self) -> None:
        self.busy_for: Owner | None = None

    async def inspect(self, upload: Upload, *, owner: Owner, max_pages: int) -> Document:
        if owner == self.busy_for:
            raise ServiceUnavailableError("busy")
        content = b"".join([piece async for piece in upload.read()])
        assert max_pages > 0
        if content.startswith(b"%PDF-"):
            return Document(file_type="pdf", pages=3, text_bytes=len(content), is_text_counted=True)
        if b"\0" in content:
            raise UnsupportedMediaTypeError("neither text nor PDF")
        return Document(file_type="txt")

    async def read(self, upload: Upload, *, owner: Owner, max_chars: int, max_pages: int) -> DocumentText:
        told = await self.inspect(upload, owner=owner, max_pages=max_pages)
        text = b"".join([piece async for piece in upload.read()]).decode()[:max_chars]
        return DocumentText(file_type=told.file_type, pages=told.pages, text=f"[page 1] {text}" if told.pages else text)
