"""API keys as they are kept: records and digests, never a secret."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from textllm_core.records.api_keys import ApiKey
from textllm_core.tenancy import Caller


class ApiKeyRepository(Protocol):
    """The keys of all tenants.

    Every method raises StorageUnavailableError when the storage does not answer.
    """

    async def add(self, key: ApiKey, digest: bytes) -> None:
        """Keep a new key. `digest`: the SHA-256 of its secret, 32 bytes, which no other key has."""
        ...

    async def caller(self, digest: bytes) -> Caller | None:
        """Who the key of this digest stands for; None where there is none, or it is revoked.

        The one question that names no tenant: it is what tells the tenant.
        """
        ...

    async def get(self, tenant_id: str, key_id: str) -> ApiKey | None:
        """One key of the tenant."""
        ...

    async def newest(self, tenant_id: str, *, older_than: ApiKey | None, limit: int) -> Sequence[ApiKey]:
        """At most `limit` keys of the tenant, revoked ones too, newest first; of one moment, by id backwards.

        Args:
            older_than: only those that come behind this key in that order.
        """
        ...

    async def revoke(self, tenant_id: str, key_id: str, *, at: datetime) -> ApiKey | None:
        """Revoke a key of the tenant, unless it is revoked already; the key as it is then, None where there is none."""
        ...

    async def forget_revoked(self, *, before: datetime, limit: int) -> int:
        """Forget at most `limit` keys, of any tenant, that were revoked before then; how many."""
        ...

    async def is_any_in_force(self) -> bool:
        """Whether any tenant has a key that is not revoked."""
        ...
