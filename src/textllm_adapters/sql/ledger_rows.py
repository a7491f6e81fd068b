"""The records of the books as rows and parameters, and rows as records."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from msgspec.structs import replace
from sqlalchemy import Row

from textllm_core.ids import new_id
from textllm_core.money import ZERO
from textllm_core.records.ledger import Hold, Reservation, Settlement
from textllm_core.records.sessions import day_of
from textllm_core.rules.bookkeeping import Before, Moves, SessionBefore
from textllm_core.usage import LedgerEntry, Usage


def of_hold(hold: Hold | Row[Any]) -> dict[str, object]:
    return {"of_tenant": hold.tenant_id, "of_user": hold.user_id, "of_response": hold.response_id}


def of_exchange(hold: Hold | Row[Any]) -> dict[str, object]:
    return of_hold(hold) | {"of_conversation": hold.conversation_id}


def key_of(hold: Row[Any]) -> dict[str, object]:
    return of_key({"tenant_id": hold.tenant_id, "scope": hold.idempotency_scope, "key": hold.idempotency_key})


def of_key(key: Mapping[str, object]) -> dict[str, object]:
    return {"of_tenant": key["tenant_id"], "of_scope": key["scope"], "of_key": key["key"]}


def of_session(hold: Hold | Row[Any]) -> dict[str, object]:
    return {"of_tenant": hold.tenant_id, "of_payer": payer_of(hold), "of_day": hold.day}


def payer_of(charged: Reservation | Hold | Row[Any]) -> str:
    """Whose session and daily usage it counts in."""
    payer: str = charged.payer_id or charged.user_id
    return payer


def conversation_row(asked: Reservation) -> dict[str, object]:
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


def session_row(asked: Reservation) -> dict[str, object]:
    return {
        "tenant_id": asked.tenant_id,
        "user_id": payer_of(asked),
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


def session_before(was_active: bool, last_activity: datetime | None) -> SessionBefore | None:
    """None: the session was made."""
    return None if last_activity is None else SessionBefore(was_active, last_activity)


def hold_row(
    hold: Hold, asked: Reservation, before: Before | None, session_before: SessionBefore | None
) -> dict[str, object]:
    return {
        "tenant_id": hold.tenant_id,
        "user_id": hold.user_id,
        "response_id": hold.response_id,
        "conversation_id": hold.conversation_id,
        "session_id": hold.session_id,
        "day": hold.day,
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
        "is_resumable": asked.is_resumable,
        "message": hold.message,
        "metadata": hold.metadata,
        "is_asked": hold.is_asked,
        "payer_id": hold.payer_id,
        "before": before,
        "session_was_active": session_before is None or session_before.was_active,
        "session_last_activity": session_before and session_before.last_activity,
    }


def pending_row(hold: Hold | Row[Any], model: str) -> dict[str, object]:
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


def moved_conversation(moves: Moves) -> dict[str, object]:
    return {
        "plus_answered": moves.answered,
        "plus_input": moves.input_tokens,
        "plus_output": moves.output_tokens,
        "plus_cost": moves.cost,
    }


def moved_session(moves: Moves) -> dict[str, object]:
    return {"plus_cost": moves.cost, "plus_tokens": moves.total_tokens}


def usage_row(hold: Hold | Row[Any], model: str, moves: Moves) -> dict[str, object]:
    return {
        "tenant_id": hold.tenant_id,
        "user_id": payer_of(hold),
        "day": hold.day,
        "model": model,
        "messages": moves.answered,
        "input_tokens": moves.input_tokens,
        "output_tokens": moves.output_tokens,
        "cost": moves.cost,
        "estimated_cost": moves.estimated_cost,
    }


def settled_row(hold: Hold | Row[Any], end: Settlement) -> dict[str, object]:
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


def _entry_row(hold: Hold | Row[Any], usage: Usage) -> dict[str, object]:
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
        "payer_id": hold.payer_id,
    }


def end_row(hold: Hold | Row[Any], end: Settlement) -> dict[str, object]:
    return {
        "tenant_id": hold.tenant_id,
        "user_id": hold.user_id,
        "response_id": hold.response_id,
        "number": end.end_number,
        "remembered": end.remembered.decode(),
        "ended_at": end.at,
    }


def estimate_row(hold: Hold, end: Settlement) -> dict[str, object]:
    return {
        "tenant_id": hold.tenant_id,
        "user_id": hold.user_id,
        "response_id": hold.response_id,
        "hold": replace(hold, message=None, metadata=None),
        "next_at": end.at,
        "until": end.open_until,
    }


def corrected_entry(end: Settlement) -> dict[str, object]:
    return {
        "new_model": end.model,
        "new_status": end.status,
        "new_estimated": end.estimated,
        "new_input": end.usage.input_tokens,
        "new_output": end.usage.output_tokens,
        "new_cached": end.usage.cached_tokens,
        "new_cache_write": end.usage.cache_write_tokens,
        "new_reasoning": end.usage.reasoning_tokens,
        "new_cost": end.cost,
        "new_source": end.price_source,
        "new_rates": end.rates,
        "new_tier": end.service_tier,
        "new_moment": end.at,
    }


def message_rows(hold: Hold | Row[Any], end: Settlement, *, last: int) -> list[Mapping[str, object]]:
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
            "estimated": message.estimated,
            "finish_reason": message.finish_reason,
        }
        for number, message in enumerate(end.messages, last - len(end.messages) + 1)
    ]


def erasure_rows(
    tenant_id: str, user_id: str, transcripts: Iterable[str], *, at: datetime
) -> list[Mapping[str, object]]:
    return [
        {
            "tenant_id": tenant_id,
            "user_id": user_id,
            "id": new_id("erase"),
            "kind": "transcript",
            "provider_id": transcript_id,
            "attempts": 0,
            "next_at": at,
        }
        for transcript_id in transcripts
    ]


def hold(row: Row[Any]) -> Hold:
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
        message=row.message,
        metadata=row.metadata,
        is_asked=row.is_asked,
        transcript_id=row.transcript_id,
        payer_id=row.payer_id,
        provider_response_id=row.provider_response_id,
        reported_model=row.reported_model,
    )


def entry(row: Row[Any]) -> LedgerEntry:
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
        payer_id=row.payer_id,
    )
