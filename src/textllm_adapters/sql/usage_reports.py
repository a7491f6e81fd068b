"""Statistics in SQL. Each statement reads one user's sessions, conversations or days by an index, never the ledger."""

from collections.abc import Sequence
from datetime import date
from typing import Any, Final

from sqlalchemy import Row, Select, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from textllm_adapters.sql.database import Database
from textllm_adapters.sql.errors import STORAGE_ERRORS
from textllm_adapters.sql.tables import conversations, daily_usage, sessions
from textllm_adapters.translation import translated
from textllm_core.records.usage_reports import DailyUsage, UsageOfConversation

_DAILY: Final = select(
    daily_usage.c.day,
    daily_usage.c.model,
    daily_usage.c.messages,
    daily_usage.c.input_tokens,
    daily_usage.c.output_tokens,
    daily_usage.c.cost,
    daily_usage.c.estimated_cost,
).where(
    daily_usage.c.tenant_id == bindparam("of_tenant"),
    daily_usage.c.user_id == bindparam("of_user"),
    daily_usage.c.day >= bindparam("of_first"),
)
# A conversation names the session of its newest turn; so those of a period are the conversations of its sessions. They
# need not be of the session's user, who may be one that is charged in the place of others.
# So they may lie on other shards, and the sessions are read first.
_IN_PERIOD: Final = (
    select(sessions.c.tenant_id, sessions.c.id, sessions.c.day)
    .where(
        sessions.c.tenant_id == bindparam("of_tenant"),
        sessions.c.user_id == bindparam("of_user"),
        sessions.c.day >= bindparam("of_first"),
    )
    .cte("period")
)
_SPOKEN_IN: Final = conversations.join(
    _IN_PERIOD,
    (conversations.c.tenant_id == _IN_PERIOD.c.tenant_id) & (conversations.c.session_id == _IN_PERIOD.c.id),
)
_COUNT: Final = select(func.count()).select_from(_SPOKEN_IN)
_NEWEST: Final = (
    select(
        conversations.c.id,
        conversations.c.title,
        conversations.c.message_count,
        conversations.c.total_tokens_input,
        conversations.c.total_tokens_output,
        conversations.c.total_cost,
    )
    .select_from(_SPOKEN_IN)
    .where(conversations.c.is_deleted.is_(False))
    .order_by(_IN_PERIOD.c.day.desc(), conversations.c.updated_at.desc(), conversations.c.id.desc())
    .limit(bindparam("at_most"))
)


class SqlUsageReports:
    """`UsageReports` from SQL tables."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._database = Database(engine)

    async def daily(self, tenant_id: str, user_id: str, first: date) -> Sequence[DailyUsage]:
        return [DailyUsage(*row) for row in await self._all(tenant_id, _DAILY, _period(tenant_id, user_id, first))]

    async def conversation_count(self, tenant_id: str, user_id: str, first: date) -> int:
        (row,) = await self._all(tenant_id, _COUNT, _period(tenant_id, user_id, first))
        count: int = row[0]
        return count

    async def newest_conversations(
        self, tenant_id: str, user_id: str, first: date, *, limit: int
    ) -> Sequence[UsageOfConversation]:
        found = await self._all(tenant_id, _NEWEST, _period(tenant_id, user_id, first) | {"at_most": limit})
        return [UsageOfConversation(*row) for row in found]

    async def _all(
        self, tenant_id: str, statement: Select[*tuple[Any, ...]], parameters: dict[str, object]
    ) -> Sequence[Row[*tuple[Any, ...]]]:
        with translated(STORAGE_ERRORS):
            async with self._database.single(tenant_id) as connection:
                return (await connection.execute(statement, parameters)).all()


def _period(tenant_id: str, user_id: str, first: date) -> dict[str, object]:
    return {"of_tenant": tenant_id, "of_user": user_id, "of_first": first}
