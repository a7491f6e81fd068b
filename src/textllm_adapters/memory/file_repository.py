"""Files in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from textllm_adapters.memory.store import KeptFile, MemoryStore
from textllm_core.errors import StorageQuotaExceededError
from textllm_core.file_names import Folder
from textllm_core.records.files import Purpose, StoredFile


@dataclass(frozen=True, slots=True)
class MemoryFileRepository:
    """A `FileRepository` over a store in memory."""

    store: MemoryStore

    async def announce(self, tenant_id: str, file: StoredFile, *, max_total_bytes: int | None) -> None:
        total = sum(kept.file.size for (tenant, _, _), kept in self.store.files.items() if tenant == tenant_id)
        if max_total_bytes is not None and total + file.size > max_total_bytes:
            raise StorageQuotaExceededError(limit=max_total_bytes)
        self.store.files[tenant_id, file.user_id, file.key] = KeptFile(file, "announced")

    async def make_ready(self, tenant_id: str, file: StoredFile) -> bool:
        kept = self.store.files.get((tenant_id, file.user_id, file.key))
        if kept is None or kept.status != "announced":
            return False
        self.store.files[tenant_id, file.user_id, file.key] = KeptFile(file, "ready")
        return True

    async def get(self, tenant_id: str, key: str, *, user_id: str | None = None) -> StoredFile | None:
        return (await self.find(tenant_id, [key], user_id=user_id)).get(key)

    async def find(
        self, tenant_id: str, keys: Sequence[str], *, user_id: str | None = None
    ) -> Mapping[str, StoredFile]:
        ready = self._ready(tenant_id)
        return {file.key: file for file in ready if file.key in keys and user_id in (None, file.user_id)}

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
        found = [
            file
            for file in self._ready(tenant_id)
            if file.folder == folder and user_id in (None, file.user_id) and purpose in (None, file.purpose)
        ]
        found.sort(key=_place, reverse=not oldest_first)
        if after is not None:
            last = _place(after)
            found = [file for file in found if (_place(file) > last if oldest_first else _place(file) < last)]
        return found[:limit]

    async def hide(self, tenant_id: str, key: str, *, user_id: str | None) -> StoredFile | None:
        for (tenant, user, its_key), kept in self.store.files.items():
            is_meant = (tenant, its_key) == (tenant_id, key) and user_id in (None, user)
            if is_meant and kept.status != "announced":
                self.store.files[tenant, user, its_key] = KeptFile(kept.file, "hidden")
                return kept.file
        return None

    async def give_up(self, tenant_id: str, user_id: str, key: str) -> bool:
        kept = self.store.files.get((tenant_id, user_id, key))
        if kept is None or kept.status == "ready":
            return False
        self.store.files[tenant_id, user_id, key] = KeptFile(kept.file, "hidden")
        return True

    async def forget(self, tenant_id: str, user_id: str, key: str) -> None:
        self.store.files.pop((tenant_id, user_id, key), None)

    async def abandoned(
        self, before: datetime, *, limit: int, after: StoredFile | None = None
    ) -> Sequence[tuple[str, StoredFile]]:
        found = [
            (tenant, kept.file)
            for (tenant, _, _), kept in self.store.files.items()
            if kept.status != "ready"
            and kept.file.created_at < before
            and (after is None or (kept.file.created_at, kept.file.key) > (after.created_at, after.key))
        ]
        return sorted(found, key=lambda each: (each[1].created_at, each[1].key))[:limit]

    def _ready(self, tenant_id: str) -> list[StoredFile]:
        of_tenant = (kept for (tenant, _, _), kept in self.store.files.items() if tenant == tenant_id)
        return [kept.file for kept in of_tenant if kept.status == "ready"]


def _place(file: StoredFile) -> tuple[datetime, str]:
    return file.created_at, file.key
