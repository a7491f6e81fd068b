"""The books in SQLite: each call reads its rows, asks the rules, and writes what they say, as one call of the writer.

What is rare is done as in any SQL database.
"""

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Final

from msgspec import Struct
from msgspec.structs import asdict, replace

from textllm_adapters.sql import ledger_rows as rows
from textllm_adapters.sql import tables
from textllm_adapters.sql.errors import STORAGE_ERRORS
from textllm_adapters.sql.ledger import SqlLedger
from textllm_adapters.sql.response_table import responses
from textllm_adapters.sqlite.engine import SqliteEngine
from textllm_adapters.sqlite.rate_limiter import take
from textllm_adapters.sqlite.rows import Records, Rows
from textllm_adapters.translation import translated
from textllm_core.errors import Allowance, ServiceUnavailableError, TextLLMError
from textllm_core.records.accounts import ConversationAccount, SessionAccount
from textllm_core.records.journal import JournalEntry, RefusedEnd
from textllm_core.records.ledger import GIVEN_UP, AlreadySettledError, Hold, Replay, Reservation, Settled, Settlement
from textllm_core.records.messages import Idempotency
from textllm_core.records.sessions import day_of
from textllm_core.records.stored_responses import AskedResponse, ResponseFailure
from textllm_core.records.usage_reports import DailyUsage
from textllm_core.rules.bookkeeping import Before, settled
from textllm_core.rules.books import (
    added,
    closing,
    model_of_day,
    opening,
    pending_entry,
    released,
    replayed,
    settled_entry,
)
from textllm_core.rules.buckets import allowance, refusal


class _Kept(Struct, frozen=True):
    """What the row of a hold knows that the hold itself may not."""

    is_asked: bool
    provider_response_id: str | None
    made_conversation: bool
    before: Before | None
    session_last_activity: datetime | None
    session_was_active: bool
    is_resumable: bool
    idempotency_scope: str | None
    idempotency_key: str | None


class _Turn(Struct, frozen=True):
    turn_id: str | None


class _Key(Struct, frozen=True):
    fingerprint: str
    response_id: str
    remembered: str | None
    message_number: int
    spent: Decimal


_CONVERSATIONS: Final = Records(tables.conversations, ConversationAccount)
_TURNS: Final = Records(tables.conversations, _Turn)
_SESSIONS: Final = Records(tables.sessions, SessionAccount)
_HOLDS: Final = Records(tables.holds, Hold)
_KEPT: Final = Records(tables.holds, _Kept)
_KEYS: Final = Records(tables.idempotency_keys, _Key)
_DAYS: Final = Records(tables.daily_usage, DailyUsage)
_RESPONSES: Final = Records(responses, AskedResponse)
_ENTRIES: Final = Rows(tables.ledger)
_MESSAGES: Final = Rows(tables.messages)
_ERASURES: Final = Rows(tables.erasures)
_ESTIMATES: Final = Rows(tables.estimates)
_EVENTS: Final = Rows(tables.reply_events)
_ENDS: Final = Rows(tables.reply_ends)
_ENTRY_IN_SESSION: Final = (
    "SELECT 1 FROM ledger WHERE tenant_id = ? AND user_id = ? AND conversation_id = ? AND session_id = ? LIMIT 1"
)

_HOLD_IN_SESSION: Final = "SELECT 1 FROM holds WHERE tenant_id = ? AND session_id = ? AND session_was_active LIMIT 1"


class SqliteLedger(SqlLedger):
    """A `Ledger` in a SQLite file, and the `Turnstile` over it."""

    def __init__(self, engine: SqliteEngine) -> None:
        super().__init__(engine)
        self._writer = engine.writer

    async def admit(self, reservation: Reservation, *, per_minute: int) -> tuple[Allowance, Hold | None]:
        def admit(connection: sqlite3.Connection) -> tuple[int, bool, Hold | None]:
            level, admitted = take(connection, reservation.tenant_id, reservation.payer, per_minute=per_minute)
            return level, admitted, _reserve_if_so(connection, reservation) if admitted else None

        with translated(STORAGE_ERRORS):
            level, admitted, hold = await self._writer.run(admit)
        if not admitted:
            raise refusal(level, per_minute=per_minute)
        return allowance(level, per_minute=per_minute), hold

    async def reserve(self, reservation: Reservation) -> Hold:
        with translated(STORAGE_ERRORS):
            return await self._writer.run(partial(_reserve, asked=reservation))

    async def ask(self, hold: Hold, *, transcript_id: str | None) -> Hold:
        what = {"is_asked": True, "transcript_id": transcript_id, "model": hold.model, "price": hold.price}
        with translated(STORAGE_ERRORS):
            is_held = await self._writer.run(lambda connection: _HOLDS.set(connection, *_hold(hold), **what))
        if not is_held:
            raise ServiceUnavailableError(GIVEN_UP)
        return replace(hold, is_asked=True, transcript_id=transcript_id)

    async def pend(
        self, hold: Hold, *, provider_response_id: str | None, model: str, said: JournalEntry | None = None
    ) -> Hold:
        named = replace(hold, provider_response_id=provider_response_id, reported_model=model)
        with translated(STORAGE_ERRORS):
            await self._writer.run(partial(_pend, hold=named, model=model, said=said))
        return named

    async def renew(self, holds: Sequence[Hold], *, lease_until: datetime) -> None:
        with translated(STORAGE_ERRORS):
            await self._writer.run(partial(_renew, holds=holds, lease_until=lease_until))

    async def settle(self, hold: Hold, settlement: Settlement, *, said: JournalEntry | None = None) -> Settled | None:
        with translated(STORAGE_ERRORS):
            return await self._writer.run(partial(_settle, given=hold, end=settlement, said=said))

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
        with translated(STORAGE_ERRORS):
            return await self._writer.run(
                partial(
                    _release,
                    hold=hold,
                    transcripts=transcripts,
                    replies=replies,
                    unless_asked=unless_asked,
                    failure=failure,
                    end=end,
                )
            )


def _reserve_if_so(connection: sqlite3.Connection, asked: Reservation) -> Hold | None:
    """Reserve; None where that is refused, and nothing of it is left."""
    connection.execute("SAVEPOINT reserving")
    try:
        return _reserve(connection, asked)
    except (TextLLMError, AlreadySettledError):
        connection.execute("ROLLBACK TO reserving")
        return None
    finally:
        connection.execute("RELEASE reserving")


def _reserve(connection: sqlite3.Connection, asked: Reservation) -> Hold:
    at = (asked.tenant_id, asked.user_id, asked.conversation_id)
    conversation = _CONVERSATIONS.get(connection, *at)
    if conversation is not None and conversation.turn_id == asked.response_id:
        hold = _HOLDS.get(connection, asked.tenant_id, asked.user_id, asked.response_id)
        if hold is not None:  # asked again: it got its hold the first time
            return hold
    if asked.idempotency is not None:
        _take_key(connection, asked, asked.idempotency)
    day = (asked.tenant_id, asked.payer, day_of(asked.at))
    session = _SESSIONS.get(connection, *day)
    has_entry = (
        conversation is not None
        and session is not None
        and conversation.session_id != session.id  # else nobody needs to know
        and connection.execute(_ENTRY_IN_SESSION, (*at, session.id)).fetchone() is not None
    )
    opened = opening(asked, conversation, session, has_entry=has_entry)
    if session is None:
        _SESSIONS.add(connection, rows.session_row(asked, opened.session))
    else:
        _SESSIONS.change(connection, *day, old=session, new=opened.session)
    if conversation is None:
        _CONVERSATIONS.add(connection, rows.conversation_row(asked, opened.conversation))
    else:
        _CONVERSATIONS.change(connection, *at, old=conversation, new=opened.conversation)
    _HOLDS.add(connection, rows.hold_row(opened.hold, asked, opened.before, opened.last_activity))
    if (stored := asked.stored_response) is not None:
        _RESPONSES.add(connection, asdict(stored))
    return opened.hold


def _take_key(connection: sqlite3.Connection, asked: Reservation, idempotency: Idempotency) -> None:
    """Make this the one exchange with its key, or find out what became of the first."""
    key = (asked.tenant_id, idempotency.scope, idempotency.key)
    first = _KEYS.get(connection, *key)
    if first is None:
        taken = {"fingerprint": idempotency.fingerprint, "response_id": asked.response_id, "created_at": asked.at}
        names = {"tenant_id": asked.tenant_id, "scope": idempotency.scope, "key": idempotency.key}
        _KEYS.add(connection, names | taken)
        return
    came_to = None
    if first.remembered is not None:
        came_to = Replay(first.remembered.encode(), first.message_number, first.spent)
    raise AlreadySettledError(replayed(first.fingerprint, came_to, idempotency, response_id=first.response_id))


def _pend(connection: sqlite3.Connection, hold: Hold, model: str, said: JournalEntry | None) -> None:
    named = {"provider_response_id": hold.provider_response_id, "reported_model": model}
    if _HOLDS.set(connection, *_hold(hold), **named):
        _ENTRIES.put(
            connection,
            rows.entry_row(pending_entry(hold, model)) | {"held": hold.amount, "rates": None, "metadata": None},
        )
        if said is not None:
            _EVENTS.put(connection, rows.said_row(said))


def _renew(connection: sqlite3.Connection, holds: Sequence[Hold], lease_until: datetime) -> None:
    for hold in holds:
        _HOLDS.set(connection, *_hold(hold), lease_until=lease_until, thought=hold.thought, counted=hold.counted)
        turn = _TURNS.get(connection, *_conversation(hold))
        if turn is not None and turn.turn_id == hold.response_id:
            _TURNS.set(connection, *_conversation(hold), turn_until=lease_until)


def _settle(connection: sqlite3.Connection, given: Hold, end: Settlement, said: JournalEntry | None) -> Settled | None:
    kept = _KEPT.get(connection, *_hold(given))
    if kept is None:
        return None
    _HOLDS.remove(connection, *_hold(given))
    hold = replace(given, provider_response_id=kept.provider_response_id or given.provider_response_id)
    conversation = _CONVERSATIONS.get(connection, *_conversation(hold))
    session = _SESSIONS.get(connection, *_day(hold))
    assert conversation is not None  # nobody erases one in which a turn is running
    assert session is not None
    closed = closing(conversation, session, hold, end, was_ended=not kept.session_was_active)
    _CONVERSATIONS.change(connection, *_conversation(hold), old=conversation, new=closed.conversation)
    _SESSIONS.change(connection, *_day(hold), old=session, new=closed.session)
    _ERASURES.add(connection, *rows.erasure_rows(hold.tenant_id, hold.user_id, closed.dropped, at=end.at))
    model = model_of_day(end.model)
    used = added(_DAYS.get(connection, *_day(hold), model), hold.day, model, settled(end))
    _DAYS.put(connection, rows.usage_row(hold, used))
    of_end = {"held": hold.amount, "rates": end.rates, "metadata": end.metadata}
    _ENTRIES.put(connection, rows.entry_row(settled_entry(hold, end)) | of_end)
    _MESSAGES.add(connection, *rows.message_rows(hold, end, last=closed.conversation.last_message))
    if end.is_untold:
        _forget_response(connection, hold)
    if end.open_until is not None:
        _ESTIMATES.add(connection, rows.estimate_row(hold, end))
    came_to = {"message_number": closed.settled.message_number, "spent": closed.settled.spent}
    if kept.idempotency_key is not None:
        key = (hold.tenant_id, kept.idempotency_scope, kept.idempotency_key)
        _KEYS.set(connection, *key, remembered=end.remembered.decode(), **came_to)
    if kept.is_resumable:
        _ENDS.add(connection, rows.end_row(hold, end) | came_to)
        if said is not None:
            _EVENTS.put(connection, rows.said_row(said))
    return closed.settled


def _release(
    connection: sqlite3.Connection,
    hold: Hold,
    transcripts: Sequence[str],
    replies: Sequence[str],
    unless_asked: bool,
    failure: ResponseFailure | None,
    end: RefusedEnd | None,
) -> bool:
    kept = _KEPT.get(connection, *_hold(hold))
    if kept is None or (unless_asked and kept.is_asked):
        return False
    _HOLDS.remove(connection, *_hold(hold))
    conversation = _CONVERSATIONS.get(connection, *_conversation(hold))
    session = _SESSIONS.get(connection, *_day(hold))
    assert conversation is not None  # as in `_settle`
    assert session is not None
    undone, freed = released(
        conversation,
        session,
        hold,
        made_conversation=kept.made_conversation,
        before=kept.before,
        last_activity=kept.session_last_activity,
        has_others=session.is_reopened
        and connection.execute(_HOLD_IN_SESSION, (hold.tenant_id, hold.session_id)).fetchone() is not None,
    )
    if undone is None:
        _CONVERSATIONS.remove(connection, *_conversation(hold))
    else:
        _CONVERSATIONS.change(connection, *_conversation(hold), old=conversation, new=undone)
    if freed is None:
        _SESSIONS.remove(connection, *_day(hold))
    else:
        _SESSIONS.change(connection, *_day(hold), old=session, new=freed)
    _ENTRIES.remove(connection, *_hold(hold))
    if kept.is_resumable and _EVENTS.remove(connection, *_hold(hold)) and end is not None:
        _ENDS.add(connection, rows.refused_end_row(hold, end))
    _forget_response(connection, hold)
    if failure is not None:
        _RESPONSES.set(connection, *_hold(hold), failure=failure)
    if kept.idempotency_key is not None:
        _KEYS.remove(connection, hold.tenant_id, kept.idempotency_scope, kept.idempotency_key)
    at = hold.created_at
    _ERASURES.add(connection, *rows.erasure_rows(hold.tenant_id, hold.user_id, transcripts, at=at, replies=replies))
    return True


def _forget_response(connection: sqlite3.Connection, hold: Hold) -> None:
    """Nobody was told of it, unless that was done before it began."""
    kept = _RESPONSES.get(connection, *_hold(hold))
    if kept is not None and not kept.is_background:
        _RESPONSES.remove(connection, *_hold(hold))


def _hold(hold: Hold) -> tuple[str, str, str]:
    return hold.tenant_id, hold.user_id, hold.response_id


def _conversation(hold: Hold) -> tuple[str, str, str]:
    return hold.tenant_id, hold.user_id, hold.conversation_id


def _day(hold: Hold) -> tuple[object, ...]:
    return hold.tenant_id, hold.payer, hold.day
