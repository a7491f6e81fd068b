"""Bytes in a dictionary, for tests and for trying things out."""

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from textllm_core.errors import FileTooLargeError, StoredFileNotFoundError
from textllm_core.ports.blob_store import StoredBlob, is_key

_PIECE_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class MemoryBlobStore:
    """A `BlobStore` that, unlike the others, keeps all bytes in memory."""

    _blobs: dict[str, bytes] = field(default_factory=dict, init=False)

    async def put(self, key: str, content: AsyncIterator[bytes], *, max_bytes: int) -> StoredBlob:
        if not is_key(key):
            raise ValueError("not a key")
        collected = bytearray()
        async for piece in content:
            collected += piece
            if len(collected) > max_bytes:
                raise FileTooLargeError(limit=max_bytes)
        if key in self._blobs:
            raise ValueError("the key is taken")
        blob = self._blobs[key] = bytes(collected)
        return StoredBlob(size=len(blob), sha256=hashlib.sha256(blob).hexdigest())

    async def get(self, key: str, *, first: int = 0, last: int | None = None) -> AsyncGenerator[bytes, None]:
        blob = self._blob(key)
        end = len(blob) if last is None else min(last + 1, len(blob))
        for start in range(first, end, _PIECE_BYTES):
            yield blob[start : min(start + _PIECE_BYTES, end)]

    async def size(self, key: str) -> int:
        return len(self._blob(key))

    async def delete(self, key: str) -> None:
        self._blobs.pop(key, None)

    async def link(self, key: str, *, expires_in_s: int, name: str, media_type: str) -> str | None:  # noqa: ARG002
        return None

    async def sweep(self, *, before: datetime) -> int:  # noqa: ARG002 - nothing outlives a process
        return 0

    def _blob(self, key: str) -> bytes:
        try:
            return self._blobs[key]
        except KeyError:
            raise StoredFileNotFoundError from None
