"""What every turnstile keeps of the port `Turnstile`: a turn is counted, and let in where nothing stands in its way."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from textllm_adapters.testing.books import assert_balanced, at_once, next_turn, reservation, settlement
from textllm_adapters.testing.storage import Storage
from textllm_core.errors import (
    BudgetExceededError,
    ConversationBusyError,
    IdempotencyInProgressError,
    IdempotencyMismatchError,
    RateLimitedError,
)
from textllm_core.ports.rate_limiter import RateLimiter
from textllm_core.ports.turnstile import Turnstile
from textllm_core.records.ledger import AlreadySettledError, Hold, Reservation
from textllm_core.records.messages import Idempotency

KEY = Idempotency("key", "POST /chat", "digest")
PER_MINUTE = 10  # a token comes back after 6 s, when a test is over also on a busy machine


@dataclass(frozen=True, slots=True)
class Gate:
    """A turnstile, and what it is over."""

    turnstile: Turnstile
    limiter: RateLimiter
    storage: Storage

    async def left(self, user_id: str = "user", *, per_minute: int = PER_MINUTE) -> int:
        """How many turns the user may still begin, one of them less than before."""
        return (await self.limiter.take("tenant", user_id, per_minute=per_minute)).remaining + 1

    async def let_in(self, asked: Reservation) -> Hold:
        _, hold = await self.turnstile.admit(asked, per_minute=PER_MINUTE)
        assert hold is not None
        return hold


async def no_room(_: Gate, **more: Any) -> Reservation:
    return reservation(cost="101", limit="100", **more)


async def busy(gate: Gate, **more: Any) -> Reservation:
    first = reservation()
    await gate.storage.ledger.settle(await gate.storage.ledger.reserve(first), settlement())
    further = await next_turn(gate.storage, first.conversation_id, **more)
    await gate.storage.ledger.reserve(replace(further, response_id="resp_first", idempotency=None))
    return further


async def running(gate: Gate, **more: Any) -> Reservation:
    await gate.storage.ledger.reserve(reservation(**more))
    return reservation(**more)


async def of_another_turn(gate: Gate, **more: Any) -> Reservation:
    await gate.storage.ledger.reserve(reservation(**more))
    return reservation(idempotency=replace(KEY, fingerprint="another"))


async def settled(gate: Gate, **more: Any) -> Reservation:
    await gate.storage.ledger.settle(await gate.storage.ledger.reserve(reservation(**more)), settlement())
    return reservation(**more)


class TurnstileContract:
    """What every turnstile keeps of the port `Turnstile`.

    Fixture `gate`: a `Gate` over an empty store, of this test alone.
    """

    pytestmark = pytest.mark.asyncio

    async def test_a_turn_is_counted_and_let_in(self, gate: Gate) -> None:
        asked = reservation(idempotency=KEY, is_resumable=True, metadata={"a": "b"})
        left, hold = await gate.turnstile.admit(asked, per_minute=3)
        assert (left.limit, left.remaining, left.resets_in_s) == (3, 2, 20)
        assert hold == asked.granted(Decimal(1), session_id=hold.session_id if hold else "")
        with pytest.raises(IdempotencyInProgressError):
            await gate.storage.ledger.replay("tenant", KEY)
        await assert_balanced(gate.storage, holds=[hold])
        settled = await gate.storage.ledger.settle(hold, settlement(remembered=b"{}"))
        assert settled is not None
        replay = await gate.storage.ledger.replay("tenant", KEY)
        assert replay is not None
        assert replay.remembered == b"{}"
        assert await gate.left(per_minute=3) == 2

    async def test_further_turns_are_counted_by_the_same_bucket(self, gate: Gate) -> None:
        first = reservation()
        await gate.storage.ledger.settle(await gate.let_in(first), settlement())
        hold = await gate.let_in(await next_turn(gate.storage, first.conversation_id, idempotency=KEY))
        assert hold.conversation_id == first.conversation_id
        assert await gate.left() == PER_MINUTE - 2
        await assert_balanced(gate.storage, holds=[hold])

    async def test_whoever_pays_is_counted(self, gate: Gate) -> None:
        hold = await gate.let_in(reservation(payer_id="address:127.0.0.1"))
        assert hold.payer_id == "address:127.0.0.1"
        assert (await gate.left("user"), await gate.left("address:127.0.0.1")) == (PER_MINUTE, PER_MINUTE - 1)

    @pytest.mark.parametrize("key", [None, KEY])
    async def test_without_a_token_nothing_happens(self, gate: Gate, key: Idempotency | None) -> None:
        first = reservation()
        hold = await gate.let_in(first)
        await gate.storage.ledger.settle(hold, settlement())
        while (await gate.limiter.take("tenant", "user", per_minute=PER_MINUTE)).remaining:
            pass
        further = await next_turn(gate.storage, first.conversation_id, idempotency=key)
        for asked in (reservation(idempotency=key), further):
            with pytest.raises(RateLimitedError) as refusal:
                await gate.turnstile.admit(asked, per_minute=PER_MINUTE)
            assert refusal.value.limit == PER_MINUTE
            assert 1 <= refusal.value.retry_after_s <= 60 // PER_MINUTE
        assert await gate.storage.ledger.replay("tenant", KEY) is None
        await assert_balanced(gate.storage)
        await gate.storage.ledger.reserve(further)

    @pytest.mark.parametrize(
        ("obstacle", "refusal"),
        [
            (no_room, BudgetExceededError),
            (busy, ConversationBusyError),
            (running, IdempotencyInProgressError),
            (of_another_turn, IdempotencyMismatchError),
            (settled, AlreadySettledError),
        ],
    )
    async def test_what_stands_in_the_way_is_said_by_the_ledger_and_the_turn_is_counted(
        self, gate: Gate, obstacle: Any, refusal: type[Exception]
    ) -> None:
        asked = await obstacle(gate, idempotency=KEY)
        left, hold = await gate.turnstile.admit(asked, per_minute=PER_MINUTE)
        assert (left.remaining, hold) == (PER_MINUTE - 1, None)
        with pytest.raises(refusal):
            await gate.storage.ledger.reserve(asked)
        assert await gate.left() == PER_MINUTE - 1

    async def test_thirty_at_once_get_what_the_bucket_holds(self, gate: Gate) -> None:
        admitted, refused = await at_once(*[gate.turnstile.admit(reservation(), per_minute=7) for _ in range(30)])
        holds: Sequence[Hold] = [hold for _, hold in admitted if hold is not None]
        assert {type(error) for error in refused} == {RateLimitedError}
        assert len(admitted) == 7
        assert len(holds) == 7
        await assert_balanced(gate.storage, holds=holds)

    async def test_of_ten_at_once_with_one_key_one_is_let_in(self, gate: Gate) -> None:
        asked = [reservation(idempotency=KEY, user_id=f"user {n}") for n in range(10)]
        admitted, refused = await at_once(*[gate.turnstile.admit(each, per_minute=100) for each in asked])
        assert refused == []
        assert sum(hold is not None for _, hold in admitted) == 1

    async def test_a_cap_is_a_cap_for_those_that_come_at_once(self, gate: Gate) -> None:
        asked = [reservation(cost="1", limit="5") for _ in range(20)]
        admitted, refused = await at_once(*[gate.turnstile.admit(each, per_minute=100) for each in asked])
        assert refused == []
        holds = [hold for _, hold in admitted if hold is not None]
        assert len(holds) == 5
        await assert_balanced(gate.storage, holds=holds)
