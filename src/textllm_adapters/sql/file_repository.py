"""Files in SQL: rows in, records out."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, bindparam, delete, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncEngine

from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sql.errors import STORAGE_ERRORS
from textllm_adapters.sql.file_tables import file_totals, files
from textllm_adapters.sql.upserts import insert
from textllm_adapters.translation import translated
from textllm_core.errors import StorageQuotaExceededError
from textllm_core.file_names import Folder
from textllm_core.records.files import Purpose, StoredFile

_UNLIMITED: Final = 2**63 - 1

_FIELDS: Final = tuple(files.c[name] for name in StoredFile.__struct_fields__)
_OF_TENANT: Final = files.c.tenant_id == bindparam("of_tenant")
_OF_USER: Final = files.c.user_id == bindparam("of_user")
_KEY: Final = files.c.key == bindparam("of_key")
_OF_PURPOSE: Final = files.c.purpose == bindparam("of_purpose")
_IS_READY: Final = files.c.status == "ready"

_MAKE_READY: Final = (
    update(files)
    .where(_OF_TENANT, _OF_USER, _KEY, files.c.status == "announced")
    .values(status="ready", content_type=bindparam("new_type"), sha256=bindparam("new_sha256"))
    .returning(files.c.key)
)
_GET: Final = select(*_FIELDS).where(_OF_TENANT, _KEY, _IS_READY)
_FIND: Final = select(*_FIELDS).where(_OF_TENANT, files.c.key.in_(bindparam("of_keys", expanding=True)), _IS_READY)
_OF_FOLDER: Final = select(*_FIELDS).where(_OF_TENANT, _IS_READY, files.c.folder == bindparam("of_folder"))
_NEWEST: Final = _OF_FOLDER.order_by(files.c.created_at.desc(), files.c.key.desc()).limit(bindparam("at_most"))
_OLDEST: Final = _OF_FOLDER.order_by(files.c.created_at, files.c.key).limit(bindparam("at_most"))
_PLACE: Final = tuple_(files.c.created_at, files.c.key)
_LAST: Final = tuple_(
    bindparam("last_created_at", type_=files.c.created_at.type), bindparam("last_key", type_=files.c.key.type)
)
_HIDE: Final = (
    update(files)
    .where(_OF_TENANT, _KEY, files.c.status.in_(("ready", "hidden")))
    .values(status="hidden")
    .returning(*_FIELDS)
)
_GIVE_UP: Final = (
    update(files)
    .where(_OF_TENANT, _OF_USER, _KEY, files.c.status.in_(("announced", "hidden")))
    .values(status="hidden")
    .returning(files.c.key)
)
_FORGET: Final = delete(files).where(_OF_TENANT, _OF_USER, _KEY).returning(files.c.size)
_GIVE_BACK: Final = (
    update(file_totals)
    .where(file_totals.c.tenant_id == bindparam("of_tenant"))
    .values(size=file_totals.c.size - bindparam("given_back"))
)
_ABANDONED: Final = (
    select(files.c.tenant_id, *_FIELDS)
    .where(files.c.status.in_(("announced", "hidden")), files.c.created_at < bindparam("before"))
    .order_by(files.c.created_at, files.c.key)
    .limit(bindparam("at_most"))
)


class SqlFileRepository:
    """A `FileRepository` over SQL tables."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._database = Database(engine)
        counted = insert(file_totals, self._database.dialect)
        total = file_totals.c.size + counted.excluded.size
        self._count = counted.on_conflict_do_update(
            index_elements=[file_totals.c.tenant_id], set_={"size": total}, where=total <= bindparam("limit_of_total")
        ).returning(file_totals.c.size)

    async def announce(self, tenant_id: str, file: StoredFile, *, max_total_bytes: int | None) -> None:
        limit = _UNLIMITED if max_total_bytes is None else max_total_bytes
        if file.size > limit:
            raise StorageQuotaExceededError(limit=limit)
        row = {name: getattr(file, name) for name in StoredFile.__struct_fields__}
        with translated(STORAGE_ERRORS):
            async with self._database.transaction(tenant_id) as connection:
                total = {"tenant_id": tenant_id, "size": file.size, "limit_of_total": limit}
                if (await connection.execute(self._count, total)).first() is None:
                    raise StorageQuotaExceededError(limit=limit)
                await connection.execute(files.insert(), row | {"tenant_id": tenant_id, "status": "announced"})

    async def make_ready(self, tenant_id: str, file: StoredFile) -> bool:
        of_file = {"of_tenant": tenant_id, "of_user": file.user_id, "of_key": file.key}
        new = {"new_type": file.content_type, "new_sha256": file.sha256}
        return bool(await self._all(tenant_id, _MAKE_READY, of_file | new))

    async def get(self, tenant_id: str, key: str, *, user_id: str | None = None) -> StoredFile | None:
        return _first(await self._found(tenant_id, user_id, _GET, {"of_key": key}))

    async def find(
        self, tenant_id: str, keys: Sequence[str], *, user_id: str | None = None
    ) -> Mapping[str, StoredFile]:
        return {row.key: _file(row) for row in await self._found(tenant_id, user_id, _FIND, {"of_keys": keys})}

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
        statement = _OLDEST if oldest_first else _NEWEST
        parameters: dict[str, Any] = {"of_tenant": tenant_id, "of_folder": folder, "at_most": limit}
        if user_id is not None:
            statement, parameters = statement.where(_OF_USER), parameters | {"of_user": user_id}
        if purpose is not None:
            statement, parameters = statement.where(_OF_PURPOSE), parameters | {"of_purpose": purpose}
        if after is not None:
            behind = _PLACE > _LAST if oldest_first else _PLACE < _LAST
            statement, parameters = statement.where(behind), parameters | _last(after)
        return [_file(row) for row in await self._all(tenant_id, statement, parameters)]

    async def hide(self, tenant_id: str, key: str, *, user_id: str | None) -> StoredFile | None:
        return _first(await self._found(tenant_id, user_id, _HIDE, {"of_key": key}))

    async def give_up(self, tenant_id: str, user_id: str, key: str) -> bool:
        of_file = {"of_tenant": tenant_id, "of_user": user_id, "of_key": key}
        return bool(await self._all(tenant_id, _GIVE_UP, of_file))

    async def forget(self, tenant_id: str, user_id: str, key: str) -> None:
        with translated(STORAGE_ERRORS):
            async with self._database.transaction(tenant_id) as connection:
                of_file = {"of_tenant": tenant_id, "of_user": user_id, "of_key": key}
                if (row := (await connection.execute(_FORGET, of_file)).first()) is not None:
                    await connection.execute(_GIVE_BACK, {"of_tenant": tenant_id, "given_back": row.size})

    async def abandoned(
        self, before: datetime, *, limit: int, after: StoredFile | None = None
    ) -> Sequence[tuple[str, StoredFile]]:
        statement, parameters = _ABANDONED, {"before": before, "at_most": limit}
        if after is not None:
            statement, parameters = statement.where(_PLACE > _LAST), parameters | _last(after)
        rows = await self._all(EVERYONE, statement, parameters)
        return [(row.tenant_id, _file(row)) for row in rows]

    async def _found(
        self, tenant_id: str, user_id: str | None, statement: Any, named: dict[str, Any]
    ) -> Sequence[Row[Any]]:
        """The rows of the statement, those of the user where one is named."""
        if user_id is None:
            return await self._all(tenant_id, statement, {"of_tenant": tenant_id} | named)
        named |= {"of_tenant": tenant_id, "of_user": user_id}
        return await self._all(tenant_id, statement.where(_OF_USER), named)

    async def _all(self, tenant_id: str, statement: Any, parameters: dict[str, Any]) -> Sequence[Row[Any]]:
        with translated(STORAGE_ERRORS):
            connect = self._database.batch if statement.is_dml else self._database.single
            async with connect(tenant_id) as connection:
                return (await connection.execute(statement, parameters)).all()


def _last(file: StoredFile) -> dict[str, Any]:
    return {"last_created_at": file.created_at, "last_key": file.key}


def _first(rows: Sequence[Row[Any]]) -> StoredFile | None:
    return _file(rows[0]) if rows else None


def _file(row: Row[Any]) -> StoredFile:
    return StoredFile(**{name: getattr(row, name) for name in StoredFile.__struct_fields__})
