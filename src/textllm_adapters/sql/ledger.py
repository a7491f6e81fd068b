"""What is the same in the books of both databases: what is rare.

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
from textllm_adapters.sql.accounts import CONVERSATIONS, DAYS, SESSIONS
from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sql.errors import STORAGE_ERRORS
from textllm_adapters.sql.message_words import FORGET_OF_REPLY
from textllm_adapters.translation import translated
from textllm_core.records.journal import JournalEntry
from textllm_core.records.ledger import WRONG_CLOCK_FROM, Hold, Replay, Settled, Settlement
from textllm_core.records.messages import Idempotency, reply_message_id
from textllm_core.rules.bookkeeping import Moves, booked, corrected, of_money_alone, settled
from textllm_core.rules.books import added, corrected_accounts, corrected_entry, model_of_day, replayed
from textllm_core.usage import LedgerEntry


class _AlreadyExactError(Exception):
    """Another call has corrected the entry first; what this one has written is taken back."""


class SqlLedger:
    """A `Ledger` in SQL tables, but for what every turn asks: that is a database's own way."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._database = Database(engine)

    async def replay(self, tenant_id: str, idempotency: Idempotency) -> Replay | None:
        with translated(STORAGE_ERRORS):
            async with self._database.single(tenant_id) as connection:
                key = rows.of_key(tenant_id, idempotency.scope, idempotency.key)
                first = (await connection.execute(statements.KEY, key)).one_or_none()
        return None if first is None else replay_of(first, idempotency)

    async def correct(self, hold: Hold, settlement: Settlement, *, said: JournalEntry | None = None) -> Settled | None:
        with translated(STORAGE_ERRORS), suppress(_AlreadyExactError):
            async with self._database.transaction(hold.tenant_id) as connection:
                row = (await connection.execute(statements.ENTRY_OF_USER, rows.of_hold(hold))).one_or_none()
                found = None if row is None else rows.entry(row)
                end = None if found is None else corrected(found, settlement)
                if found is not None and end is not None:
                    return await self._correct(connection, hold, found, end, said)
        return None

    async def _correct(
        self, connection: AsyncConnection, hold: Hold, entry: LedgerEntry, end: Settlement, said: JournalEntry | None
    ) -> Settled | None:
        of_it = rows.of_exchange(hold)
        exchange, day = (hold.tenant_id, hold.user_id, hold.conversation_id), (hold.tenant_id, hold.payer, hold.day)
        conversation = await CONVERSATIONS.locked(connection, *exchange)
        session = await SESSIONS.locked(connection, *day)
        if session is None:  # it was too old to be kept, and the entry goes, too
            return None
        said_something = entry.answered and conversation is not None and conversation.last_message
        if said_something and not (await connection.execute(statements.HAS_REPLY, of_it)).scalar_one():
            end = of_money_alone(end)
        told, paid = corrected_accounts(conversation, session, entry, end)
        if conversation is not None and told is not None:
            await CONVERSATIONS.change(connection, *exchange, old=conversation, new=told)
        await SESSIONS.change(connection, *day, old=session, new=paid)
        for model, moves in ((entry.model, -booked(entry)), (end.model, settled(end))):
            await self._add_to_day(connection, hold, model_of_day(model), moves)
        exact_entry = rows.values_of_entry(corrected_entry(entry, end)) | {"rates": end.rates}
        written = await connection.execute(statements.CORRECT_ENTRY.values(exact_entry), of_it)
        if written.one_or_none() is None:
            raise _AlreadyExactError
        reply = of_it | {"new_estimated": end.estimated}
        if end.messages:
            last = end.messages[-1]
            changes = {"new_content": last.content, "new_status": last.status, "new_reason": last.finish_reason}
            await connection.execute(statements.CORRECT_REPLY, reply | changes)
            await connection.execute(FORGET_OF_REPLY, of_it)
        else:
            named = {"of_reply": reply_message_id(hold.response_id)}
            await connection.execute(statements.REPLY_IS_EXACT, reply | named)
        if end.remembered and told is not None:
            ending = {"new_text": end.remembered.decode(), "new_number": end.end_number}
            await connection.execute(statements.REMEMBER_OTHERWISE, of_it | ending)
            is_kept = (await connection.execute(statements.END_OTHERWISE, of_it | ending)).rowcount > 0
            if said is not None and is_kept:  # else nobody would forget them
                await connection.execute(statements.say(self._database.dialect), rows.said_row(said))
        await connection.execute(statements.CLOSE_ESTIMATE, of_it)
        return Settled(message_number=told.message_count if told else 0, spent=paid.total_cost)

    async def _add_to_day(self, connection: AsyncConnection, hold: Hold, model: str, moves: Moves) -> None:
        """Whoever does this has locked the session of the day."""
        key = (hold.tenant_id, hold.payer, hold.day, model)
        used = await DAYS.locked(connection, *key)
        sum_ = added(used, hold.day, model, moves)
        if used is None:
            await DAYS.add(connection, rows.usage_row(hold, sum_))
        else:
            await DAYS.change(connection, *key, old=used, new=sum_)

    async def estimated(self, *, at: datetime, next_at: datetime, limit: int) -> Sequence[Hold]:
        due = {"of_moment": at, "of_latest": at + WRONG_CLOCK_FROM, "new_moment": next_at, "at_most": limit}
        with translated(STORAGE_ERRORS):
            async with self._database.transaction(EVERYONE) as connection:
                await connection.execute(statements.CLOSE_OLD_ESTIMATES, {"of_moment": at})
                return list((await connection.execute(statements.PUT_OFF_ESTIMATES, due)).scalars())

    async def forget_repeats(self, *, before: datetime, limit: int) -> int:
        with translated(STORAGE_ERRORS):
            async with self._database.transaction(EVERYONE) as connection:
                old = {"of_moment": before, "at_most": limit}
                return (await connection.execute(statements.FORGET_KEYS, old)).rowcount

    async def abandoned(self, *, at: datetime, lease_until: datetime, limit: int) -> Sequence[Hold]:
        lease = {"new_lease": lease_until}
        dead = {"of_moment": at, "of_latest": at + WRONG_CLOCK_FROM, "at_most": limit}
        with translated(STORAGE_ERRORS):
            async with self._database.transaction(EVERYONE) as connection:
                leased = await connection.execute(statements.LEASE_ABANDONED, lease | dead)
                found = [rows.hold(row) for row in leased]
                if found:
                    exchanges = [(of.tenant_id, of.user_id, of.conversation_id, of.response_id) for of in found]
                    await connection.execute(statements.RENEW_CONVERSATIONS, lease | {"of_exchanges": exchanges})
        return found

    async def entry(self, tenant_id: str, response_id: str, *, user_id: str | None = None) -> LedgerEntry | None:
        it = {"of_tenant": tenant_id, "of_response": response_id}
        with translated(STORAGE_ERRORS):
            async with self._database.single(tenant_id) as connection:
                if user_id is None:
                    found = await connection.execute(statements.ENTRY, it)
                else:
                    found = await connection.execute(statements.ENTRY_OF_USER, it | {"of_user": user_id})
                row = found.one_or_none()
        return None if row is None else rows.entry(row)

    async def entries(self, tenant_id: str, user_id: str) -> Sequence[LedgerEntry]:
        with translated(STORAGE_ERRORS):
            async with self._database.single(tenant_id) as connection:
                found = await connection.execute(statements.ENTRIES, {"of_tenant": tenant_id, "of_user": user_id})
                return [rows.entry(row) for row in found]


def replay_of(first: Row[Any], idempotency: Idempotency) -> Replay:
    """What the exchange came to whose row of the key this is."""
    settled = None
    if first.remembered is not None:
        settled = Replay(first.remembered.encode(), first.message_number, first.spent)
    return replayed(first.fingerprint, settled, idempotency, response_id=first.response_id)
