"""Where files wait while they come in: on disk, without a name, so that nothing outlives the process."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Final, TypeVar

from textllm_core.cancellation import carried_through
from textllm_core.errors import StorageUnavailableError
from textllm_core.tenancy import Caller
from textllm_http.concurrency import ConcurrencyLimit

MAX_REQUESTS: Final = 128
OF_TENANT: Final = 64  # so that none keeps the others from sending, however slowly it sends itself
OF_USER: Final = 16  # where the caller is bound to one
_PIECE_BYTES: Final = 256 * 1024

T = TypeVar("T")


class SpooledFile:
    """A file without a name. It is gone once it is closed."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    async def append(self, content: bytes) -> None:
        """
        Raises:
            StorageUnavailableError: there is no room for it.
        """

        def write() -> None:
            rest = memoryview(content)
            while rest:  # a disk that is about to be full takes a part, and only then fails
                rest = rest[self._file.write(rest) :]

        await _in_thread(write)

    async def read(self) -> AsyncIterator[bytes]:
        """All that was appended, from its first byte; ValueError once it is closed."""
        async for piece in self.span(0, sys.maxsize):
            yield piece

    async def span(self, first: int, size: int) -> AsyncIterator[bytes]:
        """So many bytes from byte `first` on, or all that are there; ValueError once it is closed."""
        position, end = first, first + size
        while piece := await self._piece(position, min(_PIECE_BYTES, end - position)):
            position += len(piece)
            yield piece

    async def _piece(self, position: int, most: int) -> bytes:
        return await _in_thread(lambda: os.pread(self._file.fileno(), most, position))

    async def close(self) -> None:
        """Forget it."""
        await _in_thread(self._file.close)

    def close_aside(self) -> None:
        """The same, for who cannot wait: freeing what it has takes the file system its time."""
        asyncio.get_running_loop().run_in_executor(None, self._file.close)


class Spool:
    """The room for files of requests that are being read or answered, and for long texts while they are read.

    Args:
        directory: made when it is first needed, for its owner's eyes alone.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        busy = "Too much is coming in at once; send this again in a moment."
        self._limit = ConcurrencyLimit(MAX_REQUESTS, StorageUnavailableError, busy)

    def place(self, caller: Caller) -> AbstractContextManager[None]:
        """Room for what one request of the caller's brings, until the block ends.

        Raises:
            StorageUnavailableError: others, or the caller's own, fill it up.
        """
        shares: dict[Hashable, int] = {caller.tenant_id: OF_TENANT}
        if caller.user_id is not None:
            shares[caller.tenant_id, caller.user_id] = OF_USER
        return self._limit.taken(shares)

    async def open(self) -> SpooledFile:
        """An empty file; the caller closes it.

        Raises:
            StorageUnavailableError: it cannot be made.
        """

        def make() -> IO[bytes]:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            return TemporaryFile(dir=self._directory, buffering=0)

        return SpooledFile(await _in_thread(make))


async def _in_thread(work: Callable[[], T]) -> T:
    """Do `work` in a worker thread, and see it end even when cancelled: its file must not be closed under it."""
    try:
        return await carried_through(asyncio.get_running_loop().run_in_executor(None, work))
    except OSError as error:
        raise StorageUnavailableError(
            "There is no room for uploads at the moment: the disk of the data directory is full, or cannot be written.",
            storage="file storage",
        ) from error
