"""The audit in SQL: the database adds up and compares, and only what has drifted comes out of it.

A statement sees one snapshot, in which a turn has moved its entry, its hold and all its counters, or none of them.
"""

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Join,
    Row,
    Select,
    String,
    Subquery,
    Table,
    Update,
    and_,
    bindparam,
    case,
    cast,
    exists,
    func,
    literal,
    or_,
    select,
    true,
    union,
    update,
)
from sqlalchemy.ext.asyncio import AsyncEngine

from textllm_adapters.sql import upserts
from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sql.errors import STORAGE_ERRORS
from textllm_adapters.sql.horizons import FIRST_DAY, FIRST_MOMENT
from textllm_adapters.sql.tables import conversations, daily_usage, holds, ledger, sessions
from textllm_adapters.sql.types import Money
from textllm_adapters.translation import translated
from textllm_core.money import ZERO
from textllm_core.records.audit import BooksSize, Drift
from textllm_core.rules.books import MAX_MODEL_CHARS

_Scope: TypeAlias = Callable[[Table], ColumnElement[bool]]  # whose rows


def _everyone(_: Table) -> ColumnElement[bool]:
    return true()


def _one_user(table: Table) -> ColumnElement[bool]:
    return and_(table.c.tenant_id == bindparam("of_tenant"), table.c.user_id == bindparam("of_user"))


def _charged_to(table: Table) -> ColumnElement[bool]:
    """Exchanges for which that user is charged."""
    payer, user = table.c.payer_id, table.c.user_id
    is_charged = or_(payer == bindparam("of_user"), and_(payer.is_(None), user == bindparam("of_user")))
    return and_(table.c.tenant_id == bindparam("of_tenant"), is_charged)


def _payer(table: Table) -> ColumnElement[str]:
    return func.coalesce(table.c.payer_id, table.c.user_id)


@dataclass(frozen=True, slots=True)
class _Check:
    """Finds the rows of a table whose counters have drifted: their `key`, and `recorded_…` and `actual_…` of each."""

    table: Table
    counters: Sequence[str]
    statement: Select[Any]

    def drifts(self, row: Row[Any]) -> Iterator[Drift]:
        values = row._mapping
        for counter in self.counters:
            recorded, actual = values[f"recorded_{counter}"], values[f"actual_{counter}"]
            if recorded != actual:
                yield Drift(
                    table=self.table.name,
                    tenant_id=row.tenant_id,
                    user_id=row.user_id,
                    key=row.key,
                    counter=counter,
                    recorded=recorded,
                    actual=actual,
                )

    def repair(self, row: Row[Any], dialect: str) -> Update | upserts.Insert:
        key = {column.name: row._mapping[column.name] for column in self.table.primary_key}
        values = {name: row._mapping[f"actual_{name}"] for name in self.counters}
        if self.table is daily_usage:  # the row itself may be missing
            made = upserts.insert(self.table, dialect).values(key | values)
            return made.on_conflict_do_update(index_elements=self.table.primary_key, set_=values)
        return update(self.table).where(*(self.table.c[name] == value for name, value in key.items())).values(values)


def _expected(
    recorded: ColumnElement[Any], total: ColumnElement[Any], is_old: ColumnElement[bool]
) -> ColumnElement[Any]:
    """What a counter should say: no less than what is left, where entries may have been removed; else just that."""
    return case((and_(is_old, recorded > total), recorded), else_=total)


def _check(
    table: Table,
    key: str,
    joined: Join | Table,
    actual: Mapping[str, ColumnElement[Any]],
    scope: _Scope,
    is_old: ColumnElement[bool],
) -> _Check:
    """Compares counters of `table` with what they should be in `joined`, where NULL is the sum of no rows."""
    columns: list[ColumnElement[Any]] = [*table.primary_key, table.c[key].label("key")]
    has_drifted: list[ColumnElement[bool]] = []
    for counter, total in actual.items():
        recorded = table.c[counter]
        should_be = _or_zero(total)
        if counter != "reserved":  # no hold is ever too old
            should_be = _expected(recorded, should_be, is_old)
        columns += [recorded.label(f"recorded_{counter}"), should_be.label(f"actual_{counter}")]
        has_drifted.append(recorded != should_be)
    statement = select(*columns).select_from(joined).where(scope(table), or_(*has_drifted))
    return _Check(table, tuple(actual), statement)


def _sums(
    table: Table, by: str, scope: _Scope, *, user: ColumnElement[str] | None = None, **sums: ColumnElement[Any]
) -> Subquery:
    """`sums` over a user's rows that have the same value of a column; `user`: whose they are, in place of `user_id`."""
    group = (table.c.tenant_id, (table.c.user_id if user is None else user).label("user_id"), table.c[by])
    return (
        select(*group, *(value.label(name) for name, value in sums.items()))
        .where(scope(table))
        .group_by(*group)
        .subquery()
    )


def _of_same_user(table: Table, other: Table | Subquery) -> ColumnElement[bool]:
    return and_(other.c.tenant_id == table.c.tenant_id, other.c.user_id == table.c.user_id)


def _conversation_counters(scope: _Scope) -> _Check:
    spent = _sums(
        ledger,
        "conversation_id",
        scope,
        cost=func.sum(ledger.c.cost),
        input=_whole(ledger.c.input_tokens),
        output=_whole(ledger.c.output_tokens),
        answered=_whole(case((ledger.c.answered, 1), else_=0)),
    )
    of_it = and_(_of_same_user(conversations, spent), spent.c.conversation_id == conversations.c.id)
    actual = {
        "total_cost": spent.c.cost,
        "total_tokens_input": spent.c.input,
        "total_tokens_output": spent.c.output,
        "message_count": _or_zero(spent.c.answered) + conversations.c.imported_turns,
    }
    is_old = conversations.c.created_at < FIRST_MOMENT
    return _check(conversations, "id", conversations.outerjoin(spent, of_it), actual, scope, is_old)


def _session_counters(scope: _Scope, charged: _Scope) -> _Check:
    tokens = ledger.c.input_tokens + ledger.c.output_tokens
    paid = {"cost": func.sum(ledger.c.cost), "tokens": _whole(tokens)}
    spent = _sums(ledger, "day", charged, user=_payer(ledger), **paid)
    held = _sums(holds, "day", charged, user=_payer(holds), amount=func.sum(holds.c.amount))
    spoken = _spoken_in(charged)
    joined: Join | Table = sessions
    for of_day in (spent, held, spoken):
        joined = joined.outerjoin(of_day, and_(_of_same_user(sessions, of_day), of_day.c.day == sessions.c.day))
    actual = {
        "total_cost": spent.c.cost,
        "total_tokens": spent.c.tokens,
        "reserved": held.c.amount,
        "conversation_count": spoken.c.conversations,
    }
    return _check(sessions, "id", joined, actual, scope, sessions.c.day < FIRST_DAY)


def _spoken_in(charged: _Scope) -> Subquery:
    """How many conversations have an entry or a hold in each session."""
    each = union(
        *(
            select(
                table.c.tenant_id,
                _payer(table).label("user_id"),
                table.c.day,
                table.c.user_id.label("owner_id"),
                table.c.conversation_id,
            ).where(charged(table))
            for table in (ledger, holds)
        )
    ).subquery()
    group = each.c.tenant_id, each.c.user_id, each.c.day
    return select(*group, func.count().label("conversations")).group_by(*group).subquery()


def _daily_counters(scope: _Scope, charged: _Scope) -> _Check:
    model = func.substr(ledger.c.model, 1, MAX_MODEL_CHARS)  # as `books.model_of_day` has it
    day = (ledger.c.tenant_id, _payer(ledger), ledger.c.day, model)
    sums = {
        "messages": _whole(case((ledger.c.answered, 1), else_=0)),
        "input_tokens": _whole(ledger.c.input_tokens),
        "output_tokens": _whole(ledger.c.output_tokens),
        "cost": func.sum(ledger.c.cost),
        "estimated_cost": func.sum(case((ledger.c.estimated, ledger.c.cost), else_=literal(ZERO, Money))),
    }
    named = [column.label(key.name) for column, key in zip(day, daily_usage.primary_key, strict=True)]
    spent = (
        select(*named, *(total.label(name) for name, total in sums.items()))
        .where(charged(ledger), ledger.c.status != "pending")
        .group_by(*day)
        .subquery()
    )
    kept = select(daily_usage).where(scope(daily_usage)).subquery()
    is_same = and_(*(kept.c[key.name] == spent.c[key.name] for key in daily_usage.primary_key))
    keys = {key.name: func.coalesce(kept.c[key.name], spent.c[key.name]) for key in daily_usage.primary_key}
    columns: list[ColumnElement[Any]] = [key.label(name) for name, key in keys.items()]
    columns.append((cast(keys["day"], String) + " " + keys["model"]).label("key"))
    has_drifted: list[ColumnElement[bool]] = []
    for counter in sums:
        recorded = _or_zero(kept.c[counter])
        should_be = _expected(recorded, _or_zero(spent.c[counter]), keys["day"] < FIRST_DAY)
        columns += [recorded.label(f"recorded_{counter}"), should_be.label(f"actual_{counter}")]
        has_drifted.append(recorded != should_be)
    statement = select(*columns).select_from(kept.join(spent, is_same, full=True)).where(or_(*has_drifted))
    return _Check(daily_usage, tuple(sums), statement)


def _or_zero(total: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.coalesce(total, literal(ZERO if isinstance(total.type, Money) else 0, total.type))


def _whole(summed: ColumnElement[Any]) -> ColumnElement[int]:
    """A sum of whole numbers, which PostgreSQL would turn into a decimal one."""
    return cast(func.sum(summed), BigInteger)


def _counters(scope: _Scope, charged: _Scope) -> tuple[_Check, ...]:
    """Args:
    scope: whose counters.
    charged: the exchanges that are charged to them.
    """
    return _conversation_counters(scope), _session_counters(scope, charged), _daily_counters(scope, charged)


def _has_no_hold(table: Table, response: ColumnElement[Any]) -> ColumnElement[bool]:
    return ~exists().where(_of_same_user(table, holds), holds.c.response_id == response)


_IS_LEFT_BUSY: Final = and_(conversations.c.turn_id.is_not(None), _has_no_hold(conversations, conversations.c.turn_id))
_IS_LEFT_PENDING: Final = and_(ledger.c.status == "pending", _has_no_hold(ledger, ledger.c.response_id))


def _left_running(table: Table, key: str, is_left: ColumnElement[bool], scope: _Scope) -> _Check:
    """Rows which say that an exchange runs, though it has no hold."""
    columns = [*table.primary_key, table.c[key].label("key")]
    running = literal(1).label("recorded_running"), literal(0).label("actual_running")
    return _Check(table, ("running",), select(*columns, *running).where(scope(table), is_left))


def _left_busy(scope: _Scope) -> _Check:
    return _left_running(conversations, "id", _IS_LEFT_BUSY, scope)


_COUNTERS: Final = _counters(_everyone, _everyone)
_LEFT_RUNNING: Final = (_left_busy(_everyone), _left_running(ledger, "response_id", _IS_LEFT_PENDING, _everyone))
_COUNTERS_OF_USER: Final = _counters(_one_user, _charged_to)
_LEFT_BUSY_OF_USER: Final = _left_busy(_one_user)
_FREE: Final = (
    update(conversations).where(_one_user(conversations), _IS_LEFT_BUSY).values(turn_id=None, turn_until=None)
)
_LOCK_USER: Final = tuple(
    select(func.count()).select_from(
        select(*table.primary_key).where(whose).order_by(*table.primary_key).with_for_update().subquery()
    )
    for table, whose in (  # in the order in which turns lock them
        (holds, _one_user(holds)),  # turns of others for which the user is charged wait at the session
        (conversations, _one_user(conversations)),
        (sessions, _one_user(sessions)),
        (daily_usage, _one_user(daily_usage)),
    )
)
_SIZE: Final = select(
    *(
        select(func.count()).select_from(table).scalar_subquery().label(name)
        for name, table in (
            ("entries", ledger),
            ("holds", holds),
            ("sessions", sessions),
            ("conversations", conversations),
        )
    )
)


class SqlAudit:
    """An `Audit` of SQL tables.

    Args:
        engine: its statements may take as long as adding up the whole ledger does.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._database = Database(engine)
        # On SQLite a transaction of ours would keep others from writing; PostgreSQL streams in one only.
        is_sqlite = engine.dialect.name == "sqlite"
        self._reading = self._database.single if is_sqlite else self._database.transaction

    async def drifts(self) -> AsyncGenerator[Drift, None]:
        with translated(STORAGE_ERRORS):
            async with self._reading(EVERYONE) as connection:
                for check in (*_COUNTERS, *_LEFT_RUNNING):
                    async with connection.stream(check.statement) as rows:
                        async for row in rows:
                            for drift in check.drifts(row):
                                yield drift

    async def repair(self, tenant_id: str, user_id: str) -> Sequence[Drift]:
        of_user = {"of_tenant": tenant_id, "of_user": user_id}
        with translated(STORAGE_ERRORS):
            async with self._database.transaction(tenant_id) as connection:
                for lock in _LOCK_USER:
                    await connection.execute(lock, of_user)
                drifts: list[Drift] = []
                for check in _COUNTERS_OF_USER:
                    for row in (await connection.execute(check.statement, of_user)).all():
                        drifts += check.drifts(row)
                        await connection.execute(check.repair(row, self._database.dialect))
                for row in await connection.execute(_LEFT_BUSY_OF_USER.statement, of_user):
                    drifts += _LEFT_BUSY_OF_USER.drifts(row)
                await connection.execute(_FREE, of_user)
        return drifts

    async def size(self) -> BooksSize:
        with translated(STORAGE_ERRORS):
            async with self._reading(EVERYONE) as connection:
                return BooksSize(**(await connection.execute(_SIZE)).one()._mapping)
