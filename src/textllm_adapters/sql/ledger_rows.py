"""The records of the books as rows and parameters, and rows as records."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from msgspec import convert
from msgspec.structs import asdict, replace
from sqlalchemy import Row

from textllm_core.ids import new_id
from textllm_core.money import ZERO
from textllm_core.records.accounts import ConversationAccount, SessionAccount
from textllm_core.records.hosted import HostedItem, ToolStep
from textllm_core.records.journal import JournalEntry, RefusedEnd, Spoken
from textllm_core.records.ledger import Hold, Reservation, Settlement
from textllm_core.records.messages import Message, ReplyStarted, TextDelta
from textllm_core.records.sessions import day_of
from textllm_core.records.thoughts import Reasoning, Thought, ThoughtDelta
from textllm_core.records.usage_reports import DailyUsage
from textllm_core.rules.bookkeeping import Before
from textllm_core.usage import LedgerEntry, Usage

BareEvent: TypeAlias = ReplyStarted | str | tuple[str, Any]
"""An event of a reply as it is kept."""


def of_hold(hold: Hold | Reservation) -> dict[str, object]:
    return {"of_tenant": hold.tenant_id, "of_user": hold.user_id, "of_response": hold.response_id}


def of_exchange(hold: Hold) -> dict[str, object]:
    return of_hold(hold) | {"of_conversation": hold.conversation_id}


def of_key(tenant_id: str, scope: str, key: str) -> dict[str, object]:
    return {"of_tenant": tenant_id, "of_scope": scope, "of_key": key}


def conversation_row(asked: Reservation, account: ConversationAccount) -> dict[str, object]:
    return {
        "tenant_id": asked.tenant_id,
        "user_id": asked.user_id,
        "id": asked.conversation_id,
        "created_at": asked.at,
        "tags": (),
        "metadata": {},
        "keeps_messages": asked.keeps_messages,
        "expires_at": asked.expires_at,
    } | asdict(account)


def session_row(asked: Reservation, account: SessionAccount) -> dict[str, object]:
    return {
        "tenant_id": asked.tenant_id,
        "user_id": asked.payer,
        "day": day_of(asked.at),
        "created_at": asked.at,
    } | asdict(account)


def usage_row(hold: Hold, used: DailyUsage) -> dict[str, object]:
    return {"tenant_id": hold.tenant_id, "user_id": hold.payer} | asdict(used)


def hold_row(
    hold: Hold, asked: Reservation, before: Before | None, last_activity: datetime | None
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
        "said_before": hold.said_before,
        "metadata": hold.metadata,
        "is_asked": hold.is_asked,
        "payer_id": hold.payer_id,
        "before": before,
        "session_last_activity": last_activity,
    }


def entry_row(entry: LedgerEntry) -> dict[str, object]:
    key = {"tenant_id": entry.tenant_id, "user_id": entry.user_id, "response_id": entry.response_id}
    return key | values_of_entry(entry)


def values_of_entry(entry: LedgerEntry) -> dict[str, object]:
    """What an entry says beside its key, which never changes."""
    return {
        "conversation_id": entry.conversation_id,
        "session_id": entry.session_id,
        "day": day_of(entry.created_at),
        "kind": entry.kind,
        "model": entry.model,
        "provider_response_id": entry.provider_response_id,
        "status": entry.status,
        "estimated": entry.estimated,
        "answered": entry.answered,
        "input_tokens": entry.usage.input_tokens,
        "output_tokens": entry.usage.output_tokens,
        "cached_tokens": entry.usage.cached_tokens,
        "cache_write_tokens": entry.usage.cache_write_tokens,
        "reasoning_tokens": entry.usage.reasoning_tokens,
        "cost": entry.cost,
        "price_source": entry.price_source,
        "service_tier": entry.service_tier,
        "created_at": entry.created_at,
        "settled_at": entry.settled_at,
        "time_to_first_token_ms": entry.time_to_first_token_ms,
        "payer_id": entry.payer_id,
    }


def end_row(hold: Hold, end: Settlement) -> dict[str, object]:
    return {
        "tenant_id": hold.tenant_id,
        "user_id": hold.user_id,
        "response_id": hold.response_id,
        "number": end.end_number,
        "remembered": end.remembered.decode(),
        "ended_at": end.at,
    }


def refused_end_row(hold: Hold, end: RefusedEnd) -> dict[str, object]:
    return {
        "tenant_id": hold.tenant_id,
        "user_id": hold.user_id,
        "response_id": hold.response_id,
        "number": end.number,
        "remembered": end.remembered.decode(),
        "message_number": 0,
        "spent": ZERO,
        "ended_at": end.at,
    }


def said_row(said: JournalEntry) -> dict[str, object]:
    hold = said.hold
    return {
        "tenant_id": hold.tenant_id,
        "user_id": hold.user_id,
        "response_id": hold.response_id,
        "first": said.first,
        "last": said.last,
        "events": bare(said.events),
    }


def bare(events: Sequence[Spoken]) -> list[BareEvent]:
    """The events as they are kept: text alone, and without the rate limit of the request that began it."""
    return [_bare(event) for event in events]


def _bare(event: Spoken) -> BareEvent:
    match event:
        case TextDelta(text, is_refusal):
            return ("refusal", text) if is_refusal else text
        case ToolStep(item, is_done):
            return "tool" if is_done else "tool_begun", item.item
        case ThoughtDelta(text):
            return "thought", text
        case Thought(reasoning):
            return "reasoning", reasoning
    return replace(event, allowance=None)


def spoken(event: BareEvent) -> Spoken:
    """The event of which this is kept."""
    match event:
        case ("refusal", str(text)):
            return TextDelta(text, is_refusal=True)
        case ("thought", str(text)):
            return ThoughtDelta(text)
        case ("reasoning", dict(reasoning)):
            return Thought(convert(reasoning, Reasoning))
        case (kind, dict(item)):
            return ToolStep(HostedItem(item), is_done=kind == "tool")
        case str(text):
            return TextDelta(text)
    assert isinstance(event, ReplyStarted)
    return event


def estimate_row(hold: Hold, end: Settlement) -> dict[str, object]:
    return {
        "tenant_id": hold.tenant_id,
        "user_id": hold.user_id,
        "response_id": hold.response_id,
        "hold": replace(hold, message=None, said_before=(), metadata=None),
        "next_at": end.at,
        "until": end.open_until,
    }


def message_rows(hold: Hold, end: Settlement, *, last: int) -> list[Mapping[str, object]]:
    of_it = hold.tenant_id, hold.user_id, hold.conversation_id
    numbered = enumerate(end.messages, last - len(end.messages) + 1)
    return [_message_row(*of_it, hold.response_id, number, message) for number, message in numbered]


def imported_message_rows(
    tenant_id: str, user_id: str, conversation_id: str, messages: Sequence[Message], *, first: int
) -> list[Mapping[str, object]]:
    """Rows of messages that no exchange of ours has made."""
    of_it = tenant_id, user_id, conversation_id
    return [_message_row(*of_it, new_id("resp"), number, message) for number, message in enumerate(messages, first)]


def _message_row(
    tenant_id: str, user_id: str, conversation_id: str, response_id: str, number: int, message: Message
) -> Mapping[str, object]:
    return {
        "tenant_id": tenant_id,
        "user_id": user_id,
        "conversation_id": conversation_id,
        "number": number,
        "id": message.id,
        "response_id": response_id,
        "role": message.role,
        "status": message.status,
        "content": message.content,
        "created_at": message.created_at,
        "estimated": message.estimated,
        "finish_reason": message.finish_reason,
    }


def erasure_rows(
    tenant_id: str, user_id: str, transcripts: Iterable[str], *, at: datetime, replies: Iterable[str] = ()
) -> list[Mapping[str, object]]:
    return [
        {
            "tenant_id": tenant_id,
            "user_id": user_id,
            "id": new_id("erase"),
            "kind": kind,
            "provider_id": provider_id,
            "attempts": 0,
            "next_at": at,
        }
        for kind, made in (("transcript", transcripts), ("reply", replies))
        for provider_id in made
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
        said_before=row.said_before,
        metadata=row.metadata,
        is_asked=row.is_asked,
        transcript_id=row.transcript_id,
        payer_id=row.payer_id,
        provider_response_id=row.provider_response_id,
        reported_model=row.reported_model,
        thought=row.thought,
        counted=row.counted,
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
            tool_calls={kind: calls.count for kind, calls in row.rates.calls.items()} if row.rates else {},
        ),
        cost=row.cost,
        price_source=row.price_source,
        service_tier=row.service_tier,
        created_at=row.created_at,
        settled_at=row.settled_at,
        time_to_first_token_ms=row.time_to_first_token_ms,
        payer_id=row.payer_id,
    )
