"""The steps of an ordinary turn, each as one statement that chains those of the general ledger as CTEs.

A link acts on what the one before it returned, and so they lock in the same order. Parameters are called as in the
general statements; those of whole rows are made by `parameters` and `lists`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    CTE,
    BindParameter,
    Boolean,
    Column,
    ColumnElement,
    FromClause,
    Select,
    Table,
    TableValuedAlias,
    Update,
    bindparam,
    column,
    exists,
    false,
    func,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, Insert, insert

from textllm_adapters.sql import ledger_statements as statements
from textllm_adapters.sql import upserts
from textllm_adapters.sql.tables import (
    conversations,
    erasures,
    estimates,
    holds,
    idempotency_keys,
    ledger,
    messages,
    reply_ends,
    sessions,
)

_DIALECT: Final = "postgresql"
NAMED: Final = tuple(holds.primary_key)


def _added(
    insertion: upserts.Insert,
    source: FromClause | None = None,
    *,
    where: ColumnElement[bool] | None = None,
    **computed: ColumnElement[Any],
) -> Insert:
    """`insertion` with a row for each of `source`, or one; its columns are computed, or of `parameters`."""
    table = insertion.table
    assert isinstance(insertion, Insert)
    assert isinstance(table, Table)
    chosen = select(*(computed.get(of.name, _parameter(table, of.name)).label(of.name) for of in table.columns))
    if source is not None:
        chosen = chosen.select_from(source)
    if where is not None:
        chosen = chosen.where(where)
    return insertion.from_select([of.name for of in table.columns], chosen)


def _parameter(table: Table, name: str) -> BindParameter[Any]:
    return bindparam(f"{table.name}_{name}", None, type_=table.c[name].type)


def parameters(table: Table, row: Mapping[str, object]) -> dict[str, object]:
    return {f"{table.name}_{name}": value for name, value in row.items()}


def _listed(columns: Iterable[Column[Any]]) -> TableValuedAlias:
    """Any number of rows of `lists`."""
    shape = [column(of.name, of.type) for of in columns]
    arrays = [bindparam(f"listed_{of.table.name}_{of.name}", type_=ARRAY(of.type, dimensions=1)) for of in columns]
    return func.unnest(*arrays).table_valued(*shape).render_derived()


def lists(columns: Iterable[Column[Any]], rows: Sequence[Mapping[str, object]]) -> dict[str, object]:
    return {f"listed_{of.table.name}_{of.name}": [row[of.name] for row in rows] for of in columns}


def _only(of: ColumnElement[Any]) -> ColumnElement[Any]:
    """The one value of a link; where it came back empty NULL, which a column that allows none refuses."""
    return select(of).scalar_subquery()


_HAS_ROOM: Final = sessions.c.total_cost + sessions.c.reserved + bindparam("plus_amount") <= bindparam("at_most")
_PROMISED: Final = sessions.c.reserved + bindparam("plus_amount")


def _held(source: CTE, session: CTE, conversation: CTE) -> Select[Any]:
    added = _added(
        insert(holds),
        source,
        session_id=_only(session.c.id),
        conversation_id=_only(conversation.c.id),
        cancel_asked=false(),
    )
    return select(added.returning(holds.c.session_id).cte("hold").c.session_id)


def _open() -> Select[Any]:
    """A new conversation, in a session that is opened for it or has room."""
    opened = _added(insert(sessions))
    session = (
        opened.on_conflict_do_update(
            index_elements=sessions.primary_key,
            set_={
                "is_active": True,
                "last_activity": opened.excluded.last_activity,
                "reserved": _PROMISED,
                "conversation_count": sessions.c.conversation_count + 1,
            },
            where=_HAS_ROOM,
        )
        .returning(sessions.c.id)
        .cte("session")
    )
    made = _added(insert(conversations), session, session_id=session.c.id)
    conversation = made.on_conflict_do_nothing().returning(conversations.c.id).cte("conversation")
    return _held(session, session, conversation)


def _take() -> Select[Any]:
    """A conversation that has had a turn today, in whose session there is room, and that has got its title."""
    of_day = statements.OF_SESSION
    has_room = exists().where(*of_day, sessions.c.id == conversations.c.session_id, _HAS_ROOM)
    keeps_title = or_(conversations.c.title.is_not(None), conversations.c.message_count > 0)
    taking = statements.TAKE_CONVERSATION.where(has_room, keeps_title).returning(conversations.c.id)
    conversation = taking.cte("conversation")
    session = (
        update(sessions)
        .where(*of_day, _HAS_ROOM, exists(select(conversation.c.id)))
        .values(is_active=True, last_activity=bindparam("new_moment"), reserved=_PROMISED)
        .returning(sessions.c.id)
        .cte("session")
    )
    return _held(conversation, session, conversation)


def _pend() -> Select[Any]:
    hold = statements.NAME_HOLD.cte("hold")
    entry = _added(statements.write_entry(_DIALECT), hold).cte("entry")
    return select(hold.c.response_id).add_cte(entry)


def _settle() -> Select[Any]:
    hold = statements.END_HOLD.cte("hold")
    settled = statements.SETTLE_CONVERSATION.where(exists(select(hold.c.response_id)))
    conversation = settled.returning(conversations.c.id).cte("conversation")
    paid = statements.SETTLE_SESSION.where(exists(select(conversation.c.id)))
    session = paid.returning(sessions.c.id).cte("session")
    counters = {"message_number": _only(conversation.c.message_count), "spent": _only(session.c.total_cost)}
    day = _added(statements.add_to_day(_DIALECT), session)
    entry = _added(
        statements.write_entry(_DIALECT),
        hold,
        conversation_id=_only(conversation.c.id),
        session_id=_only(session.c.id),
        provider_response_id=func.coalesce(hold.c.provider_response_id, _parameter(ledger, "provider_response_id")),
    )
    end = _added(insert(reply_ends), hold, where=hold.c.is_resumable, **counters)
    remembered = (
        update(idempotency_keys)
        .where(
            idempotency_keys.c.tenant_id == hold.c.tenant_id,
            idempotency_keys.c.scope == hold.c.idempotency_scope,
            idempotency_keys.c.key == hold.c.idempotency_key,
        )
        .values(remembered=bindparam("reply_ends_remembered"), **counters)
    )
    said, dropped = _listed(messages.columns), _listed(erasures.columns)
    number = conversation.c.last_message - bindparam("plus_messages") + said.c.number
    kept = _added(insert(messages), said.join(conversation, true()), **dict(said.c) | {"number": number})
    erased = _added(
        insert(erasures),
        dropped.join(conversation, true()),
        where=dropped.c.provider_id.is_distinct_from(conversation.c.transcript_id),
        **dict(dropped.c),
    )
    estimate = _added(insert(estimates), hold, where=bindparam("is_open", type_=Boolean()))
    written = (day, entry, end, remembered, kept, erased, estimate)
    return (
        select(conversation.c.message_count, session.c.total_cost)
        .select_from(conversation.join(session, true()))
        .add_cte(*(link.cte(f"written_{n}") for n, link in enumerate(written)))
    )


def _renew() -> Update:
    named = _listed(NAMED)
    renewed = (
        update(holds)
        .where(*(of == named.c[of.name] for of in NAMED))
        .values(lease_until=bindparam("new_lease"))
        .returning(*NAMED, holds.c.conversation_id)
        .cte("hold")
    )
    return (
        update(conversations)
        .where(
            conversations.c.tenant_id == renewed.c.tenant_id,
            conversations.c.user_id == renewed.c.user_id,
            conversations.c.id == renewed.c.conversation_id,
            conversations.c.turn_id == renewed.c.response_id,
        )
        .values(turn_until=bindparam("new_lease"))
    )


OPEN: Final = _open()
TAKE: Final = _take()
PEND: Final = _pend()
RENEW: Final = _renew()
SETTLE: Final = _settle()
