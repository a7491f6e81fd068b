"""Statistics in SQL. Each statement reads one user's sessions, conversations or days by an index, or all of a tenant's.

The ledger is read for what conversations used in a period alone: who was charged finds its entries by an index, too.
"""

from collections.abc import Sequence
from datetime import date
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CompoundSelect,
    FromClause,
    Row,
    Select,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal,
    null,
    or_,
    select,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncEngine

from textllm_adapters.sql.database import Database
from textllm_adapters.sql.errors import STORAGE_ERRORS
from textllm_adapters.sql.tables import conversations, daily_usage, ledger, sessions
from textllm_adapters.sql.types import Money
from textllm_adapters.translation import translated
from textllm_core.ids import FIRST_TIMED_ID, first_response_id
from textllm_core.money import ZERO
from textllm_core.records.usage_reports import DailyUsage, UsageOfConversation

_Asked: TypeAlias = Select[*tuple[Any, ...]] | CompoundSelect[*tuple[Any, ...]]

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
_COUNTED: Final = ("messages", "input_tokens", "output_tokens", "cost", "estimated_cost")


def _sums(used: FromClause) -> Sequence[ColumnElement[Any]]:
    whole = (func.sum(used.c[name]) for name in ("messages", "input_tokens", "output_tokens"))
    usd = (func.sum(used.c[name]) for name in ("cost", "estimated_cost"))
    return [
        *(func.coalesce(cast(total, BigInteger), 0) for total in whole),  # PostgreSQL makes a decimal number of it
        *(func.coalesce(total, literal(ZERO, Money)) for total in usd),
    ]


_DAILY_OF_ALL: Final = (
    select(daily_usage.c.day, daily_usage.c.model, *_sums(daily_usage))
    .where(daily_usage.c.tenant_id == bindparam("of_tenant"), daily_usage.c.day >= bindparam("of_first"))
    .group_by(daily_usage.c.day, daily_usage.c.model)
)


def _count(*whose: ColumnElement[bool]) -> Select[int]:
    # A conversation names the session of its newest turn; so those of a period are the conversations of its sessions.
    # They need not be of the session's user, who may be one that is charged in the place of others. So they may lie on
    # other shards, and the sessions are read first.
    of_tenant = sessions.c.tenant_id == bindparam("of_tenant")
    period = (
        select(sessions.c.tenant_id, sessions.c.id)
        .where(of_tenant, *whose, sessions.c.day >= bindparam("of_first"))
        .cte("period")
    )
    is_in_it = (conversations.c.tenant_id == period.c.tenant_id) & (conversations.c.session_id == period.c.id)
    return select(func.count()).select_from(conversations.join(period, is_in_it))


_COUNT: Final = _count(sessions.c.user_id == bindparam("of_user"))
_COUNT_OF_ALL: Final = _count()
_IS_IN_PERIOD: Final = and_(
    ledger.c.tenant_id == bindparam("of_tenant"),
    # The ids say the time once more, so that PostgreSQL looks into no months but these, and into what says no time.
    or_(ledger.c.response_id >= bindparam("of_first_id"), ledger.c.response_id < FIRST_TIMED_ID),
    ledger.c.day >= bindparam("of_first"),
    ledger.c.status != "pending",
)
_CHARGED: Final = union_all(  # each finds its entries by an index of its own
    *(
        select(
            ledger.c.user_id,
            ledger.c.conversation_id,
            case((ledger.c.answered, 1), else_=0).label("messages"),
            ledger.c.input_tokens,
            ledger.c.output_tokens,
            ledger.c.cost,
            case((ledger.c.estimated, ledger.c.cost), else_=literal(ZERO, Money)).label("estimated_cost"),
        ).where(_IS_IN_PERIOD, *whose)
        for whose in (
            (ledger.c.user_id == bindparam("of_user"), ledger.c.payer_id.is_(None)),
            (ledger.c.payer_id == bindparam("of_user"),),
        )
    )
).subquery("charged")
_USED: Final = (
    select(
        _CHARGED.c.user_id,
        _CHARGED.c.conversation_id,
        *(total.label(name) for total, name in zip(_sums(_CHARGED), _COUNTED, strict=True)),
    )
    .group_by(_CHARGED.c.user_id, _CHARGED.c.conversation_id)
    .cte("used")
)
_LISTED: Final = (
    select(
        conversations.c.updated_at,
        conversations.c.id,
        conversations.c.title,
        *(_USED.c[name] for name in _COUNTED),
    )
    .join_from(
        _USED,
        conversations,
        (conversations.c.tenant_id == bindparam("of_tenant"))
        & (conversations.c.user_id == _USED.c.user_id)
        & (conversations.c.id == _USED.c.conversation_id),
    )
    .where(conversations.c.is_deleted.is_(False), conversations.c.expires_at.is_(None))
    .order_by(conversations.c.updated_at.desc(), conversations.c.id.desc())
    .limit(bindparam("at_most"))
    .subquery("listed")
)
_OF_DAYS: Final = _DAILY.subquery("days")
_NEWEST: Final = select(_LISTED).union_all(select(null(), null(), null(), *_sums(_OF_DAYS)))  # of one moment


class SqlUsageReports:
    """`UsageReports` from SQL tables."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._database = Database(engine)

    async def daily(self, tenant_id: str, user_id: str | None, first: date) -> Sequence[DailyUsage]:
        statement = _DAILY_OF_ALL if user_id is None else _DAILY
        return [DailyUsage(*row) for row in await self._all(tenant_id, statement, _period(tenant_id, user_id, first))]

    async def conversation_count(self, tenant_id: str, user_id: str | None, first: date) -> int:
        statement = _COUNT_OF_ALL if user_id is None else _COUNT
        (row,) = await self._all(tenant_id, statement, _period(tenant_id, user_id, first))
        count: int = row[0]
        return count

    async def newest_conversations(
        self, tenant_id: str, user_id: str, first: date, *, limit: int
    ) -> tuple[Sequence[UsageOfConversation], UsageOfConversation]:
        asked = _period(tenant_id, user_id, first) | {"of_first_id": first_response_id(first), "at_most": limit}
        found = await self._all(tenant_id, _NEWEST, asked)
        newest = sorted((row for row in found if row.id is not None), key=lambda row: (row.updated_at, row.id))
        (total,) = (row for row in found if row.id is None)
        return [UsageOfConversation(*row[1:]) for row in reversed(newest)], UsageOfConversation(*total[1:])

    async def _all(
        self, tenant_id: str, statement: _Asked, parameters: dict[str, object]
    ) -> Sequence[Row[*tuple[Any, ...]]]:
        with translated(STORAGE_ERRORS):
            async with self._database.single(tenant_id) as connection:
                return (await connection.execute(statement, parameters)).all()


def _period(tenant_id: str, user_id: str | None, first: date) -> dict[str, object]:
    of_user = {} if user_id is None else {"of_user": user_id}
    return {"of_tenant": tenant_id, "of_first": first} | of_user
