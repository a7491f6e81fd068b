"""API keys in SQL: rows in, records out."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Executable, and_, bindparam, delete, exists, func, insert, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncEngine

from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sql.errors import STORAGE_ERRORS
from textllm_adapters.sql.tables import api_keys
from textllm_adapters.translation import translated
from textllm_core.records.api_keys import ApiKey
from textllm_core.tenancy import Caller

_FIELDS: Final = tuple(api_keys.c[name] for name in ApiKey.__struct_fields__)
_OF_TENANT: Final = api_keys.c.tenant_id == bindparam("of_tenant")
_ID: Final = api_keys.c.id == bindparam("of_key")
_IN_FORCE: Final = api_keys.c.revoked_at.is_(None)

_ADD: Final = insert(api_keys)
_CALLER: Final = select(
    api_keys.c.tenant_id, api_keys.c.role, api_keys.c.user_id, api_keys.c.id, api_keys.c.models
).where(api_keys.c.digest == bindparam("of_digest"), _IN_FORCE)
_GET: Final = select(*_FIELDS).where(_OF_TENANT, _ID)
_NEWEST: Final = (
    select(*_FIELDS)
    .where(_OF_TENANT)
    .order_by(api_keys.c.created_at.desc(), api_keys.c.id.desc())
    .limit(bindparam("at_most"))
)
_OLDER: Final = _NEWEST.where(
    or_(
        api_keys.c.created_at < bindparam("of_moment"),
        and_(api_keys.c.created_at == bindparam("of_moment"), api_keys.c.id < bindparam("of_key")),
    )
)
_REVOKE: Final = (
    update(api_keys)
    .where(_OF_TENANT, _ID)
    .values(revoked_at=func.coalesce(api_keys.c.revoked_at, bindparam("at", type_=api_keys.c.revoked_at.type)))
    .returning(*_FIELDS)
)
_FORGET: Final = delete(api_keys).where(
    tuple_(*api_keys.primary_key).in_(
        select(*api_keys.primary_key)
        .where(api_keys.c.revoked_at < bindparam("of_moment"))
        .limit(bindparam("at_most"))
        .with_for_update(skip_locked=True)
    )
)
_ANY: Final = select(exists().where(_IN_FORCE))


class SqlApiKeyRepository:
    """An `ApiKeyRepository` over a SQL table."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._database = Database(engine)

    async def add(self, key: ApiKey, digest: bytes) -> None:
        row = {name: getattr(key, name) for name in ApiKey.__struct_fields__} | {"digest": digest}
        with translated(STORAGE_ERRORS):
            async with self._database.batch(key.tenant_id) as connection:
                await connection.execute(_ADD, row)

    async def caller(self, digest: bytes) -> Caller | None:
        rows = await self._all(EVERYONE, _CALLER, {"of_digest": digest})
        return Caller(*rows[0]) if rows else None

    async def get(self, tenant_id: str, key_id: str) -> ApiKey | None:
        rows = await self._all(tenant_id, _GET, {"of_tenant": tenant_id, "of_key": key_id})
        return ApiKey(*rows[0]) if rows else None

    async def newest(self, tenant_id: str, *, older_than: ApiKey | None, limit: int) -> Sequence[ApiKey]:
        asked = {"of_tenant": tenant_id, "at_most": limit}
        if older_than is None:
            return [ApiKey(*row) for row in await self._all(tenant_id, _NEWEST, asked)]
        behind = {"of_moment": older_than.created_at, "of_key": older_than.id}
        return [ApiKey(*row) for row in await self._all(tenant_id, _OLDER, asked | behind)]

    async def revoke(self, tenant_id: str, key_id: str, *, at: datetime) -> ApiKey | None:
        rows = await self._all(tenant_id, _REVOKE, {"of_tenant": tenant_id, "of_key": key_id, "at": at})
        return ApiKey(*rows[0]) if rows else None

    async def forget_revoked(self, *, before: datetime, limit: int) -> int:
        with translated(STORAGE_ERRORS):
            async with self._database.transaction(EVERYONE) as connection:
                return (await connection.execute(_FORGET, {"of_moment": before, "at_most": limit})).rowcount

    async def is_any_in_force(self) -> bool:
        return bool((await self._all(EVERYONE, _ANY, {}))[0][0])

    async def _all(self, tenant_id: str, statement: Executable, parameters: dict[str, object]) -> Sequence[Any]:
        with translated(STORAGE_ERRORS):
            connect = self._database.batch if statement.is_dml else self._database.single
            async with connect(tenant_id) as connection:
                return (await connection.execute(statement, parameters)).all()
