"""What becomes of files that nobody saw to the end."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from textllm_core.errors import StorageUnavailableError
from textllm_core.ports.blob_store import BlobStore
from textllm_core.ports.clock import Clock
from textllm_core.ports.file_repository import FileRepository
from textllm_core.records.files import StoredFile

ABANDONED_AFTER: Final = timedelta(hours=1)
_SWEPT_AT_ONCE: Final = 100
_SWEEP_PATIENCE: Final = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class SweepFiles:
    """End what dead processes and failed deletions left half done; any worker may, at any time."""

    files: FileRepository
    blobs: BlobStore
    clock: Clock

    async def __call__(self) -> int:
        """How many files were taken away.

        Raises:
            StorageUnavailableError: the storage keeps some of them, or does not answer; the next sweep does the rest.
        """
        began = self.clock.now()
        before = began - ABANDONED_AFTER
        swept, last, failure = 0, None, None
        while abandoned := await self.files.abandoned(before, limit=_SWEPT_AT_ONCE, after=last):
            for tenant_id, file in abandoned:
                last = file
                try:
                    swept += await self._end(tenant_id, file)
                except StorageUnavailableError as error:  # of this one alone, unless it takes long to say so
                    if self.clock.now() - began > _SWEEP_PATIENCE:
                        raise
                    failure = error
        await self.blobs.sweep(before=before)
        if failure is not None:
            raise failure
        return swept

    async def _end(self, tenant_id: str, file: StoredFile) -> bool:
        if not await self.files.give_up(tenant_id, file.user_id, file.key):
            return False
        await self.blobs.delete(file.key)
        await self.files.forget(tenant_id, file.user_id, file.key)
        return True
