"""The statements of the books, built once.

Parameters say what they do: `of_…` names the row, `new_…` is what it becomes, `plus_…` and `minus_…` move a counter.
"""

from functools import cache
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Table,
    bindparam,
    case,
    delete,
    func,
    insert,
    select,
    tuple_,
    update,
)
from sqlalchemy.sql.dml import ReturningInsert

from textllm_adapters.sql import upserts
from textllm_adapters.sql.tables import (
    conversations,
    daily_usage,
    erasures,
    estimates,
    holds,
    idempotency_keys,
    ledger,
    messages,
    reply_ends,
    reply_events,
    sessions,
)
from textllm_core.money import ZERO


def _of_user(table: Table) -> tuple[ColumnElement[bool], ...]:
    return table.c.tenant_id == bindparam("of_tenant"), table.c.user_id == bindparam("of_user")


_OF_CONVERSATION: Final = (*_of_user(conversations), conversations.c.id == bindparam("of_conversation"))
# Whoever is charged, who need not be the user whose conversation it is.
OF_SESSION: Final = (
    sessions.c.tenant_id == bindparam("of_tenant"),
    sessions.c.user_id == bindparam("of_payer"),
    sessions.c.day == bindparam("of_day"),
)
_OF_HOLD: Final = (*_of_user(holds), holds.c.response_id == bindparam("of_response"))
_ALL_BUT_MESSAGE: Final = tuple(column for column in holds.c if column.name != "message")  # it may be long
_IS_RUNNING: Final = conversations.c.turn_id == bindparam("of_response")

TAKE_CONVERSATION: Final = (
    update(conversations)
    .where(
        *_OF_CONVERSATION,
        conversations.c.is_deleted.is_(False),
        conversations.c.revision == bindparam("of_revision"),
        conversations.c.turn_id.is_(None),  # what a dead process left is settled first
    )
    .values(
        turn_id=bindparam("new_turn"),
        turn_until=bindparam("new_lease"),
        title=case(
            (conversations.c.message_count == 0, func.coalesce(conversations.c.title, bindparam("new_title"))),
            else_=conversations.c.title,
        ),
    )
    .returning(conversations.c.session_id)
)
BEFORE: Final = (
    select(conversations.c.session_id, conversations.c.title, conversations.c.message_count)
    .where(*_OF_CONVERSATION)
    .with_for_update()
)
TURN_OF_CONVERSATION: Final = select(conversations.c.turn_id).where(
    *_OF_CONVERSATION, conversations.c.is_deleted.is_(False)
)
HOLD: Final = select(holds).where(*_OF_HOLD)
PROMISE: Final = (
    update(sessions)
    .where(*OF_SESSION)
    .values(
        reserved=sessions.c.reserved + bindparam("plus_amount"),
        conversation_count=sessions.c.conversation_count + bindparam("plus_conversations"),
        is_active=True,
        last_activity=bindparam("new_moment"),
    )
)
# Of a conversation that was just taken no other exchange has a hold.
HAS_ENTRY: Final = (
    select(ledger.c.response_id)
    .where(
        *_of_user(ledger),
        ledger.c.conversation_id == bindparam("of_conversation"),
        ledger.c.session_id == bindparam("of_session"),
    )
    .limit(1)
)
MOVE_CONVERSATION: Final = update(conversations).where(*_OF_CONVERSATION).values(session_id=bindparam("new_session"))
ADD_HOLD: Final = insert(holds)


END_HOLD: Final = delete(holds).where(*_OF_HOLD).returning(*_ALL_BUT_MESSAGE)
END_UNASKED: Final = END_HOLD.where(holds.c.is_asked.is_(False))


CORRECT_CONVERSATION: Final = (
    update(conversations)
    .where(*_OF_CONVERSATION)
    .values(
        message_count=conversations.c.message_count + bindparam("plus_answered"),
        total_tokens_input=conversations.c.total_tokens_input + bindparam("plus_input"),
        total_tokens_output=conversations.c.total_tokens_output + bindparam("plus_output"),
        total_cost=conversations.c.total_cost + bindparam("plus_cost"),
        summary=func.coalesce(bindparam("new_summary", type_=conversations.c.summary.type), conversations.c.summary),
    )
    .returning(conversations.c.message_count)
)
CORRECT_SESSION: Final = (
    update(sessions)
    .where(*OF_SESSION)
    .values(
        total_cost=sessions.c.total_cost + bindparam("plus_cost"),
        total_tokens=sessions.c.total_tokens + bindparam("plus_tokens"),
    )
    .returning(sessions.c.total_cost)
)
CORRECT_ENTRY: Final = (
    update(ledger)
    .where(*_of_user(ledger), ledger.c.response_id == bindparam("of_response"), ledger.c.estimated)
    .values(
        model=bindparam("new_model"),
        status=bindparam("new_status"),
        estimated=bindparam("new_estimated"),
        input_tokens=bindparam("new_input"),
        output_tokens=bindparam("new_output"),
        cached_tokens=bindparam("new_cached"),
        cache_write_tokens=bindparam("new_cache_write"),
        reasoning_tokens=bindparam("new_reasoning"),
        cost=bindparam("new_cost"),
        price_source=bindparam("new_source"),
        rates=bindparam("new_rates"),
        service_tier=bindparam("new_tier"),
        settled_at=bindparam("new_moment"),
    )
    .returning(ledger.c.response_id)
)
_REPLY: Final = (
    *_of_user(messages),
    messages.c.conversation_id == bindparam("of_conversation"),
    messages.c.response_id == bindparam("of_response"),
    messages.c.role == "assistant",
)
REPLY_IS_EXACT: Final = update(messages).where(*_REPLY).values(estimated=bindparam("new_estimated"))
CORRECT_REPLY: Final = REPLY_IS_EXACT.values(
    content=bindparam("new_content"), status=bindparam("new_status"), finish_reason=bindparam("new_reason")
)
REMEMBER_OTHERWISE: Final = (
    update(idempotency_keys)
    .where(
        idempotency_keys.c.tenant_id == bindparam("of_tenant"),
        idempotency_keys.c.response_id == bindparam("of_response"),
    )
    .values(remembered=bindparam("new_text"))
)
END_OTHERWISE: Final = (
    update(reply_ends)
    .where(*_of_user(reply_ends), reply_ends.c.response_id == bindparam("of_response"))
    .values(remembered=bindparam("new_text"), number=bindparam("new_number"))
)
CLOSE_ESTIMATE: Final = delete(estimates).where(
    *_of_user(estimates), estimates.c.response_id == bindparam("of_response")
)
CLOSE_OLD_ESTIMATES: Final = delete(estimates).where(estimates.c.until <= bindparam("of_moment"))
_DUE: Final = (  # a CTE for the same reason as `_ABANDONED`
    select(*estimates.primary_key)
    .where(estimates.c.next_at <= bindparam("of_moment"))
    .order_by(estimates.c.next_at)
    .limit(bindparam("at_most"))
    .with_for_update(skip_locked=True)
    .cte("due")
)
PUT_OFF_ESTIMATES: Final = (
    update(estimates)
    .where(tuple_(*estimates.primary_key).in_(select(_DUE)))
    .values(next_at=bindparam("new_moment"))
    .returning(estimates.c.hold)
)

ADD_ERASURES: Final = insert(erasures)

FREE_CONVERSATION: Final = (
    update(conversations).where(*_OF_CONVERSATION, _IS_RUNNING).values(turn_id=None, turn_until=None)
)
PUT_BACK_CONVERSATION: Final = FREE_CONVERSATION.values(
    session_id=bindparam("new_session"),
    title=case(
        (conversations.c.title == bindparam("given_title", type_=conversations.c.title.type), None),
        else_=conversations.c.title,
    ),
)
UNMAKE_CONVERSATION: Final = delete(conversations).where(*_OF_CONVERSATION, _IS_RUNNING)
_NOT_MOVED_SINCE: Final = sessions.c.last_activity == bindparam("of_moment")  # by another exchange
TAKE_BACK: Final = (
    update(sessions)
    .where(*OF_SESSION)
    .values(
        reserved=sessions.c.reserved - bindparam("minus_amount"),
        conversation_count=sessions.c.conversation_count - bindparam("minus_conversations"),
    )
)
PUT_BACK_SESSION: Final = TAKE_BACK.values(
    is_active=case((_NOT_MOVED_SINCE, sessions.c.is_active & bindparam("was_active")), else_=sessions.c.is_active),
    last_activity=case((_NOT_MOVED_SINCE, bindparam("old_moment")), else_=sessions.c.last_activity),
)
REMOVE_UNUSED_SESSION: Final = delete(sessions).where(
    *OF_SESSION,
    sessions.c.conversation_count == 0,
    sessions.c.reserved == ZERO,
    sessions.c.total_cost == ZERO,
    sessions.c.total_tokens == 0,
)
REMOVE_EVENTS: Final = delete(reply_events).where(
    *_of_user(reply_events), reply_events.c.response_id == bindparam("of_response")
)
REMOVE_ENTRY: Final = delete(ledger).where(*_of_user(ledger), ledger.c.response_id == bindparam("of_response"))

# Written as a CTE, which PostgreSQL runs once: it may run a subquery again, and then lease more than `at_most`.
_ABANDONED: Final = (
    select(*holds.primary_key)
    .where(holds.c.lease_until < bindparam("of_moment"))
    .order_by(holds.c.lease_until)
    .limit(bindparam("at_most"))
    .with_for_update(skip_locked=True)  # others may be at it; SQLite, which has one writer, leaves this out
    .cte("abandoned")
)
LEASE_ABANDONED: Final = (
    update(holds)
    .where(tuple_(*holds.primary_key).in_(select(_ABANDONED)))
    .values(lease_until=bindparam("new_lease"))
    .returning(holds)
)
RENEW_CONVERSATIONS: Final = (
    update(conversations)
    .where(
        tuple_(*conversations.primary_key, conversations.c.turn_id).in_(bindparam("of_exchanges", expanding=True)),
    )
    .values(turn_until=bindparam("new_lease"))
)

ENTRY: Final = select(ledger).where(
    ledger.c.tenant_id == bindparam("of_tenant"), ledger.c.response_id == bindparam("of_response")
)
ENTRIES: Final = select(ledger).where(*_of_user(ledger)).order_by(ledger.c.created_at, ledger.c.response_id)

_OF_KEY: Final = (
    idempotency_keys.c.tenant_id == bindparam("of_tenant"),
    idempotency_keys.c.scope == bindparam("of_scope"),
    idempotency_keys.c.key == bindparam("of_key"),
)
KEY: Final = select(idempotency_keys).where(*_OF_KEY)
GIVE_KEY_BACK: Final = delete(idempotency_keys).where(*_OF_KEY)
FORGET_KEYS: Final = delete(idempotency_keys).where(
    idempotency_keys.c.created_at < bindparam("of_moment"), idempotency_keys.c.remembered.is_not(None)
)


@cache
def make_conversation(dialect: str) -> ReturningInsert[*tuple[Any, ...]]:
    """Says which session the user has today, if any; no row where the conversation is there already."""
    session = select(sessions.c.id).where(*OF_SESSION).scalar_subquery()
    made = upserts.insert(conversations, dialect).values(session_id=session)
    return made.on_conflict_do_nothing(index_elements=conversations.primary_key).returning(conversations.c.session_id)


@cache
def open_session(dialect: str) -> ReturningInsert[*tuple[Any, ...]]:
    """Makes the session of the day, or finds it, and locks it either way."""
    opened = upserts.insert(sessions, dialect)
    return opened.on_conflict_do_update(
        index_elements=sessions.primary_key,
        set_={"last_activity": sessions.c.last_activity},
    ).returning(
        sessions.c.id, sessions.c.total_cost, sessions.c.reserved, sessions.c.is_active, sessions.c.last_activity
    )


@cache
def take_key(dialect: str) -> ReturningInsert[*tuple[Any, ...]]:
    """Takes a key that nobody has; no row where somebody has it."""
    taken = upserts.insert(idempotency_keys, dialect)
    return taken.on_conflict_do_nothing(index_elements=idempotency_keys.primary_key).returning(
        idempotency_keys.c.response_id
    )


@cache
def add_to_day(dialect: str) -> upserts.Insert:
    """Adds an exchange to what was used with its model on its day."""
    added = upserts.insert(daily_usage, dialect)
    return added.on_conflict_do_update(
        index_elements=daily_usage.primary_key,
        set_={column.name: column + added.excluded[column.name] for column in daily_usage.c if not column.primary_key},
    )
