"""API keys in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from msgspec.structs import replace

from textllm_adapters.memory.store import KeptApiKey, MemoryStore
from textllm_core.records.api_keys import ApiKey
from textllm_core.tenancy import Caller


@dataclass(frozen=True, slots=True)
class MemoryApiKeyRepository:
    """An `ApiKeyRepository` over a store in memory."""

    store: MemoryStore

    async def add(self, key: ApiKey, digest: bytes) -> None:
        self.store.api_keys[key.tenant_id, key.id] = KeptApiKey(key, digest)

    async def caller(self, digest: bytes) -> Caller | None:
        for kept in self.store.api_keys.values():
            if kept.digest == digest and kept.key.revoked_at is None:
                key = kept.key
                return Caller(key.tenant_id, key.role, key.user_id, key.id, key.models)
        return None

    async def get(self, tenant_id: str, key_id: str) -> ApiKey | None:
        kept = self.store.api_keys.get((tenant_id, key_id))
        return None if kept is None else kept.key

    async def newest(self, tenant_id: str, *, older_than: ApiKey | None, limit: int) -> Sequence[ApiKey]:
        keys = [kept.key for (tenant, _), kept in self.store.api_keys.items() if tenant == tenant_id]
        if older_than is not None:
            keys = [key for key in keys if (key.created_at, key.id) < (older_than.created_at, older_than.id)]
        return sorted(keys, key=lambda key: (key.created_at, key.id), reverse=True)[:limit]

    async def revoke(self, tenant_id: str, key_id: str, *, at: datetime) -> ApiKey | None:
        kept = self.store.api_keys.get((tenant_id, key_id))
        if kept is None:
            return None
        revoked = replace(kept.key, revoked_at=kept.key.revoked_at or at)
        self.store.api_keys[tenant_id, key_id] = replace(kept, key=revoked)
        return revoked

    async def forget_revoked(self, *, before: datetime, limit: int) -> int:
        revoked = {key: kept.key.revoked_at for key, kept in self.store.api_keys.items()}
        old = [key for key, at in revoked.items() if at is not None and at < before][:limit]
        for key in old:
            del self.store.api_keys[key]
        return len(old)

    async def is_any_in_force(self) -> bool:
        return any(kept.key.revoked_at is None for kept in self.store.api_keys.values())
