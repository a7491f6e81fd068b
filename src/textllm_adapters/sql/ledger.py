"""What is the same in the books of both databases: what is rare, and PostgreSQL's general way to reserve and release.

A call takes as few statements as it can: each is a round trip.

Locks are always taken in this order: hold, conversation, session, daily usage, ledger entry. So no two calls wait for
each other.
"""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from textllm_adapters.sql import ledger_rows as rows
from textllm_adapters.sql import ledger_statements as statements
from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sql.errors import STORAGE_ERRORS
from textllm_adapters.translation import translated
from textllm_core.errors import ConversationBusyError, ConversationNotFoundError
from textllm_core.money import exact
from textllm_core.records.ledger import AlreadySettledError, Hold, Replay, Reservation, Settled, Settlement
from textllm_core.records.messages import Idempotency
from textllm_core.records.sessions import day_of
from textllm_core.rules.bookkeeping import SessionBefore, booked, change, corrected, settled
from textllm_core.rules.books import replayed
from textllm_core.rules.budgets import grant
from textllm_core.usage import LedgerEntry


class _AlreadyExactError(Exception):
    """Another call has corrected the entry first; what this one has written is taken back."""


class SqlLedger:
    """A `Ledger` in SQL tables, but for what every turn asks: that is a database's own way.

    What a call reads it locks first, so that it acts on what no one else can move.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._database = Database(engine)

    async def replay(self, tenant_id: str, idempotency: Idempotency) -> Replay | None:
        with translated(STORAGE_ERRORS):
            async with self._database.single(tenant_id) as connection:
                found = await connection.execute(statements.KEY, rows.of_key(_key(tenant_id, idempotency)))
                first = found.one_or_none()
        return None if first is None else _replay(first, idempotency)

    async def reserve(self, reservation: Reservation) -> Hold:
        with translated(STORAGE_ERRORS):
            async with self._database.transaction(reservation.tenant_id) as connection:
                if (idempotency := reservation.idempotency) is not None:
                    await self._take_key(connection, reservation, idempotency)
                return await self._reserve(connection, reservation)

    async def _take_key(self, connection: AsyncConnection, asked: Reservation, idempotency: Idempotency) -> None:
        """Make this the one exchange with its key, or find out what became of the first."""
        key = _key(asked.tenant_id, idempotency)
        taking = key | {
            "fingerprint": idempotency.fingerprint,
            "response_id": asked.response_id,
            "created_at": asked.at,
        }
        if (await connection.execute(statements.take_key(self._database.dialect), taking)).one_or_none() is not None:
            return
        first = (await connection.execute(statements.KEY, rows.of_key(key))).one()
        if first.response_id != asked.response_id:  # else this very reservation, whose commit was cut off from us
            raise AlreadySettledError(_replay(first, idempotency))

    async def _reserve(self, connection: AsyncConnection, asked: Reservation) -> Hold:
        day = day_of(asked.at)
        of_user = {"of_tenant": asked.tenant_id, "of_user": asked.user_id}
        of_conversation = of_user | {"of_conversation": asked.conversation_id}
        of_session = {"of_tenant": asked.tenant_id, "of_payer": rows.payer_of(asked), "of_day": day}
        if asked.revision is None:
            made = await connection.execute(
                statements.make_conversation(self._database.dialect), rows.conversation_row(asked) | of_session
            )
            taken, known = made.one_or_none(), None
        else:
            known = (await connection.execute(statements.BEFORE, of_conversation)).one_or_none()
            turn: dict[str, object] = {"of_revision": asked.revision}
            turn |= {"new_turn": asked.response_id, "new_lease": asked.lease_until, "new_title": asked.title}
            taken = (await connection.execute(statements.TAKE_CONVERSATION, of_conversation | turn)).one_or_none()
        if taken is None:
            return await self._reserved_before(connection, asked)

        new_session = rows.session_row(asked)
        session = (await connection.execute(statements.open_session(self._database.dialect), new_session)).one()
        amount = exact(grant(asked.demand, spent=session.total_cost, reserved=session.reserved, day=day))
        is_moved, before = taken.session_id != session.id, None
        if known is not None:
            in_session = of_conversation | {"of_session": session.id}
            before = change(
                session_id=known.session_id,
                title=known.title,
                message_count=known.message_count,
                asked_title=asked.title,
                new_session_id=session.id,
                has_entry=is_moved and (await connection.execute(statements.HAS_ENTRY, in_session)).first() is not None,
            )
        is_counted = asked.revision is None or (before is not None and before.was_counted)
        promised = {"plus_amount": amount, "plus_conversations": int(is_counted), "new_moment": asked.at}
        await connection.execute(statements.PROMISE, of_session | promised)
        if is_moved:
            await connection.execute(statements.MOVE_CONVERSATION, of_conversation | {"new_session": session.id})
        hold = asked.granted(amount, session_id=session.id)
        is_made = session.id == new_session["id"]
        session_before = None if is_made else SessionBefore(session.is_active, session.last_activity)
        await connection.execute(statements.ADD_HOLD, rows.hold_row(hold, asked, before, session_before))
        return hold

    async def _reserved_before(self, connection: AsyncConnection, asked: Reservation) -> Hold:
        """The hold that this very reservation got when its commit was cut off from us; else the refusal."""
        of_user = {"of_tenant": asked.tenant_id, "of_user": asked.user_id}
        found = await connection.execute(
            statements.TURN_OF_CONVERSATION, of_user | {"of_conversation": asked.conversation_id}
        )
        conversation = found.one_or_none()
        if conversation is None:
            raise ConversationNotFoundError
        if conversation.turn_id != asked.response_id:
            raise ConversationBusyError
        return rows.hold(
            (await connection.execute(statements.HOLD, of_user | {"of_response": asked.response_id})).one()
        )

    async def correct(self, hold: Hold, settlement: Settlement) -> Settled | None:
        with translated(STORAGE_ERRORS), suppress(_AlreadyExactError):
            async with self._database.transaction(hold.tenant_id) as connection:
                entry = {"of_tenant": hold.tenant_id, "of_response": hold.response_id}
                row = (await connection.execute(statements.ENTRY, entry)).one_or_none()
                found = None if row is None else rows.entry(row)
                end = None if found is None else corrected(found, settlement)
                if found is not None and end is not None:
                    return await self._correct(connection, hold, found, end)
        return None

    async def _correct(self, connection: AsyncConnection, hold: Hold, entry: LedgerEntry, end: Settlement) -> Settled:
        of_it, old, new = rows.of_exchange(hold), booked(entry), settled(end)
        conversation = await connection.execute(
            statements.CORRECT_CONVERSATION, of_it | rows.moved_conversation(new - old) | {"new_summary": end.summary}
        )
        session = await connection.execute(
            statements.CORRECT_SESSION, rows.of_session(hold) | rows.moved_session(new - old)
        )
        for model, moves in ((entry.model, -old), (end.model, new)):
            await connection.execute(statements.add_to_day(self._database.dialect), rows.usage_row(hold, model, moves))
        written = await connection.execute(statements.CORRECT_ENTRY, of_it | rows.corrected_entry(end))
        if written.one_or_none() is None:
            raise _AlreadyExactError
        reply = of_it | {"new_estimated": end.estimated}
        if end.messages:
            last = end.messages[-1]
            told = {"new_content": last.content, "new_status": last.status, "new_reason": last.finish_reason}
            await connection.execute(statements.CORRECT_REPLY, reply | told)
        else:
            await connection.execute(statements.REPLY_IS_EXACT, reply)
        answered = conversation.scalar_one_or_none()
        if end.remembered and answered is not None:
            ending = {"new_text": end.remembered.decode(), "new_number": end.end_number}
            await connection.execute(statements.REMEMBER_OTHERWISE, of_it | ending)
            await connection.execute(statements.END_OTHERWISE, of_it | ending)
        await connection.execute(statements.CLOSE_ESTIMATE, of_it)
        return Settled(message_number=answered or 0, spent=session.scalar_one())

    async def estimated(self, *, at: datetime, next_at: datetime, limit: int) -> Sequence[Hold]:
        due = {"of_moment": at, "new_moment": next_at, "at_most": limit}
        with translated(STORAGE_ERRORS):
            async with self._database.transaction(EVERYONE) as connection:
                await connection.execute(statements.CLOSE_OLD_ESTIMATES, {"of_moment": at})
                return list((await connection.execute(statements.PUT_OFF_ESTIMATES, due)).scalars())

    async def release(self, hold: Hold, *, transcripts: Sequence[str] = (), unless_asked: bool = False) -> None:
        end = statements.END_UNASKED if unless_asked else statements.END_HOLD
        with translated(STORAGE_ERRORS):
            async with self._database.transaction(hold.tenant_id) as connection:
                kept = (await connection.execute(end, rows.of_hold(hold))).one_or_none()
                if kept is not None:
                    await self._release(connection, kept)
                    if transcripts:
                        at = hold.created_at
                        erasures = rows.erasure_rows(hold.tenant_id, hold.user_id, transcripts, at=at)
                        await connection.execute(statements.ADD_ERASURES, erasures)

    async def _release(self, connection: AsyncConnection, hold: Row[Any]) -> None:
        # No other exchange has touched the conversation while this one is still the running one.
        before, of_it, is_counted = hold.before, rows.of_exchange(hold), hold.made_conversation
        if hold.made_conversation:
            await connection.execute(statements.UNMAKE_CONVERSATION, of_it)
        elif before is None:
            await connection.execute(statements.FREE_CONVERSATION, of_it)
        else:
            is_counted = before.was_counted
            put_back = {"new_session": before.session_id, "given_title": before.given_title}
            await connection.execute(statements.PUT_BACK_CONVERSATION, of_it | put_back)
        of_session = rows.of_session(hold)
        taken_back = of_session | {"minus_amount": hold.amount, "minus_conversations": int(is_counted)}
        if hold.session_last_activity is None:
            await connection.execute(statements.TAKE_BACK, taken_back)
        else:
            was = {"was_active": hold.session_was_active, "old_moment": hold.session_last_activity}
            await connection.execute(statements.PUT_BACK_SESSION, taken_back | was | {"of_moment": hold.created_at})
        await connection.execute(statements.REMOVE_UNUSED_SESSION, of_session)
        await connection.execute(statements.REMOVE_ENTRY, rows.of_hold(hold))
        if hold.is_resumable:
            await connection.execute(statements.REMOVE_EVENTS, rows.of_hold(hold))
        if hold.idempotency_key is not None:
            await connection.execute(statements.GIVE_KEY_BACK, rows.key_of(hold))

    async def forget_repeats(self, *, before: datetime) -> None:
        with translated(STORAGE_ERRORS):
            async with self._database.transaction(EVERYONE) as connection:
                await connection.execute(statements.FORGET_KEYS, {"of_moment": before})

    async def abandoned(self, *, at: datetime, lease_until: datetime, limit: int) -> Sequence[Hold]:
        lease = {"new_lease": lease_until}
        with translated(STORAGE_ERRORS):
            async with self._database.transaction(EVERYONE) as connection:
                leased = await connection.execute(
                    statements.LEASE_ABANDONED, lease | {"of_moment": at, "at_most": limit}
                )
                found = [rows.hold(row) for row in leased]
                if found:
                    exchanges = [(of.tenant_id, of.user_id, of.conversation_id, of.response_id) for of in found]
                    await connection.execute(statements.RENEW_CONVERSATIONS, lease | {"of_exchanges": exchanges})
        return found

    async def entry(self, tenant_id: str, response_id: str) -> LedgerEntry | None:
        with translated(STORAGE_ERRORS):
            async with self._database.single(tenant_id) as connection:
                found = await connection.execute(statements.ENTRY, {"of_tenant": tenant_id, "of_response": response_id})
                row = found.one_or_none()
        return None if row is None else rows.entry(row)

    async def entries(self, tenant_id: str, user_id: str) -> Sequence[LedgerEntry]:
        with translated(STORAGE_ERRORS):
            async with self._database.single(tenant_id) as connection:
                found = await connection.execute(statements.ENTRIES, {"of_tenant": tenant_id, "of_user": user_id})
                return [rows.entry(row) for row in found]


def _key(tenant_id: str, idempotency: Idempotency) -> dict[str, str]:
    return {"tenant_id": tenant_id, "scope": idempotency.scope, "key": idempotency.key}


def _replay(first: Row[Any], idempotency: Idempotency) -> Replay:
    settled = None
    if first.remembered is not None:
        settled = Replay(first.remembered.encode(), first.message_number, first.spent)
    return replayed(first.fingerprint, settled, idempotency)
