"""The list of erasures in SQL."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final

from msgspec import to_builtins
from sqlalchemy import (
    ColumnElement,
    Delete,
    Insert,
    Select,
    String,
    Update,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncEngine

from textllm_adapters.sql.database import EVERYONE, Database, shared_tenant
from textllm_adapters.sql.errors import STORAGE_ERRORS
from textllm_adapters.sql.tables import erasures
from textllm_adapters.translation import translated
from textllm_core.events import ErasuresWaiting
from textllm_core.records.erasures import Erasure

_IT: Final[tuple[ColumnElement[bool], ...]] = (
    erasures.c.tenant_id == bindparam("of_tenant"),
    erasures.c.user_id == bindparam("of_user"),
    erasures.c.id == bindparam("of_erasure"),
)
_IS_DUE: Final = or_(erasures.c.next_at <= bindparam("of_moment"), erasures.c.next_at > bindparam("of_latest"))
# As a CTE, which PostgreSQL runs once: it may run a subquery again, and then lease more than `at_most`.
_DUE: Final = (
    select(*erasures.primary_key)
    .where(_IS_DUE)
    .order_by(erasures.c.next_at)
    .limit(bindparam("at_most"))
    .with_for_update(skip_locked=True)  # SQLite, which has one writer, leaves this out
    .cte("due")
)
_LEASE: Final = (
    update(erasures)
    .where(tuple_(*erasures.primary_key).in_(select(_DUE)), _IS_DUE)
    .values(next_at=bindparam("new_lease"), attempts=erasures.c.attempts + 1)
    .returning(
        erasures.c.tenant_id,
        erasures.c.user_id,
        erasures.c.id,
        erasures.c.kind,
        erasures.c.provider_id,
        erasures.c.attempts,
    )
)
_FORESEE: Final = insert(erasures)
_STRIKE_OFF: Final = delete(erasures).where(*_IT)
_PUT_OFF: Final = update(erasures).where(*_IT).values(next_at=bindparam("new_moment"))


class SqlErasures:
    """An `Erasures` over a SQL table."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._database = Database(engine)

    async def due(self, *, at: datetime, latest: datetime, lease_until: datetime, limit: int) -> Sequence[Erasure]:
        asked = {"of_moment": at, "of_latest": latest, "new_lease": lease_until, "at_most": limit}
        with translated(STORAGE_ERRORS):
            async with self._database.transaction(EVERYONE) as connection:
                return [Erasure(**row._mapping) for row in await connection.execute(_LEASE, asked)]

    async def foresee(self, erasures: Sequence[Erasure], *, at: datetime) -> None:
        await self._write(erasures, _FORESEE, [to_builtins(erasure) | {"next_at": at} for erasure in erasures])

    async def done(self, *erasures: Erasure) -> None:
        await self._write(erasures, _STRIKE_OFF, [_of(erasure) for erasure in erasures])

    async def waiting(self) -> ErasuresWaiting:
        with translated(STORAGE_ERRORS):
            async with self._database.transaction(EVERYONE) as connection:
                found = (await connection.execute(_waiting(self._database.dialect))).all()
        by_provider = {row.provider.removesuffix("/"): row.pending for row in found}
        return ErasuresWaiting(
            pending=sum(by_provider.values()), failing=sum(row.failing for row in found), by_provider=by_provider
        )

    async def put_off(self, erasure: Erasure, *, until: datetime) -> None:
        await self._write([erasure], _PUT_OFF, [_of(erasure) | {"new_moment": until}])

    async def _write(
        self, written: Sequence[Erasure], statement: Insert | Update | Delete, values: list[dict[str, Any]]
    ) -> None:
        if not written:
            return
        of_tenant = shared_tenant(erasure.tenant_id for erasure in written)
        with translated(STORAGE_ERRORS):
            async with self._database.transaction(of_tenant) as connection:
                await connection.execute(statement, values)


@cache
def _waiting(dialect: str) -> Select[str, int, int]:
    """How many wait and fail, by the provider's name and its slash, which stand before the provider's own id."""
    place = func.strpos if dialect == "postgresql" else func.instr
    provider = func.substr(erasures.c.provider_id, 1, place(erasures.c.provider_id, "/"), type_=String())
    return (
        select(
            provider.label("provider"),
            func.count().label("pending"),
            func.count().filter(erasures.c.attempts > 0).label("failing"),
        )
        .where(or_(erasures.c.kind != "ready", erasures.c.attempts > 0))
        .group_by(literal_column("1"))
    )


def _of(erasure: Erasure) -> dict[str, Any]:
    return {"of_tenant": erasure.tenant_id, "of_user": erasure.user_id, "of_erasure": erasure.id}
