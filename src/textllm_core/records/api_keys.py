"""API keys as they are kept and shown."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from textllm_core.fields import CreatedAt, HasMore, Id, Listed
from textllm_core.tenancy import Role
from textllm_core.wire import Record


class ApiKey(Record, frozen=True):
    """A key as it is kept: never its secret, of which `hint` has the first characters.

    `user_id` is set for the role `user` only, which may act for that user alone. A revoked key stays in the list.
    """

    id: Id
    tenant_id: Annotated[str, Meta(description="The tenant that the key belongs to.")]
    role: Annotated[Role, Meta(description="What it may do.")]
    user_id: Annotated[str | None, Meta(description="Of the role `user`: for whom alone it may act.")]
    name: Annotated[str | None, Meta(description="What its owner calls it.")]
    hint: Annotated[str, Meta(description="The first characters of the secret, to tell keys from each other.")]
    created_at: CreatedAt
    revoked_at: Annotated[datetime | None, Meta(description="When it was revoked, UTC; null while it is in force.")] = (
        None
    )
    models: Annotated[
        tuple[str, ...] | None, Meta(description="The names of the models that it may use; null: all.")
    ] = None


class IssuedApiKey(ApiKey, frozen=True, kw_only=True):
    """A key with its secret, at the one moment when there is one to show."""

    secret: Annotated[str, Meta(description="The key itself, shown this once.")]

    def __repr__(self) -> str:
        return f"IssuedApiKey({self.id})"


class ApiKeyPage(Record, frozen=True):
    """Some keys, and whether there are older ones."""

    data: Listed[ApiKey]
    has_more: HasMore
