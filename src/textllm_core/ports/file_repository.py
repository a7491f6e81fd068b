"""What is written down about stored files."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from textllm_core.file_names import Folder
from textllm_core.records.files import Purpose, StoredFile


class FileRepository(Protocol):
    """Rows about files, and how many bytes each tenant has in them.

    A file is announced before its bytes are stored and ready once they are; only then it can be seen. Hidden, it is
    on its way out. Every method raises StorageUnavailableError when the storage does not answer.
    """

    async def announce(self, tenant_id: str, file: StoredFile, *, max_total_bytes: int | None) -> None:
        """Write down a file that is about to be stored, and count its bytes.

        Concurrent calls never count more than `max_total_bytes` for the tenant.

        Raises:
            StorageQuotaExceededError: the tenant's files would have more bytes; nothing was written.
        """
        ...

    async def make_ready(self, tenant_id: str, file: StoredFile) -> bool:
        """Let an announced file be seen, with the `content_type` and `sha256` it has now.

        False where it is not announced any more.
        """
        ...

    async def get(self, tenant_id: str, key: str, *, user_id: str | None = None) -> StoredFile | None:
        """One file of the tenant that is ready, and of the user where one is named."""
        ...

    async def find(
        self, tenant_id: str, keys: Sequence[str], *, user_id: str | None = None
    ) -> Mapping[str, StoredFile]:
        """Those of the tenant that are ready, and of the user where one is named, by their keys."""
        ...

    async def newest(
        self,
        tenant_id: str,
        *,
        user_id: str | None,
        folder: Folder,
        limit: int,
        after: StoredFile | None,
        purpose: Purpose | None = None,
        oldest_first: bool = False,
    ) -> Sequence[StoredFile]:
        """Files that are ready, newest first unless `oldest_first`; those behind `after` where it is given.

        Args:
            user_id: None: of all users of the tenant.
            purpose: None: any.
        """
        ...

    async def hide(self, tenant_id: str, key: str, *, user_id: str | None) -> StoredFile | None:
        """Let a file that is ready be seen no more; the file, also where it is hidden already.

        None where the tenant, or that user if one is named, has no such file.
        """
        ...

    async def give_up(self, tenant_id: str, user_id: str, key: str) -> bool:
        """Hide a file that is announced still, so that it never becomes ready; False where it is ready or forgotten."""
        ...

    async def forget(self, tenant_id: str, user_id: str, key: str) -> None:
        """Take a file out of the books and give its bytes back; nothing happens where it is not in them."""
        ...

    async def abandoned(
        self, before: datetime, *, limit: int, after: StoredFile | None = None
    ) -> Sequence[tuple[str, StoredFile]]:
        """Files of all tenants, each with its tenant, that were created before and are announced or hidden still.

        Oldest first; those behind `after` where it is given.
        """
        ...
