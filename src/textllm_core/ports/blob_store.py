"""Bytes under keys. Whose they are, and what they are, is written down elsewhere."""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import datetime
from typing import Final, Protocol

from msgspec import Struct

_NOT_IN_KEYS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def is_key(text: str) -> bool:
    """Whether `text` can be the key of a blob: what `BlobStore` calls one."""
    is_clean = not _NOT_IN_KEYS.search(text) and {"", ".", ".."}.isdisjoint(text.split("/"))
    return is_clean and len(text.encode()) <= 1024


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
            StorageUnavailableError: nothing is stored; where it `is_in_doubt`, something may be before long.
            ValueError: the key is not one, or is taken already; keys are ours to make, so this is a defect of ours.
        """
        ...

    def get(self, key: str, *, first: int = 0, last: int | None = None) -> AsyncGenerator[bytes, None]:
        """The bytes from `first` to `last`, both counted from 0 and included, in pieces of at most 1 MiB.

        Raises:
            StoredFileNotFoundError: nothing is stored under the key, or it is none.
        """
        ...

    async def size(self, key: str) -> int:
        """Its size in bytes.

        Raises:
            StoredFileNotFoundError: nothing is stored under the key, or it is none.
        """
        ...

    async def delete(self, key: str) -> None:
        """Forget the key; nothing happens where it holds nothing, or is none."""
        ...

    async def link(self, key: str, *, expires_in_s: int, name: str, media_type: str) -> str | None:
        """A URL that gives the bytes to whoever holds it, or None where the store has no links of its own.

        It is made without a look at what the key holds.

        Args:
            expires_in_s: from 1 to 604,800, a week; the link ends sooner where the credentials behind it do.
            name: what a browser saves it as; any text.
            media_type: the `Content-Type` it is answered with.
        """
        ...

    async def sweep(self, *, before: datetime) -> int:
        """Undo what puts begun before then left unfinished when their process died; how many were undone.

        `before` lies further back than any put takes: one that still goes on may be undone as well, and then fails.
        """
        ...
