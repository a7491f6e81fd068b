"""The books in PostgreSQL: what every turn does takes one statement, which is one round trip and one transaction.

What is out of the ordinary (no room for all that a turn may cost, the first turn of a day in a conversation, or one
that gives it its title, a repeat) changes nothing here, and goes step by step (`LockingLedger`).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec.structs import replace
from sqlalchemy.exc import IntegrityError

from textllm_adapters.postgres import statements
from textllm_adapters.postgres.engine import PostgresEngine
from textllm_adapters.postgres.locking_ledger import LockingLedger
from textllm_adapters.postgres.openings import OPENINGS, Opening
from textllm_adapters.postgres.rate_limiter import PostgresRateLimiter
from textllm_adapters.sql.database import shared_tenant
from textllm_adapters.sql.ledger_rows import bare
from textllm_adapters.sql.types import askable, storable
from textllm_core.errors import Allowance, ServiceUnavailableError
from textllm_core.ids import new_id
from textllm_core.money import exact
from textllm_core.records.journal import JournalEntry
from textllm_core.records.ledger import GIVEN_UP, Hold, Reservation, Settled, Settlement
from textllm_core.records.sessions import day_of
from textllm_core.records.stored_responses import AskedResponse
from textllm_core.rules.books import model_of_day
from textllm_core.rules.buckets import allowance, refusal

_RENEWED_AT_ONCE: Final = 500  # a statement holds the locks of all it renews


class PostgresLedger(LockingLedger):
    """A `Ledger` in PostgreSQL, and the `Turnstile` over it."""

    def __init__(self, engine: PostgresEngine) -> None:
        super().__init__(engine)
        self._lanes, self._rate_limiter = engine.lanes, PostgresRateLimiter(engine)

    async def admit(self, reservation: Reservation, *, per_minute: int) -> tuple[Allowance, Hold | None]:
        asked = reservation
        opened = await self._opened(asked, per_minute=per_minute)
        if opened is None:
            return await self._rate_limiter.take(asked.tenant_id, asked.payer, per_minute=per_minute), None
        admitted, level, session_id = opened
        if not admitted:
            raise refusal(level, per_minute=per_minute)
        return allowance(level, per_minute=per_minute), _granted(asked, session_id)

    async def reserve(self, reservation: Reservation) -> Hold:
        opened = await self._opened(reservation)
        hold = None if opened is None else _granted(reservation, opened[0])
        return hold or await super().reserve(reservation)

    async def _opened(self, asked: Reservation, *, per_minute: int | None = None) -> Any:
        """What the statement returns that opens the turn; None where nothing of it could happen.

        Args:
            per_minute: the rate limit in which it is counted as well; None: it was counted before.
        """
        if asked.demand.most > asked.demand.limit:
            return None
        how = Opening(per_minute is not None, asked.revision is None, asked.response is not None)
        parameters = _reserved(asked)
        parameters["per_minute"] = per_minute
        if asked.response is not None:
            parameters |= _kept(asked.response)
        try:
            return await self._lanes.ask(OPENINGS[how], asked.tenant_id, parameters)
        except IntegrityError:  # a link came back empty
            return None

    async def ask(self, hold: Hold, *, transcript_id: str | None) -> Hold:
        what = {"transcript": _text(transcript_id), "model": storable(hold.model), "price": _json(hold.price)}
        (asked,) = await self._lanes.ask(statements.ASK, hold.tenant_id, _of(hold) | what)
        if asked is None:
            raise ServiceUnavailableError(GIVEN_UP)
        return replace(hold, is_asked=True, transcript_id=transcript_id)

    async def pend(
        self, hold: Hold, *, provider_response_id: str | None, model: str, said: JournalEntry | None = None
    ) -> Hold:
        parameters = _of(hold) | {"provider_response": _text(provider_response_id), "model": storable(model)}
        statement = statements.PEND if said is None else statements.PEND_AND_SAY
        await self._lanes.ask(statement, hold.tenant_id, parameters | _said(said))
        return replace(hold, provider_response_id=provider_response_id, reported_model=model)

    async def renew(self, holds: Sequence[Hold], *, lease_until: datetime) -> None:
        of_tenant = shared_tenant(hold.tenant_id for hold in holds)
        for start in range(0, len(holds), _RENEWED_AT_ONCE):
            some = holds[start : start + _RENEWED_AT_ONCE]
            named = {
                "tenants": [askable(hold.tenant_id) for hold in some],
                "users": [askable(hold.user_id) for hold in some],
                "responses": [hold.response_id for hold in some],
                "thoughts": [hold.thought for hold in some],
                "counts": [None if hold.counted is None else _json(hold.counted) for hold in some],
            }
            await self._lanes.ask(statements.RENEW, of_tenant, named | {"lease_until": _moment(lease_until)})

    async def settle(self, hold: Hold, settlement: Settlement, *, said: JournalEntry | None = None) -> Settled | None:
        parameters = _of(hold) | _settled(hold, settlement) | _said(said)
        statement = statements.SETTLE if said is None else statements.SETTLE_AND_SAY
        if settlement.is_untold:  # so that nothing was said, either
            statement = statements.SETTLE_UNTOLD
        answered, spent = await self._lanes.ask(statement, hold.tenant_id, parameters)
        return None if answered is None else Settled(message_number=answered, spent=exact(spent))


def _of(of: Hold | Reservation) -> dict[str, object]:
    return {"tenant": askable(of.tenant_id), "user": askable(of.user_id), "response": of.response_id}


def _granted(asked: Reservation, session_id: str | None) -> Hold | None:
    """The hold for all that the turn may cost, in the session that an opening statement returned; None: in none."""
    return None if session_id is None else asked.granted(exact(asked.demand.most), session_id=session_id)


def _reserved(asked: Reservation) -> dict[str, object]:
    repeat = asked.idempotency
    return _of(asked) | {
        "scope": repeat and storable(repeat.scope),
        "key": repeat and storable(repeat.key),
        "fingerprint": repeat and storable(repeat.fingerprint),
        "charged": askable(asked.payer),
        "payer": asked.payer_id and askable(asked.payer_id),
        "day": day_of(asked.at),
        "session": new_id("sess"),
        "conversation": askable(asked.conversation_id),
        "revision": asked.revision,
        "title": _text(asked.title),
        "keeps_messages": asked.keeps_messages,
        "expires_at": asked.expires_at and _moment(asked.expires_at),
        "kind": asked.kind,
        "model": storable(asked.model),
        "price": _json(asked.price),
        "input_estimate": asked.input_estimate,
        "amount": exact(asked.demand.most),
        "limit": exact(asked.demand.limit),
        "at": _moment(asked.at),
        "lease_until": _moment(asked.lease_until),
        "is_resumable": asked.is_resumable,
        "is_asked": asked.is_asked,
        "message": asked.message and _json(asked.message),
        "said_before": _json(asked.said_before),
        "metadata": None if asked.metadata is None else _labels(asked.metadata),
    }


def _kept(response: AskedResponse) -> dict[str, object]:
    return {
        "message_ids": _json(response.message_ids),
        "asked": storable(response.asked),
        "is_background": response.is_background,
        "is_of_conversation": response.is_of_conversation,
    }


def _settled(hold: Hold, end: Settlement) -> dict[str, object]:
    usage, model = end.usage, storable(end.model)
    return {
        "charged": askable(hold.payer),
        "day": hold.day,
        "conversation": askable(hold.conversation_id),
        "answered": int(end.answered),
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_tokens": usage.cached_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "cost": exact(end.cost),
        "price_source": storable(end.price_source),
        "rates": _json(end.rates),
        "at": _moment(end.at),
        "last_image": _text(end.last_image),
        "transcript": _text(end.transcript_id),
        "context_tokens": end.context_tokens,
        "open_calls": None if end.open_calls is None else _json(end.open_calls),
        "summary": _text(end.summary),
        "unsaid": _text(end.unsaid),
        "model": model,
        "model_of_day": model_of_day(end.model),
        "provider_response": _text(hold.provider_response_id),
        "status": end.status,
        "estimated": end.estimated,
        "service_tier": _text(end.service_tier),
        "metadata": None if end.metadata is None else _labels(end.metadata),
        "time_to_first_token_ms": end.time_to_first_token_ms,
        "messages": len(end.messages),
        "message_ids": [message.id for message in end.messages],
        "roles": [message.role for message in end.messages],
        "statuses": [message.status for message in end.messages],
        "contents": [_json(message.content) for message in end.messages],
        "said_at": [_moment(message.created_at) for message in end.messages],
        "are_estimated": [message.estimated for message in end.messages],
        "finish_reasons": [message.finish_reason for message in end.messages],
        "end_number": end.end_number,
        "remembered": storable(end.remembered.decode()),
        "erasures": [new_id("erase") for _ in end.transcripts],
        "transcripts": [storable(transcript_id) for transcript_id in end.transcripts],
        "hold": None if end.open_until is None else _json(replace(hold, message=None, said_before=(), metadata=None)),
        "open_until": end.open_until and _moment(end.open_until),
    }


def _said(said: JournalEntry | None) -> dict[str, object]:
    if said is None:
        return {}
    return {"first": said.first, "last": said.last, "events": _json(bare(said.events))}


# As the columns' types in `sql.types` have it.


def _text(text: str | None) -> str | None:
    return None if text is None else storable(text)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _labels(labels: Mapping[str, str]) -> str:
    return _json({storable(key): storable(text) for key, text in labels.items()})


def _moment(at: datetime) -> datetime:
    if at.tzinfo is None:
        raise ValueError("a time without a zone is no moment")
    return at
