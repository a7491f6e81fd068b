"""The books in PostgreSQL: what every turn does takes one statement, which is one round trip and one transaction.

What is out of the ordinary (no room for all that a turn may cost, the first turn of a day in a conversation, a repeat)
changes nothing here, and goes the general way.
"""

from collections.abc import Sequence
from datetime import datetime

from msgspec.structs import replace
from sqlalchemy.exc import IntegrityError

from textllm_adapters.postgres import ledger_statements as statements
from textllm_adapters.sql import ledger_rows as rows
from textllm_adapters.sql.database import shared_tenant
from textllm_adapters.sql.errors import STORAGE_ERRORS
from textllm_adapters.sql.ledger import SqlLedger
from textllm_adapters.sql.tables import (
    conversations,
    daily_usage,
    erasures,
    estimates,
    holds,
    ledger,
    messages,
    reply_ends,
    sessions,
)
from textllm_adapters.translation import translated
from textllm_core.money import exact
from textllm_core.records.ledger import Hold, Reservation, Settled, Settlement
from textllm_core.records.sessions import day_of
from textllm_core.rules.bookkeeping import settled


class PostgresLedger(SqlLedger):
    """A `Ledger` in PostgreSQL."""

    async def reserve(self, reservation: Reservation) -> Hold:
        wanted = reservation.demand
        if reservation.idempotency is None and wanted.most <= wanted.limit:
            hold = await self._reserve_at_once(reservation)
            if hold is not None:
                return hold
        return await super().reserve(reservation)

    async def _reserve_at_once(self, asked: Reservation) -> Hold | None:
        """The hold for all that the turn may cost; None where that cannot be had so simply."""
        amount = exact(asked.demand.most)
        hold = asked.granted(amount, session_id="")
        parameters = {
            "of_tenant": asked.tenant_id,
            "of_user": asked.user_id,
            "of_payer": rows.payer_of(asked),
            "of_day": day_of(asked.at),
            "plus_amount": amount,
            "at_most": asked.demand.limit,
            "new_moment": asked.at,
            **statements.parameters(holds, rows.hold_row(hold, asked)),
        }
        if asked.revision is None:
            statement = statements.OPEN
            parameters |= statements.parameters(conversations, rows.conversation_row(asked))
            parameters |= statements.parameters(
                sessions, rows.session_row(asked) | {"reserved": amount, "conversation_count": 1}
            )
        else:
            statement = statements.TAKE
            parameters |= {
                "of_conversation": asked.conversation_id,
                "of_revision": asked.revision,
                "new_turn": asked.response_id,
                "new_lease": asked.lease_until,
                "new_title": asked.title,
            }
        with translated(STORAGE_ERRORS):
            async with self._database.single(asked.tenant_id) as connection:
                try:
                    session_id = (await connection.execute(statement, parameters)).scalar_one_or_none()
                except IntegrityError:  # a link came back empty, and so nothing of it happened
                    return None
        return None if session_id is None else replace(hold, session_id=session_id)

    async def pend(self, hold: Hold, *, provider_response_id: str | None, model: str) -> Hold:
        named = replace(hold, provider_response_id=provider_response_id, reported_model=model)
        parameters = {"new_provider_response": provider_response_id, "new_reported": model, **rows.of_hold(hold)}
        with translated(STORAGE_ERRORS):
            async with self._database.single(hold.tenant_id) as connection:
                await connection.execute(
                    statements.PEND, parameters | statements.parameters(ledger, rows.pending_row(named, model))
                )
        return named

    async def renew(self, holds: Sequence[Hold], *, lease_until: datetime) -> None:
        of_tenant = shared_tenant(hold.tenant_id for hold in holds)
        named = statements.lists(
            statements.NAMED, [{of.name: getattr(hold, of.name) for of in statements.NAMED} for hold in holds]
        )
        with translated(STORAGE_ERRORS):
            async with self._database.single(of_tenant) as connection:
                await connection.execute(statements.RENEW, named | {"new_lease": lease_until})

    async def settle(self, hold: Hold, settlement: Settlement) -> Settled | None:
        end = settlement
        dropped = rows.erasure_rows(hold.tenant_id, hold.user_id, end.transcripts, at=end.at)
        parameters = {
            **rows.of_exchange(hold),
            **rows.of_session(hold),
            **rows.settled_conversation(end),
            **rows.settled_session(hold, end),
            **statements.parameters(daily_usage, rows.usage_row(hold, end.model, settled(end))),
            **statements.parameters(estimates, rows.estimate_row(hold, end)),
            "is_open": end.open_until is not None,
            **statements.parameters(ledger, rows.settled_row(hold, end)),
            **statements.parameters(reply_ends, rows.end_row(hold, end)),
            **statements.lists(messages.columns, rows.message_rows(hold, end, last=len(end.messages))),
            **statements.lists(erasures.columns, dropped),
        }
        with translated(STORAGE_ERRORS):
            async with self._database.single(hold.tenant_id) as connection:
                counters = (await connection.execute(statements.SETTLE, parameters)).one_or_none()
        return None if counters is None else Settled(message_number=counters[0], spent=counters[1])
