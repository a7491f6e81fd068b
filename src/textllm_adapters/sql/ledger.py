"""The books in SQL. Statements are built once, and a call takes as few of them as it can: each is a round trip.

Locks are always taken in this order: hold, conversation, session, daily usage, ledger entry. So no two calls wait for
each other.
Parameters say what they do: `of_…` names the row, `new_…` is what it becomes, `plus_…` and `minus_…` move a counter.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final

from msgspec.structs import replace
from sqlalchemy import (
    ColumnElement,
    Row,
    Table,
    bindparam,
    case,
    delete,
    insert,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.sql.dml import ReturningInsert

from textllm_adapters.sql import upserts
from textllm_adapters.sql.errors import STORAGE_ERRORS
from textllm_adapters.sql.tables import conversations, daily_usage, holds, idempotency_keys, ledger, messages, sessions
from textllm_adapters.translation import translated
from textllm_core.budgets import grant
from textllm_core.chat.messages import Idempotency
from textllm_core.errors import (
    ConversationBusyError,
    ConversationNotFoundError,
    IdempotencyInProgressError,
    IdempotencyMismatchError,
)
from textllm_core.ids import new_id
from textllm_core.money import ZERO, exact
from textllm_core.ports.ledger import AlreadySettledError, Hold, Replay, Reservation, Settled, Settlement
from textllm_core.sessions import day_of
from textllm_core.usage import LedgerEntry, Usage


def _of_user(table: Table) -> tuple[ColumnElement[bool], ...]:
    return table.c.tenant_id == bindparam("of_tenant"), table.c.user_id == bindparam("of_user")


_OF_CONVERSATION: Final = (*_of_user(conversations), conversations.c.id == bindparam("of_conversation"))
_OF_SESSION: Final = (*_of_user(sessions), sessions.c.day == bindparam("of_day"))
_OF_HOLD: Final = (*_of_user(holds), holds.c.response_id == bindparam("of_response"))
_IS_RUNNING: Final = conversations.c.turn_id == bindparam("of_response")

_TAKE_CONVERSATION: Final = (
    update(conversations)
    .where(
        *_OF_CONVERSATION,
        conversations.c.is_deleted.is_(False),
        conversations.c.revision == bindparam("of_revision"),
        or_(conversations.c.turn_id.is_(None), conversations.c.turn_until < bindparam("of_moment")),
    )
    .values(turn_id=bindparam("new_turn"), turn_until=bindparam("new_lease"))
    .returning(conversations.c.session_id)
)
_TURN_OF_CONVERSATION: Final = select(conversations.c.turn_id).where(
    *_OF_CONVERSATION, conversations.c.is_deleted.is_(False)
)
_HOLD: Final = select(holds).where(*_OF_HOLD)
_PROMISE: Final = (
    update(sessions)
    .where(*_OF_SESSION)
    .values(
        reserved=sessions.c.reserved + bindparam("plus_amount"),
        conversation_count=sessions.c.conversation_count + bindparam("plus_conversations"),
    )
)
_MOVE_CONVERSATION: Final = update(conversations).where(*_OF_CONVERSATION).values(session_id=bindparam("new_session"))
_ADD_HOLD: Final = insert(holds)

_NAME_HOLD: Final = (
    update(holds).where(*_OF_HOLD).values(provider_response_id=bindparam("new_provider_response")).returning(holds)
)

_RENEW_HOLDS: Final = (
    update(holds)
    .where(
        tuple_(holds.c.tenant_id, holds.c.user_id, holds.c.response_id).in_(bindparam("of_exchanges", expanding=True))
    )
    .values(lease_until=bindparam("new_lease"))
)

_END_HOLD: Final = delete(holds).where(*_OF_HOLD).returning(holds)


def _if_running(new: str, column: ColumnElement[Any]) -> ColumnElement[Any]:
    return case((_IS_RUNNING, bindparam(new, type_=column.type)), else_=column)


_SETTLE_CONVERSATION: Final = (
    update(conversations)
    .where(*_OF_CONVERSATION)
    .values(
        message_count=conversations.c.message_count + bindparam("plus_answered"),
        total_tokens_input=conversations.c.total_tokens_input + bindparam("plus_input"),
        total_tokens_output=conversations.c.total_tokens_output + bindparam("plus_output"),
        total_cost=conversations.c.total_cost + bindparam("plus_cost"),
        revision=conversations.c.revision + 1,
        last_message=conversations.c.last_message + bindparam("plus_messages"),
        updated_at=bindparam("new_moment"),
        transcript_id=_if_running("new_transcript", conversations.c.transcript_id),
        context_tokens=_if_running("new_context", conversations.c.context_tokens),
        turn_until=case((_IS_RUNNING, None), else_=conversations.c.turn_until),
        turn_id=case((_IS_RUNNING, None), else_=conversations.c.turn_id),
    )
    .returning(conversations.c.message_count, conversations.c.last_message)
)
_SETTLE_SESSION: Final = (
    update(sessions)
    .where(*_OF_SESSION)
    .values(
        reserved=sessions.c.reserved - bindparam("minus_amount"),
        total_cost=sessions.c.total_cost + bindparam("plus_cost"),
        total_tokens=sessions.c.total_tokens + bindparam("plus_tokens"),
        last_activity=bindparam("new_moment"),
    )
    .returning(sessions.c.total_cost)
)
_ADD_MESSAGES: Final = insert(messages)

_FREE_CONVERSATION: Final = (
    update(conversations).where(*_OF_CONVERSATION, _IS_RUNNING).values(turn_id=None, turn_until=None)
)
_UNMAKE_CONVERSATION: Final = delete(conversations).where(*_OF_CONVERSATION, _IS_RUNNING)
_TAKE_BACK: Final = (
    update(sessions)
    .where(*_OF_SESSION)
    .values(
        reserved=sessions.c.reserved - bindparam("minus_amount"),
        conversation_count=sessions.c.conversation_count - bindparam("minus_conversations"),
    )
)
_REMOVE_ENTRY: Final = delete(ledger).where(*_of_user(ledger), ledger.c.response_id == bindparam("of_response"))

# Written as a CTE, which PostgreSQL runs once: it may run a subquery again, and then lease more than `at_most`.
_ABANDONED: Final = (
    select(*holds.primary_key)
    .where(holds.c.lease_until < bindparam("of_moment"))
    .order_by(holds.c.lease_until)
    .limit(bindparam("at_most"))
    .with_for_update(skip_locked=True)  # others may be at it; SQLite, which has one writer, leaves this out
    .cte("abandoned")
)
_LEASE_ABANDONED: Final = (
    update(holds)
    .where(tuple_(*holds.primary_key).in_(select(_ABANDONED)))
    .values(lease_until=bindparam("new_lease"))
    .returning(holds)
)
_RENEW_CONVERSATIONS: Final = (
    update(conversations)
    .where(
        tuple_(*conversations.primary_key, conversations.c.turn_id).in_(bindparam("of_exchanges", expanding=True)),
    )
    .values(turn_until=bindparam("new_lease"))
)

_ENTRY: Final = select(ledger).where(
    ledger.c.tenant_id == bindparam("of_tenant"), ledger.c.response_id == bindparam("of_response")
)
_ENTRIES: Final = select(ledger).where(*_of_user(ledger)).order_by(ledger.c.created_at, ledger.c.response_id)

_OF_KEY: Final = (
    idempotency_keys.c.tenant_id == bindparam("of_tenant"),
    idempotency_keys.c.scope == bindparam("of_scope"),
    idempotency_keys.c.key == bindparam("of_key"),
)
_KEY: Final = select(idempotency_keys).where(*_OF_KEY)
_REMEMBER: Final = (
    update(idempotency_keys)
    .where(*_OF_KEY)
    .values(remembered=bindparam("new_text"), message_number=bindparam("new_number"), spent=bindparam("new_spent"))
)
_GIVE_KEY_BACK: Final = delete(idempotency_keys).where(*_OF_KEY)
_FORGET_KEYS: Final = delete(idempotency_keys).where(
    idempotency_keys.c.created_at < bindparam("of_moment"), idempotency_keys.c.remembered.is_not(None)
)


@cache
def _make_conversation(dialect: str) -> ReturningInsert[*tuple[Any, ...]]:
    """Says which session the user has today, if any; no row where the conversation is there already."""
    session = select(sessions.c.id).where(*_OF_SESSION).scalar_subquery()
    made = upserts.insert(conversations, dialect).values(session_id=session)
    return made.on_conflict_do_nothing(index_elements=conversations.primary_key).returning(conversations.c.session_id)


@cache
def _open_session(dialect: str) -> ReturningInsert[*tuple[Any, ...]]:
    """Makes the session of the day, or reopens it, and locks it either way."""
    opened = upserts.insert(sessions, dialect)
    return opened.on_conflict_do_update(
        index_elements=sessions.primary_key,
        set_={"is_active": True, "last_activity": opened.excluded.last_activity},
    ).returning(sessions.c.id, sessions.c.total_cost, sessions.c.reserved)


@cache
def _take_key(dialect: str) -> ReturningInsert[*tuple[Any, ...]]:
    """Takes a key that nobody has; no row where somebody has it."""
    taken = upserts.insert(idempotency_keys, dialect)
    return taken.on_conflict_do_nothing(index_elements=idempotency_keys.primary_key).returning(
        idempotency_keys.c.response_id
    )


@cache
def _add_to_day(dialect: str) -> upserts.Insert:
    """Adds an exchange to what was used with its model on its day."""
    added = upserts.insert(daily_usage, dialect)
    return added.on_conflict_do_update(
        index_elements=daily_usage.primary_key,
        set_={column.name: column + added.excluded[column.name] for column in daily_usage.c if not column.primary_key},
    )


@cache
def _write_entry(dialect: str) -> upserts.Insert:
    """Adds an entry, or completes the pending one."""
    written = upserts.insert(ledger, dialect)
    return written.on_conflict_do_update(
        index_elements=ledger.primary_key,
        set_={column.name: written.excluded[column.name] for column in ledger.c if not column.primary_key},
    )


class SqlLedger:
    """A `Ledger` in SQL tables; what a call reads it locks first, so that it acts on what no one else can move."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._reader = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._dialect = engine.dialect.name

    async def reserve(self, reservation: Reservation) -> Hold:
        with translated(STORAGE_ERRORS):
            async with self._engine.begin() as connection:
                if (idempotency := reservation.idempotency) is not None:
                    await self._take_key(connection, reservation, idempotency)
                return await self._reserve(connection, reservation)

    async def _take_key(self, connection: AsyncConnection, asked: Reservation, idempotency: Idempotency) -> None:
        """Make this the one exchange with its key, or find out what became of the first."""
        key = {"tenant_id": asked.tenant_id, "scope": idempotency.scope, "key": idempotency.key}
        taking = key | {
            "fingerprint": idempotency.fingerprint,
            "response_id": asked.response_id,
            "created_at": asked.at,
        }
        if (await connection.execute(_take_key(self._dialect), taking)).one_or_none() is not None:
            return
        first = (await connection.execute(_KEY, _of_key(key))).one()
        if first.fingerprint != idempotency.fingerprint:
            raise IdempotencyMismatchError
        if first.response_id == asked.response_id:  # this very reservation, whose commit was cut off from us
            return
        if first.remembered is None:
            raise IdempotencyInProgressError
        raise AlreadySettledError(Replay(first.remembered.encode(), first.message_number, first.spent))

    async def _reserve(self, connection: AsyncConnection, asked: Reservation) -> Hold:
        day = day_of(asked.at)
        of_user = {"of_tenant": asked.tenant_id, "of_user": asked.user_id}
        of_conversation = of_user | {"of_conversation": asked.conversation_id}
        of_session = of_user | {"of_day": day}
        if asked.revision is None:
            made = await connection.execute(_make_conversation(self._dialect), _conversation_row(asked) | of_session)
            taken = made.one_or_none()
        else:
            turn = {"of_revision": asked.revision, "of_moment": asked.at}
            turn |= {"new_turn": asked.response_id, "new_lease": asked.lease_until}
            taken = (await connection.execute(_TAKE_CONVERSATION, of_conversation | turn)).one_or_none()
        if taken is None:
            return await self._reserved_before(connection, asked)

        opened = await connection.execute(_open_session(self._dialect), _session_row(asked))
        session = opened.one()
        amount = exact(grant(asked.demand, spent=session.total_cost, reserved=session.reserved, day=day))
        is_first_today = taken.session_id != session.id
        counted = is_first_today or asked.revision is None
        await connection.execute(_PROMISE, of_session | {"plus_amount": amount, "plus_conversations": int(counted)})
        if is_first_today:
            await connection.execute(_MOVE_CONVERSATION, of_conversation | {"new_session": session.id})
        hold = asked.granted(amount, session_id=session.id)
        await connection.execute(_ADD_HOLD, _hold_row(hold, asked))
        return hold

    async def _reserved_before(self, connection: AsyncConnection, asked: Reservation) -> Hold:
        """The hold that this very reservation got when its commit was cut off from us; else the refusal."""
        of_user = {"of_tenant": asked.tenant_id, "of_user": asked.user_id}
        found = await connection.execute(_TURN_OF_CONVERSATION, of_user | {"of_conversation": asked.conversation_id})
        conversation = found.one_or_none()
        if conversation is None:
            raise ConversationNotFoundError
        if conversation.turn_id != asked.response_id:
            raise ConversationBusyError
        return _hold((await connection.execute(_HOLD, of_user | {"of_response": asked.response_id})).one())

    async def pend(self, hold: Hold, *, provider_response_id: str | None, model: str) -> Hold:
        named = {"new_provider_response": provider_response_id}
        with translated(STORAGE_ERRORS):
            async with self._engine.begin() as connection:
                kept = (await connection.execute(_NAME_HOLD, _of_hold(hold) | named)).one_or_none()
                if kept is not None:
                    await connection.execute(_write_entry(self._dialect), _pending_row(kept, model))
        return replace(hold, provider_response_id=provider_response_id)

    async def renew(self, holds: Sequence[Hold], *, lease_until: datetime) -> None:
        lease = {"new_lease": lease_until}
        of_holds = [(hold.tenant_id, hold.user_id, hold.response_id) for hold in holds]
        of_turns = [(hold.tenant_id, hold.user_id, hold.conversation_id, hold.response_id) for hold in holds]
        with translated(STORAGE_ERRORS):
            async with self._engine.begin() as connection:
                await connection.execute(_RENEW_HOLDS, lease | {"of_exchanges": of_holds})
                await connection.execute(_RENEW_CONVERSATIONS, lease | {"of_exchanges": of_turns})

    async def settle(self, hold: Hold, settlement: Settlement) -> Settled | None:
        with translated(STORAGE_ERRORS):
            async with self._engine.begin() as connection:
                kept = (await connection.execute(_END_HOLD, _of_hold(hold))).one_or_none()
                return (
                    None
                    if kept is None
                    else await self._settle(
                        connection, kept, settlement, provider_response_id=hold.provider_response_id
                    )
                )

    async def _settle(
        self, connection: AsyncConnection, hold: Row[Any], end: Settlement, *, provider_response_id: str | None
    ) -> Settled:
        conversation = await connection.execute(
            _SETTLE_CONVERSATION,
            _of_exchange(hold)
            | {
                "plus_answered": int(end.answered),
                "plus_input": end.usage.input_tokens,
                "plus_output": end.usage.output_tokens,
                "plus_cost": end.cost,
                "plus_messages": len(end.messages),
                "new_moment": end.at,
                "new_transcript": end.transcript_id,
                "new_context": end.context_tokens,
            },
        )
        answered, last_message = conversation.one()
        session = await connection.execute(
            _SETTLE_SESSION,
            _of_session(hold)
            | {
                "minus_amount": hold.amount,
                "plus_cost": end.cost,
                "plus_tokens": end.usage.total_tokens,
                "new_moment": end.at,
            },
        )
        spent = session.scalar_one()
        if hold.idempotency_key is not None:
            remembered = {"new_text": end.remembered.decode(), "new_number": answered, "new_spent": spent}
            await connection.execute(_REMEMBER, _key_of(hold) | remembered)
        await connection.execute(_add_to_day(self._dialect), _usage_row(hold, end))
        entry = _settled_row(hold, end)
        entry["provider_response_id"] = hold.provider_response_id or provider_response_id  # also without a `pend`
        await connection.execute(_write_entry(self._dialect), entry)
        if end.messages:
            await connection.execute(_ADD_MESSAGES, _message_rows(hold, end, last=last_message))
        return Settled(message_number=answered, spent=spent)

    async def release(self, hold: Hold) -> None:
        with translated(STORAGE_ERRORS):
            async with self._engine.begin() as connection:
                kept = (await connection.execute(_END_HOLD, _of_hold(hold))).one_or_none()
                if kept is not None:
                    await self._release(connection, kept)

    async def _release(self, connection: AsyncConnection, hold: Row[Any]) -> None:
        # No other exchange has touched the conversation while this one is still the running one.
        free = _UNMAKE_CONVERSATION if hold.made_conversation else _FREE_CONVERSATION
        freed = await connection.execute(free, _of_exchange(hold))
        unmade = freed.rowcount if hold.made_conversation else 0
        await connection.execute(
            _TAKE_BACK, _of_session(hold) | {"minus_amount": hold.amount, "minus_conversations": unmade}
        )
        await connection.execute(_REMOVE_ENTRY, _of_hold(hold))
        if hold.idempotency_key is not None:
            await connection.execute(_GIVE_KEY_BACK, _key_of(hold))

    async def forget_repeats(self, *, before: datetime) -> None:
        with translated(STORAGE_ERRORS):
            async with self._engine.begin() as connection:
                await connection.execute(_FORGET_KEYS, {"of_moment": before})

    async def abandoned(self, *, at: datetime, lease_until: datetime, limit: int) -> Sequence[Hold]:
        lease = {"new_lease": lease_until}
        with translated(STORAGE_ERRORS):
            async with self._engine.begin() as connection:
                leased = await connection.execute(_LEASE_ABANDONED, lease | {"of_moment": at, "at_most": limit})
                found = [_hold(row) for row in leased]
                if found:
                    exchanges = [(of.tenant_id, of.user_id, of.conversation_id, of.response_id) for of in found]
                    await connection.execute(_RENEW_CONVERSATIONS, lease | {"of_exchanges": exchanges})
        return found

    async def entry(self, tenant_id: str, response_id: str) -> LedgerEntry | None:
        with translated(STORAGE_ERRORS):
            async with self._reader.connect() as connection:
                found = await connection.execute(_ENTRY, {"of_tenant": tenant_id, "of_response": response_id})
                row = found.one_or_none()
        return None if row is None else _entry(row)

    async def entries(self, tenant_id: str, user_id: str) -> Sequence[LedgerEntry]:
        with translated(STORAGE_ERRORS):
            async with self._reader.connect() as connection:
                found = await connection.execute(_ENTRIES, {"of_tenant": tenant_id, "of_user": user_id})
                return [_entry(row) for row in found]


def _of_hold(hold: Hold | Row[Any]) -> dict[str, object]:
    return {"of_tenant": hold.tenant_id, "of_user": hold.user_id, "of_response": hold.response_id}


def _of_exchange(hold: Hold | Row[Any]) -> dict[str, object]:
    return _of_hold(hold) | {"of_conversation": hold.conversation_id}


def _key_of(hold: Row[Any]) -> dict[str, object]:
    return _of_key({"tenant_id": hold.tenant_id, "scope": hold.idempotency_scope, "key": hold.idempotency_key})


def _of_key(key: Mapping[str, object]) -> dict[str, object]:
    return {"of_tenant": key["tenant_id"], "of_scope": key["scope"], "of_key": key["key"]}


def _of_session(hold: Row[Any]) -> dict[str, object]:
    return {"of_tenant": hold.tenant_id, "of_user": hold.user_id, "of_day": hold.day}


def _conversation_row(asked: Reservation) -> dict[str, object]:
    return {
        "tenant_id": asked.tenant_id,
        "user_id": asked.user_id,
        "id": asked.conversation_id,
        "created_at": asked.at,
        "updated_at": asked.at,
        "message_count": 0,
        "total_tokens_input": 0,
        "total_tokens_output": 0,
        "total_cost": ZERO,
        "title": asked.title,
        "tags": (),
        "metadata": {},
        "is_deleted": False,
        "context_tokens": 0,
        "keeps_messages": asked.keeps_messages,
        "revision": 0,
        "last_message": 0,
        "turn_id": asked.response_id,
        "turn_until": asked.lease_until,
    }


def _session_row(asked: Reservation) -> dict[str, object]:
    return {
        "tenant_id": asked.tenant_id,
        "user_id": asked.user_id,
        "day": day_of(asked.at),
        "id": new_id("sess"),
        "created_at": asked.at,
        "last_activity": asked.at,
        "total_tokens": 0,
        "total_cost": ZERO,
        "reserved": ZERO,
        "conversation_count": 0,
        "is_active": True,
    }


def _hold_row(hold: Hold, asked: Reservation) -> dict[str, object]:
    return {
        "tenant_id": hold.tenant_id,
        "user_id": hold.user_id,
        "response_id": hold.response_id,
        "conversation_id": hold.conversation_id,
        "session_id": hold.session_id,
        "day": day_of(hold.created_at),
        "kind": hold.kind,
        "model": hold.model,
        "price": hold.price,
        "input_estimate": hold.input_estimate,
        "amount": hold.amount,
        "made_conversation": asked.revision is None,
        "idempotency_scope": asked.idempotency.scope if asked.idempotency else None,
        "idempotency_key": asked.idempotency.key if asked.idempotency else None,
        "created_at": hold.created_at,
        "lease_until": asked.lease_until,
    }


def _pending_row(hold: Row[Any], model: str) -> dict[str, object]:
    return _entry_row(hold, Usage()) | {
        "model": model,
        "status": "pending",
        "estimated": False,
        "answered": False,
        "cost": ZERO,
        "price_source": "",
        "rates": None,
        "service_tier": None,
        "metadata": None,
        "settled_at": None,
        "time_to_first_token_ms": None,
    }


def _usage_row(hold: Row[Any], end: Settlement) -> dict[str, object]:
    return {
        "tenant_id": hold.tenant_id,
        "user_id": hold.user_id,
        "day": hold.day,
        "model": end.model,
        "messages": int(end.answered),
        "input_tokens": end.usage.input_tokens,
        "output_tokens": end.usage.output_tokens,
        "cost": end.cost,
    }


def _settled_row(hold: Row[Any], end: Settlement) -> dict[str, object]:
    return _entry_row(hold, end.usage) | {
        "model": end.model,
        "status": end.status,
        "estimated": end.estimated,
        "answered": end.answered,
        "cost": end.cost,
        "price_source": end.price_source,
        "rates": end.rates,
        "service_tier": end.service_tier,
        "metadata": end.metadata,
        "settled_at": end.at,
        "time_to_first_token_ms": end.time_to_first_token_ms,
    }


def _entry_row(hold: Row[Any], usage: Usage) -> dict[str, object]:
    return {
        "tenant_id": hold.tenant_id,
        "user_id": hold.user_id,
        "response_id": hold.response_id,
        "conversation_id": hold.conversation_id,
        "session_id": hold.session_id,
        "day": hold.day,
        "kind": hold.kind,
        "provider_response_id": hold.provider_response_id,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_tokens": usage.cached_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "held": hold.amount,
        "created_at": hold.created_at,
    }


def _message_rows(hold: Row[Any], end: Settlement, *, last: int) -> list[Mapping[str, object]]:
    return [
        {
            "tenant_id": hold.tenant_id,
            "user_id": hold.user_id,
            "conversation_id": hold.conversation_id,
            "number": number,
            "id": message.id,
            "response_id": hold.response_id,
            "role": message.role,
            "status": message.status,
            "content": message.content,
            "created_at": message.created_at,
        }
        for number, message in enumerate(end.messages, last - len(end.messages) + 1)
    ]


def _hold(row: Row[Any]) -> Hold:
    return Hold(
        tenant_id=row.tenant_id,
        user_id=row.user_id,
        conversation_id=row.conversation_id,
        session_id=row.session_id,
        response_id=row.response_id,
        kind=row.kind,
        model=row.model,
        price=row.price,
        input_estimate=row.input_estimate,
        amount=row.amount,
        created_at=row.created_at,
        provider_response_id=row.provider_response_id,
    )


def _entry(row: Row[Any]) -> LedgerEntry:
    return LedgerEntry(
        tenant_id=row.tenant_id,
        user_id=row.user_id,
        response_id=row.response_id,
        conversation_id=row.conversation_id,
        session_id=row.session_id,
        kind=row.kind,
        model=row.model,
        provider_response_id=row.provider_response_id,
        status=row.status,
        estimated=row.estimated,
        answered=row.answered,
        usage=Usage(
            input_tokens=row.input_tokens,
            output_tokens=row.output_tokens,
            cached_tokens=row.cached_tokens,
            cache_write_tokens=row.cache_write_tokens,
            reasoning_tokens=row.reasoning_tokens,
        ),
        cost=row.cost,
        price_source=row.price_source,
        service_tier=row.service_tier,
        created_at=row.created_at,
        settled_at=row.settled_at,
        time_to_first_token_ms=row.time_to_first_token_ms,
    )
