"""Bytes under keys. Whose they are, and what they are, is written down elsewhere."""

from collections.abc import AsyncGenerator, AsyncIterator
from datetime import datetime
from typing import Protocol

from msgspec import Struct


class StoredBlob(Struct, frozen=True):
    """What is stored under a key: its size in bytes, and the SHA-256 of its bytes in lower-case hex."""

    size: int
    sha256: str


class BlobStore(Protocol):
    """Keeps bytes, never whole in memory.

    A key is one to 1,024 bytes of UTF-8: parts joined by `/`, none of them empty, `.` or `..`, without control
    characters. Every method raises StorageUnavailableError when the store does not answer.
    """

    async def put(self, key: str, content: AsyncIterator[bytes], *, max_bytes: int) -> StoredBlob:
        """Store `content`; all of it, or nothing when it fails, is cancelled, or raises.

        Raises:
            FileTooLargeError: more than `max_bytes` came; nothing is stored.
            ValueError: the key is not one, or is taken already; keys are ours to make, so this is a defect of ours.
        """
        ...

    def get(self, key: str, *, first: int = 0, last: int | None = None) -> AsyncGenerator[bytes, None]:
        """The bytes from `first` to `last`, both counted from 0 and included, in pieces of at most 1 MiB.

        Raises:
            StoredFileNotFoundError: nothing is stored under the key.
        """
        ...

    async def size(self, key: str) -> int:
        """Its size in bytes.

        Raises:
            StoredFileNotFoundError: nothing is stored under the key.
        """
        ...

    async def delete(self, key: str) -> None:
        """Forget the key; nothing happens where it holds nothing."""
        ...

    async def link(self, key: str, *, expires_in_s: int, name: str, media_type: str) -> str | None:
        """A link by which anyone can fetch the bytes, with this name and type; None: the store has none."""
        ...

    async def sweep(self, *, before: datetime) -> None:
        """Remove what puts that began before, and were never ended, have left behind."""
        ...
