"""Bytes in the files of one directory, on POSIX systems with hard links and `flock`.

A file is named after the SHA-256 of its key. So every key fits, whatever lengths, letter cases and spellings the file
system tells apart; `a` may stand beside `a/b`; and no key can point at anything else. `printf %s KEY | sha256sum`
says which file holds a key.
"""

import asyncio
import fcntl
import hashlib
import math
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, BinaryIO, Final, TypeVar, TypeVarTuple

from textllm_adapters.translation import ErrorTable, translated
from textllm_core.cancellation import carried_through
from textllm_core.errors import (
    ConfigurationError,
    FileTooLargeError,
    StorageUnavailableError,
    StoredFileNotFoundError,
)
from textllm_core.ports.blob_store import StoredBlob, is_key

_PIECE_BYTES: Final = 64 * 1024  # as many as wait for a client that does not read are held for it

_FILE_ERRORS: Final[ErrorTable] = {
    FileExistsError: lambda _: ValueError("the key is taken"),
    OSError: lambda _: StorageUnavailableError.of_files(),
}

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


async def open_blob_store(root: Path) -> "FilesystemBlobStore":
    """The store in `root`, which is made if it is not there; without what killed processes left half written.

    Several processes may have it open at once.

    Raises:
        ConfigurationError: the directory cannot be used; the text names it.
    """
    store = FilesystemBlobStore(root)

    def prepare() -> None:
        for directory in (root, store.blobs, store.unfinished):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sync(root)
        for path in store.unfinished.iterdir():
            _remove_if_abandoned(path)

    try:
        await asyncio.to_thread(prepare)
    except OSError as error:
        raise ConfigurationError(
            f"Files cannot be stored in {root}: {error.strerror}. It must be a directory this user may write to."
        ) from error
    return store


@dataclass(frozen=True, slots=True)
class FilesystemBlobStore:
    """A `BlobStore` in the directory `root`; `open_blob_store` prepares it."""

    root: Path

    @property
    def blobs(self) -> Path:
        """Holds a file for each key."""
        return self.root / "blobs"

    @property
    def unfinished(self) -> Path:
        """Holds a locked file for each put that is going on."""
        return self.root / "unfinished"

    async def put(self, key: str, content: AsyncIterator[bytes], *, max_bytes: int) -> StoredBlob:
        if not is_key(key):
            raise ValueError("not a key")
        target = self._path(key)
        size, digest = 0, hashlib.sha256()
        undo = ExitStack()

        def create() -> IO[bytes]:
            file = undo.enter_context(NamedTemporaryFile(dir=self.unfinished))  # noqa: SIM115  # `undo` closes it
            fcntl.flock(file, fcntl.LOCK_EX)  # ends with this process, however that ends
            return file

        def append(piece: bytes) -> None:
            file.write(piece)
            digest.update(piece)

        def publish() -> None:
            file.flush()
            os.fsync(file.fileno())
            os.link(file.name, target)  # unlike a rename, refuses a name that is taken
            undo.callback(target.unlink, missing_ok=True)
            file.close()  # and with it goes its temporary name
            _sync(self.blobs)

        try:
            file = await _in_thread(create)
            async for piece in content:
                size += len(piece)
                if size > max_bytes:
                    raise FileTooLargeError(limit=max_bytes)
                await _in_thread(append, piece)
            await _in_thread(publish)
        except BaseException:
            await _in_thread(undo.close)
            raise
        return StoredBlob(size=size, sha256=digest.hexdigest())

    async def get(self, key: str, *, first: int = 0, last: int | None = None) -> AsyncGenerator[bytes, None]:
        with ExitStack() as stack:
            file = await _in_thread(lambda: stack.enter_context(self._open(key)))
            position = file.seek(first)
            while last is None or position <= last:
                limit = _PIECE_BYTES if last is None else min(_PIECE_BYTES, last + 1 - position)
                piece = await _in_thread(file.read, limit)
                if not piece:
                    break
                position += len(piece)
                yield piece

    async def size(self, key: str) -> int:
        def measure() -> int:
            with self._open(key) as file:
                return os.fstat(file.fileno()).st_size

        return await _in_thread(measure)

    async def delete(self, key: str) -> None:
        def remove() -> None:
            self._path(key).unlink(missing_ok=True)
            _sync(self.blobs)

        await _in_thread(remove)

    async def link(self, key: str, *, expires_in_s: int, name: str, media_type: str) -> str | None:  # noqa: ARG002
        return None

    async def sweep(self, *, before: datetime) -> int:
        def remove() -> int:
            return sum(_remove_if_abandoned(path, before=before.timestamp()) for path in self.unfinished.iterdir())

        return await _in_thread(remove)

    def _path(self, key: str) -> Path:
        return self.blobs / hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()

    def _open(self, key: str) -> BinaryIO:
        try:
            return os.fdopen(os.open(self._path(key), os.O_RDONLY | os.O_NOFOLLOW), "rb", buffering=0)
        except FileNotFoundError:
            if not self.blobs.is_dir():  # a volume that is not mounted says nothing about a file
                raise
            raise StoredFileNotFoundError from None


def _sync(directory: Path) -> None:
    """Make the names in it outlive a power failure."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_if_abandoned(path: Path, *, before: float = math.inf) -> bool:
    # Gone: its put has just ended. Locked: its put goes on. Its last byte tells more than its first: who died before
    # then, began before then.
    with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file.fileno()).st_mtime < before:
            path.unlink()
            return True
    return False


async def _in_thread(work: Callable[[*_Ts], _T], *arguments: *_Ts) -> _T:
    """Do `work` in a worker thread, and see it end even when cancelled: its file must not be closed under it."""
    with translated(_FILE_ERRORS):
        return await carried_through(asyncio.get_running_loop().run_in_executor(None, work, *arguments))
