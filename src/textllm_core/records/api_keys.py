"""API keys as they are kept and shown."""

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct

from textllm_core.tenancy import Role


class ApiKey(Struct, frozen=True):
    """A key as it is kept: never its secret, of which `hint` has the first characters.

    `user_id` is set for the role `user` only, which may act for that user alone. A revoked key stays in the list.
    """

    id: str
    tenant_id: str
    role: Role
    user_id: str | None
    name: str | None
    hint: str
    created_at: datetime
    revoked_at: datetime | None = None


class IssuedApiKey(ApiKey, frozen=True, kw_only=True):
    """A key with its secret, at the one moment when there is one to show."""

    secret: str

    def __repr__(self) -> str:
        return f"IssuedApiKey({self.id})"


class ApiKeyPage(Struct, frozen=True):
    """Some keys, and whether there are older ones."""

    data: Sequence[ApiKey]
    has_more: bool
