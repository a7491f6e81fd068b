"""What is out of the ordinary in PostgreSQL, step by step: rows are read and locked, the rules say what they become.

A step is a round trip; so what every turn asks goes another way (`postgres.ledger`).
"""

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

from msgspec.structs import asdict
from sqlalchemy import Row
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from textllm_adapters.sql import ledger_rows as rows
from textllm_adapters.sql import ledger_statements as statements
from textllm_adapters.sql.accounts import CONVERSATIONS, SESSIONS
from textllm_adapters.sql.errors import STORAGE_ERRORS
from textllm_adapters.sql.ledger import SqlLedger, replay_of
from textllm_adapters.sql.tables import idempotency_keys
from textllm_adapters.translation import translated
from textllm_core.ids import first_response_id
from textllm_core.records.accounts import ConversationAccount, SessionAccount
from textllm_core.records.journal import RefusedEnd
from textllm_core.records.ledger import AlreadySettledError, Hold, Reservation
from textllm_core.records.messages import Idempotency
from textllm_core.records.sessions import day_of
from textllm_core.records.stored_responses import ResponseFailure
from textllm_core.rules.books import opening, released

# Takes a key that nobody has; no row where somebody has it.
_TAKE_KEY: Final = (
    insert(idempotency_keys)
    .on_conflict_do_nothing(index_elements=idempotency_keys.primary_key)
    .returning(idempotency_keys.c.response_id)
)
_RETRIES: Final = 3  # one is enough, unless the other call has taken its row away again, and a third has made it


class LockingLedger(SqlLedger):
    """Reserves and releases whatever comes: with any repeat, in any state of a conversation and its session."""

    async def reserve(self, reservation: Reservation) -> Hold:
        with translated(STORAGE_ERRORS):
            for _ in range(_RETRIES):
                with suppress(IntegrityError):  # another call has made a row at the same time, which is there now
                    return await self._reserve_once(reservation)
            return await self._reserve_once(reservation)

    async def _reserve_once(self, reservation: Reservation) -> Hold:
        async with self._database.transaction(reservation.tenant_id) as connection:
            return await _reserve(connection, reservation)

    async def release(
        self,
        hold: Hold,
        *,
        transcripts: Sequence[str] = (),
        replies: Sequence[str] = (),
        unless_asked: bool = False,
        failure: ResponseFailure | None = None,
        end: RefusedEnd | None = None,
    ) -> bool:
        ended = statements.END_UNASKED if unless_asked else statements.END_HOLD
        with translated(STORAGE_ERRORS):
            async with self._database.transaction(hold.tenant_id) as connection:
                kept = (await connection.execute(ended, rows.of_hold(hold))).one_or_none()
                if kept is not None:
                    await _release(connection, hold, kept, end)
                    if failure is not None:
                        failed = rows.of_hold(hold) | {"new_failure": failure}
                        await connection.execute(statements.FAIL_RESPONSE, failed)
                    if transcripts or replies:
                        at = hold.created_at
                        erasures = rows.erasure_rows(hold.tenant_id, hold.user_id, transcripts, at=at, replies=replies)
                        await connection.execute(statements.ADD_ERASURES, erasures)
                return kept is not None


async def _reserve(connection: AsyncConnection, asked: Reservation) -> Hold:
    if asked.idempotency is not None:
        await _take_key(connection, asked, asked.idempotency)
    at = (asked.tenant_id, asked.user_id, asked.conversation_id)
    conversation = await CONVERSATIONS.locked(connection, *at)
    if conversation is not None and conversation.turn_id == asked.response_id:  # asked again: it got its hold before
        return rows.hold((await connection.execute(statements.HOLD, rows.of_hold(asked))).one())
    day = (asked.tenant_id, asked.payer, day_of(asked.at))
    session = await SESSIONS.locked(connection, *day)
    has_entry = await _has_entry(connection, asked, conversation, session)
    opened = opening(asked, conversation, session, has_entry=has_entry)
    if session is None:
        await SESSIONS.add(connection, rows.session_row(asked, opened.session))
    else:
        await SESSIONS.change(connection, *day, old=session, new=opened.session)
    if conversation is None:
        await CONVERSATIONS.add(connection, rows.conversation_row(asked, opened.conversation))
    else:
        await CONVERSATIONS.change(connection, *at, old=conversation, new=opened.conversation)
    hold = rows.hold_row(opened.hold, asked, opened.before, opened.last_activity)
    await connection.execute(statements.ADD_HOLD, hold)
    if (stored := asked.stored_response) is not None:
        await connection.execute(statements.ADD_RESPONSE, asdict(stored))
    return opened.hold


async def _take_key(connection: AsyncConnection, asked: Reservation, idempotency: Idempotency) -> None:
    """Make this the one exchange with its key, or find out what became of the first."""
    taken = {
        "tenant_id": asked.tenant_id,
        "scope": idempotency.scope,
        "key": idempotency.key,
        "fingerprint": idempotency.fingerprint,
        "response_id": asked.response_id,
        "created_at": asked.at,
    }
    if (await connection.execute(_TAKE_KEY, taken)).one_or_none() is not None:
        return
    key = rows.of_key(asked.tenant_id, idempotency.scope, idempotency.key)
    first = (await connection.execute(statements.KEY, key)).one()
    if first.response_id != asked.response_id:  # else this very reservation, whose commit was cut off from us
        raise AlreadySettledError(replay_of(first, idempotency))


async def _has_entry(
    connection: AsyncConnection,
    asked: Reservation,
    conversation: ConversationAccount | None,
    session: SessionAccount | None,
) -> bool:
    if conversation is None or session is None or conversation.session_id == session.id:
        return False  # nobody needs to know
    in_session = {"of_conversation": asked.conversation_id, "of_session": session.id}
    day = day_of(asked.at)
    of_day = {"of_first": first_response_id(day), "of_end": first_response_id(day + timedelta(days=1))}
    of_it = {"of_tenant": asked.tenant_id, "of_user": asked.user_id} | in_session | of_day
    return (await connection.execute(statements.HAS_ENTRY, of_it)).first() is not None


async def _has_hold(connection: AsyncConnection, released: Hold) -> bool:
    """Whether its session has another hold, whose exchange cannot end while the session is locked."""
    of_session = {"of_tenant": released.tenant_id, "of_session": released.session_id}
    return (await connection.execute(statements.HAS_HOLD, of_session)).first() is not None


async def _release(connection: AsyncConnection, hold: Hold, kept: Row[Any], end: RefusedEnd | None) -> None:
    at, day = (hold.tenant_id, hold.user_id, hold.conversation_id), (hold.tenant_id, hold.payer, hold.day)
    conversation = await CONVERSATIONS.locked(connection, *at)
    session = await SESSIONS.locked(connection, *day)
    assert conversation is not None  # nobody erases one in which a turn is running
    assert session is not None
    undone, freed = released(
        conversation,
        session,
        hold,
        made_conversation=kept.made_conversation,
        before=kept.before,
        last_activity=kept.session_last_activity,
        has_others=session.is_reopened and await _has_hold(connection, hold),
    )
    if undone is None:
        await CONVERSATIONS.remove(connection, *at)
    else:
        await CONVERSATIONS.change(connection, *at, old=conversation, new=undone)
    if freed is None:
        await SESSIONS.remove(connection, *day)
    else:
        await SESSIONS.change(connection, *day, old=session, new=freed)
    await connection.execute(statements.REMOVE_ENTRY, rows.of_hold(hold))
    if kept.is_resumable:
        told = await connection.execute(statements.REMOVE_EVENTS, rows.of_hold(hold))
        if told.rowcount > 0 and end is not None:
            await connection.execute(statements.ADD_END, rows.refused_end_row(hold, end))
    await connection.execute(statements.FORGET_RESPONSE, rows.of_hold(hold))
    if kept.idempotency_key is not None:
        key = rows.of_key(hold.tenant_id, kept.idempotency_scope, kept.idempotency_key)
        await connection.execute(statements.GIVE_KEY_BACK, key)
