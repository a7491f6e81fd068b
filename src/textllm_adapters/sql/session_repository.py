"""Sessions in SQL: rows in, records out."""

from collections.abc import Sequence
from datetime import date
from typing import Any, Final

from sqlalchemy import Select, bindparam, func, literal, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from textllm_adapters.sql.database import Database
from textllm_adapters.sql.errors import STORAGE_ERRORS
from textllm_adapters.sql.ledger_statements import END_SESSION_OF_HOLDS
from textllm_adapters.sql.tables import daily_usage, sessions
from textllm_adapters.translation import translated
from textllm_core.money import ZERO
from textllm_core.records.sessions import Session

_FIELDS: Final = (
    sessions.c.id,
    sessions.c.user_id,
    sessions.c.created_at,
    sessions.c.last_activity,
    sessions.c.total_tokens,
    sessions.c.total_cost,
    sessions.c.conversation_count,
    sessions.c.is_active,
    select(func.coalesce(func.sum(daily_usage.c.estimated_cost), literal(ZERO, daily_usage.c.estimated_cost.type)))
    .where(
        daily_usage.c.tenant_id == sessions.c.tenant_id,
        daily_usage.c.user_id == sessions.c.user_id,
        daily_usage.c.day == sessions.c.day,
    )
    .correlate(sessions)
    .scalar_subquery(),
)
_OF_TENANT: Final = sessions.c.tenant_id == bindparam("of_tenant")
_OF_USER: Final = sessions.c.user_id == bindparam("of_user")
_ID: Final = sessions.c.id == bindparam("of_session")

_GET: Final = select(*_FIELDS).where(_OF_TENANT, _ID)
_OF_DAY: Final = select(*_FIELDS).where(_OF_TENANT, _OF_USER, sessions.c.day == bindparam("of_day"))
_SINCE: Final = (
    select(*_FIELDS)
    .where(_OF_TENANT, _OF_USER, sessions.c.day >= bindparam("of_first"))
    .order_by(sessions.c.day.desc())
)
_END: Final = update(sessions).where(_OF_TENANT, _OF_USER, _ID).values(is_active=False).returning(sessions.c.id)


class SqlSessionRepository:
    """A `SessionRepository` over a SQL table."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._database = Database(engine)

    async def get(self, tenant_id: str, session_id: str, *, user_id: str | None = None) -> Session | None:
        it: dict[str, object] = {"of_tenant": tenant_id, "of_session": session_id}
        if user_id is None:
            return await self._first(tenant_id, _GET, it)
        return await self._first(tenant_id, _GET.where(_OF_USER), it | {"of_user": user_id})

    async def of_day(self, tenant_id: str, user_id: str, day: date) -> Session | None:
        return await self._first(tenant_id, _OF_DAY, {"of_tenant": tenant_id, "of_user": user_id, "of_day": day})

    async def since(self, tenant_id: str, user_id: str, first: date) -> Sequence[Session]:
        return await self._all(tenant_id, _SINCE, {"of_tenant": tenant_id, "of_user": user_id, "of_first": first})

    async def end(self, tenant_id: str, user_id: str, session_id: str) -> Session | None:
        of_it = {"of_tenant": tenant_id, "of_user": user_id, "of_session": session_id}
        with translated(STORAGE_ERRORS):
            async with self._database.transaction(tenant_id) as connection:
                found = (await connection.execute(_END, of_it)).first() is not None
                if found:
                    await connection.execute(END_SESSION_OF_HOLDS, of_it)
        return await self.get(tenant_id, session_id) if found else None

    async def _first(self, tenant_id: str, statement: Select[Any], parameters: dict[str, object]) -> Session | None:
        return next(iter(await self._all(tenant_id, statement, parameters)), None)

    async def _all(self, tenant_id: str, statement: Select[Any], parameters: dict[str, object]) -> Sequence[Session]:
        with translated(STORAGE_ERRORS):
            async with self._database.single(tenant_id) as connection:
                return [Session(*row) for row in await connection.execute(statement, parameters)]
