"""Whether files can be written."""

import asyncio
from tempfile import TemporaryFile
from typing import Final

from textllm_adapters.filesystem.blob_store import FilesystemBlobStore

_TIMEOUT_S: Final = 2  # who asks waits 3 to 5 s for all probes, and they run side by side


class FilesystemHealthProbe:
    """A `HealthProbe` that writes a byte into a nameless file. One at a time: on a dead mount it never ends."""

    name = "storage"

    def __init__(self, store: FilesystemBlobStore) -> None:
        self._store = store
        self._writing: asyncio.Future[None] | None = None

    async def check(self) -> str | None:
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().run_in_executor(None, self._write)
        await asyncio.wait([self._writing], timeout=_TIMEOUT_S)
        if not self._writing.done():
            return "The file storage does not answer."
        error = self._writing.exception()
        return f"The file storage cannot be written to: {type(error).__name__}." if error else None

    def _write(self) -> None:
        with TemporaryFile(dir=self._store.unfinished) as file:
            file.write(b".")
            file.flush()
