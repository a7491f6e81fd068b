"""Reservations and settlements to test with, and the check that the books balance."""

import asyncio
from collections.abc import Awaitable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from msgspec.structs import replace

from textllm_adapters.testing.storage import Storage
from textllm_core.ids import new_id, new_response_id
from textllm_core.money import ZERO, Band, Price, Rates
from textllm_core.records.conversations import Conversation
from textllm_core.records.ledger import Demand, Hold, Reservation, Settlement
from textllm_core.records.messages import Message
from textllm_core.records.parts import InputText, OutputText
from textllm_core.records.sessions import day_of
from textllm_core.usage import Usage

NOON = datetime(2026, 11, 23, 12, 0, 0, 123_456, UTC)
TODAY = day_of(NOON)
LEASE = timedelta(seconds=30)  # any will do: the suites let no real time pass
PRICE = Price(
    rates=Rates.of(Decimal("2.5"), Decimal(10), cached_input=Decimal("1.25")),
    source="table",
    bands=(Band(272_000, Rates.of(Decimal("0.0000000001"), Decimal("1e-7"))),),
)

T = TypeVar("T")


def usd(amount: str) -> Decimal:
    return Decimal(amount)


def reservation(*, cost: str = "1", limit: str = "100", at: datetime = NOON, **more: Any) -> Reservation:
    """Asks for exactly `cost` USD, in a new conversation unless `revision` is given."""
    asked = Reservation(
        tenant_id="tenant",
        user_id="user",
        conversation_id=new_id("conv"),
        revision=None,
        title="Hello",
        response_id=new_response_id(at),
        kind="text",
        model="gpt-4o",
        price=PRICE,
        input_estimate=40,
        keeps_messages=True,
        demand=Demand(least=usd(cost), most=usd(cost), limit=usd(limit)),
        at=at,
        lease_until=at + LEASE,
    )
    return replace(asked, **more)


def settlement(*, cost: str = "0.25", at: datetime = NOON + timedelta(seconds=3), **more: Any) -> Settlement:
    """A reply of 100 + 20 tokens that was answered and kept."""
    end = Settlement(
        status="completed",
        estimated=False,
        usage=Usage(input_tokens=100, output_tokens=20, cached_tokens=50, cache_write_tokens=10, reasoning_tokens=5),
        cost=usd(cost),
        price_source="table",
        rates=PRICE.rates,
        model="gpt-4o-2024-11-20",
        service_tier="default",
        metadata=None,
        messages=exchange("Hello", "Hi"),
        answered=True,
        transcript_id="conv_theirs",
        context_tokens=120,
        at=at,
        time_to_first_token_ms=321,
    )
    return replace(end, **more)


def exchange(said: str, answered: str) -> Sequence[Message]:
    return (
        Message(id=new_id("msg"), role="user", content=(InputText(said),), created_at=NOON),
        Message(id=new_id("msg"), role="assistant", content=(OutputText(answered),), created_at=NOON),
    )


def empty_conversation(title: str | None) -> Conversation:
    return Conversation(
        id=new_id("conv"),
        user_id="user",
        session_id=None,
        created_at=NOON,
        updated_at=NOON,
        message_count=0,
        total_tokens_input=0,
        total_tokens_output=0,
        total_cost=ZERO,
        title=title,
        summary=None,
        tags=(),
        metadata={},
        is_deleted=False,
    )


async def next_turn(storage: Storage, conversation_id: str, **more: Any) -> Reservation:
    """Asks for a further turn of a conversation, as read just now."""
    state = await storage.conversations.state("tenant", conversation_id)
    assert state is not None
    return reservation(conversation_id=conversation_id, revision=state.revision, **more)


async def reserved(storage: Storage, *, at: datetime = NOON, user_id: str = "user") -> Decimal:
    """USD promised on that day, as a refusal shows it: what is spent and what a further turn may cost at most."""
    low, high = ZERO, usd("100000000")
    probe = reservation(at=at, user_id=user_id)
    session = await storage.sessions.of_day("tenant", user_id, day_of(at))
    spent = session.total_cost if session else ZERO
    hold = await storage.ledger.reserve(replace(probe, demand=Demand(least=low, most=high, limit=spent + high)))
    await storage.ledger.release(hold)
    return high - hold.amount


async def assert_balanced(storage: Storage, *, holds: Sequence[Hold] = (), user_id: str = "user") -> None:
    """Ledger, session, usage and conversations of the user's day agree, and `holds` are all that is promised."""
    entries = await storage.ledger.entries("tenant", user_id)
    session = await storage.sessions.of_day("tenant", user_id, TODAY)
    assert session is not None
    assert session.total_cost == sum((entry.cost for entry in entries), ZERO)
    assert session.total_tokens == sum(entry.usage.total_tokens for entry in entries)
    settled = [entry for entry in entries if entry.status != "pending"]
    used = {row.model: row for row in await storage.reports.daily("tenant", user_id, TODAY)}
    assert used.keys() == {entry.model for entry in settled}
    for model, row in used.items():
        of_model = [entry for entry in settled if entry.model == model]
        assert row.cost == sum((entry.cost for entry in of_model), ZERO)
        assert row.estimated_cost == sum((entry.cost for entry in of_model if entry.estimated), ZERO)
        assert row.input_tokens == sum(entry.usage.input_tokens for entry in of_model)
        assert row.output_tokens == sum(entry.usage.output_tokens for entry in of_model)
        assert row.messages == sum(entry.answered for entry in of_model)
    for conversation_id in {entry.conversation_id for entry in entries}:
        conversation = await storage.conversations.get("tenant", conversation_id)
        assert conversation is not None
        of_it = [entry for entry in entries if entry.conversation_id == conversation_id]
        assert conversation.total_cost == sum((entry.cost for entry in of_it), ZERO)
        assert conversation.total_tokens_input == sum(entry.usage.input_tokens for entry in of_it)
        assert conversation.total_tokens_output == sum(entry.usage.output_tokens for entry in of_it)
    assert await reserved(storage, user_id=user_id) == sum((hold.amount for hold in holds), ZERO)


async def at_once(*calls: Awaitable[T]) -> tuple[list[T], list[BaseException]]:
    """What concurrent calls returned, and what they raised."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    return [r for r in results if not isinstance(r, BaseException)], [
        r for r in results if isinstance(r, BaseException)
    ]
