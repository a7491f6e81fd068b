"""Sessions in SQL: rows in, records out."""

from datetime import date
from typing import Any, Final

from sqlalchemy import Select, bindparam, select
from sqlalchemy.ext.asyncio import AsyncEngine

from textllm_adapters.sql.errors import STORAGE_ERRORS
from textllm_adapters.sql.tables import sessions
from textllm_adapters.translation import translated
from textllm_core.sessions import Session

_SESSION: Final = select(
    sessions.c.id,
    sessions.c.user_id,
    sessions.c.created_at,
    sessions.c.last_activity,
    sessions.c.total_tokens,
    sessions.c.total_cost,
    sessions.c.conversation_count,
    sessions.c.is_active,
).where(sessions.c.tenant_id == bindparam("of_tenant"))
_GET: Final = _SESSION.where(sessions.c.id == bindparam("of_session"))
_OF_DAY: Final = _SESSION.where(sessions.c.user_id == bindparam("of_user"), sessions.c.day == bindparam("of_day"))


class SqlSessionRepository:
    """A `SessionRepository` that reads a SQL table."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")

    async def get(self, tenant_id: str, session_id: str) -> Session | None:
        return await self._first(_GET, {"of_tenant": tenant_id, "of_session": session_id})

    async def of_day(self, tenant_id: str, user_id: str, day: date) -> Session | None:
        return await self._first(_OF_DAY, {"of_tenant": tenant_id, "of_user": user_id, "of_day": day})

    async def _first(self, statement: Select[Any], parameters: dict[str, object]) -> Session | None:
        with translated(STORAGE_ERRORS):
            async with self._engine.connect() as connection:
                row = (await connection.execute(statement, parameters)).first()
        return None if row is None else Session(*row)
