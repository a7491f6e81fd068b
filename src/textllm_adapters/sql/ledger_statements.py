"""The statements of the books, built once.

Parameters say what they do: `of_…` names the row, `new_…` is what it becomes. None of them moves a counter: what it is
is read, the rules say what it becomes, and that is written (`sql.accounts`).
"""

from functools import cache
from typing import Final

from sqlalchemy import (
    ColumnElement,
    Table,
    and_,
    bindparam,
    delete,
    exists,
    insert,
    or_,
    select,
    tuple_,
    update,
)

from textllm_adapters.sql import upserts
from textllm_adapters.sql.response_table import responses
from textllm_adapters.sql.tables import (
    conversations,
    erasures,
    estimates,
    holds,
    idempotency_keys,
    ledger,
    messages,
    reply_ends,
    reply_events,
)
from textllm_core.ids import FIRST_TIMED_ID


def _of_user(table: Table) -> tuple[ColumnElement[bool], ...]:
    return table.c.tenant_id == bindparam("of_tenant"), table.c.user_id == bindparam("of_user")


_OF_HOLD: Final = (*_of_user(holds), holds.c.response_id == bindparam("of_response"))
_SAID: Final = ("message", "said_before")  # they may be long
_ALL_BUT_SAID: Final = tuple(column for column in holds.c if column.name not in _SAID)

_IN_SESSION: Final = and_(holds.c.tenant_id == bindparam("of_tenant"), holds.c.session_id == bindparam("of_session"))

HOLD: Final = select(holds).where(*_OF_HOLD)
# Of a conversation that was just taken no other exchange has a hold. The ids say the session's day once more, so that
# PostgreSQL looks into one month, and into what says no time.
HAS_ENTRY: Final = (
    select(ledger.c.response_id)
    .where(
        *_of_user(ledger),
        ledger.c.conversation_id == bindparam("of_conversation"),
        ledger.c.session_id == bindparam("of_session"),
        or_(
            and_(ledger.c.response_id >= bindparam("of_first"), ledger.c.response_id < bindparam("of_end")),
            ledger.c.response_id < FIRST_TIMED_ID,
        ),
    )
    .limit(1)
)
HAS_HOLD: Final = (  # of which few are there at any time
    select(holds.c.response_id).where(_IN_SESSION, holds.c.session_was_active).limit(1)
)
# Of a session that is ended. One that somebody has locked is just coming to its end: to wait for it might be to wait in
# a circle.
END_SESSION_OF_HOLDS: Final = (
    update(holds)
    .where(
        tuple_(*holds.primary_key).in_(select(*holds.primary_key).where(_IN_SESSION).with_for_update(skip_locked=True))
    )
    .values(session_was_active=False)
)
ADD_HOLD: Final = insert(holds)
ADD_RESPONSE: Final = insert(responses)
FORGET_RESPONSE: Final = delete(responses).where(  # of which nobody was told, unless that was done before it began
    *_of_user(responses), responses.c.id == bindparam("of_response"), responses.c.is_background.is_(False)
)
FAIL_RESPONSE: Final = (
    update(responses)
    .where(*_of_user(responses), responses.c.id == bindparam("of_response"))
    .values(failure=bindparam("new_failure"))
)
END_HOLD: Final = delete(holds).where(*_OF_HOLD).returning(*_ALL_BUT_SAID)
END_UNASKED: Final = END_HOLD.where(holds.c.is_asked.is_(False))

CORRECT_ENTRY: Final = (
    update(ledger)
    .where(*_of_user(ledger), ledger.c.response_id == bindparam("of_response"), ledger.c.estimated)
    .returning(ledger.c.response_id)
)
_OF_CONVERSATION: Final = (*_of_user(messages), messages.c.conversation_id == bindparam("of_conversation"))
_OF_EXCHANGE: Final = messages.c.response_id == bindparam("of_response")
_REPLY: Final = (*_OF_CONVERSATION, _OF_EXCHANGE, messages.c.role == "assistant")
HAS_REPLY: Final = select(exists().where(*_REPLY))
REPLY_IS_EXACT: Final = (  # also where it was changed since, by its name
    update(messages)
    .where(*_OF_CONVERSATION, or_(_OF_EXCHANGE, messages.c.id == bindparam("of_reply")), messages.c.role == "assistant")
    .values(estimated=bindparam("new_estimated"))
)
CORRECT_REPLY: Final = (
    update(messages)
    .where(*_REPLY)
    .values(
        content=bindparam("new_content"),
        status=bindparam("new_status"),
        finish_reason=bindparam("new_reason"),
        estimated=bindparam("new_estimated"),
    )
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
_IS_DUE: Final = or_(estimates.c.next_at <= bindparam("of_moment"), estimates.c.next_at > bindparam("of_latest"))
_DUE: Final = (  # a CTE for the same reason as `_ABANDONED`
    select(*estimates.primary_key)
    .where(_IS_DUE)
    .order_by(estimates.c.next_at)
    .limit(bindparam("at_most"))
    .with_for_update(skip_locked=True)
    .cte("due")
)
PUT_OFF_ESTIMATES: Final = (
    update(estimates)
    .where(tuple_(*estimates.primary_key).in_(select(_DUE)), _IS_DUE)
    .values(next_at=bindparam("new_moment"))
    .returning(estimates.c.hold)
)

ADD_ERASURES: Final = insert(erasures)

REMOVE_EVENTS: Final = delete(reply_events).where(
    *_of_user(reply_events), reply_events.c.response_id == bindparam("of_response")
)
ADD_END: Final = insert(reply_ends)
REMOVE_ENTRY: Final = delete(ledger).where(*_of_user(ledger), ledger.c.response_id == bindparam("of_response"))

_IS_ABANDONED: Final = or_(holds.c.lease_until < bindparam("of_moment"), holds.c.lease_until > bindparam("of_latest"))
# Written as a CTE, which PostgreSQL runs once: it may run a subquery again, and then lease more than `at_most`.
_ABANDONED: Final = (
    select(*holds.primary_key)
    .where(_IS_ABANDONED)
    .order_by(holds.c.lease_until)
    .limit(bindparam("at_most"))
    .with_for_update(skip_locked=True)  # others may be at it; SQLite, which has one writer, leaves this out
    .cte("abandoned")
)
LEASE_ABANDONED: Final = (
    update(holds)
    .where(tuple_(*holds.primary_key).in_(select(_ABANDONED)), _IS_ABANDONED)
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
ENTRY_OF_USER: Final = ENTRY.where(ledger.c.user_id == bindparam("of_user"))
ENTRIES: Final = select(ledger).where(*_of_user(ledger)).order_by(ledger.c.created_at, ledger.c.response_id)

_OF_KEY: Final = (
    idempotency_keys.c.tenant_id == bindparam("of_tenant"),
    idempotency_keys.c.scope == bindparam("of_scope"),
    idempotency_keys.c.key == bindparam("of_key"),
)
KEY: Final = select(idempotency_keys).where(*_OF_KEY)
GIVE_KEY_BACK: Final = delete(idempotency_keys).where(*_OF_KEY)
FORGET_KEYS: Final = delete(idempotency_keys).where(
    tuple_(*idempotency_keys.primary_key).in_(
        select(*idempotency_keys.primary_key)
        .where(idempotency_keys.c.created_at < bindparam("of_moment"), idempotency_keys.c.remembered.is_not(None))
        .limit(bindparam("at_most"))
        .with_for_update(skip_locked=True)
    )
)


@cache
def say(dialect: str) -> upserts.Insert:
    """Events of a reply; those of a write whose commit was cut off from us are written again, with what came since."""
    said = upserts.insert(reply_events, dialect)
    return said.on_conflict_do_update(
        index_elements=reply_events.primary_key, set_={"last": said.excluded.last, "events": said.excluded.events}
    )
