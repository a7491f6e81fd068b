"""Prices what an exchange used, and settles it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Final

from msgspec import Struct

from textllm_core.errors import InvalidRequestError
from textllm_core.events import UNHEARD, ExchangeCorrected, ExchangeSettled
from textllm_core.ports.clock import Clock
from textllm_core.ports.ledger import Ledger
from textllm_core.ports.telemetry import Telemetry
from textllm_core.pricing import Pricing
from textllm_core.records.ledger import Hold, Settled, Settlement
from textllm_core.records.messages import Message
from textllm_core.usage import EntryStatus, Usage

_OPEN_FOR: Final = timedelta(minutes=10)  # longer than a provider that is left writes on, or than most of its outages


class Outcome(Struct, frozen=True, kw_only=True):
    """How an exchange ended, before it is priced. The fields are those of `Settlement`.

    `remember` makes `Settlement.remembered` of the cost in USD; None for an exchange that nobody will ask for again.
    `recovered`: it is not settled by whoever carried it out. `is_open`: the provider may yet say what it came to.
    """

    status: EntryStatus
    usage: Usage
    model: str
    estimated: bool = False
    service_tier: str | None = None
    metadata: Mapping[str, str] | None = None
    messages: Sequence[Message] = ()
    answered: bool = False
    last_image: str | None = None
    transcript_id: str | None
    transcripts: Sequence[str] = ()
    context_tokens: int
    time_to_first_token_ms: int | None = None
    remember: Callable[[Decimal], bytes] | None = None
    summary: str | None = None
    end_number: int = 1
    recovered: bool = False
    is_open: bool = False


class Charge(Struct, frozen=True):
    """What a settled exchange used and cost, in USD, and where that leaves the conversation and the user's day.

    Args:
        estimated: the provider did not state the usage.
    """

    usage: Usage
    cost: Decimal
    estimated: bool
    message_number: int
    spent: Decimal


@dataclass(frozen=True, slots=True)
class TrackUsage:
    """Charge an exchange, exactly once: the first call settles it; a further one can but set an estimate right."""

    ledger: Ledger
    pricing: Pricing
    clock: Clock
    telemetry: Telemetry = UNHEARD

    async def __call__(self, hold: Hold, outcome: Outcome) -> Charge | None:
        """The charge; None where the exchange was settled or released before.

        Raises:
            StorageUnavailableError: nothing is settled yet; call again.
        """
        settlement = self._priced(hold, outcome)
        settled = await self.ledger.settle(hold, settlement)
        if settled is None:  # recovery took us for dead, and may have estimated what we know
            return await self._correct(hold, outcome, settlement)
        self.telemetry.emit(
            ExchangeSettled(
                response_id=hold.response_id,
                kind=hold.kind,
                model=outcome.model,
                status=outcome.status,
                usage=outcome.usage,
                held=hold.amount,
                cost=settlement.cost,
                estimated=outcome.estimated,
                recovered=outcome.recovered,
                time_to_first_token_ms=outcome.time_to_first_token_ms,
            )
        )
        return _charge(settlement, settled)

    async def correct(self, hold: Hold, outcome: Outcome) -> Charge | None:
        """Put this outcome in the place of an estimate; None where the entry is none (any more).

        Raises:
            StorageUnavailableError: nothing is corrected yet; call again.
        """
        return await self._correct(hold, outcome, self._priced(hold, outcome))

    async def _correct(self, hold: Hold, outcome: Outcome, settlement: Settlement) -> Charge | None:
        if outcome.estimated:
            return None
        estimate = await self.ledger.entry(hold.tenant_id, hold.response_id)  # an estimate changes but once
        settled = await self.ledger.correct(hold, settlement)
        if settled is None or estimate is None:
            return None
        self.telemetry.emit(
            ExchangeCorrected(
                response_id=hold.response_id,
                model=outcome.model,
                held=hold.amount,
                estimate=estimate.cost,
                cost=settlement.cost,
            )
        )
        return _charge(settlement, settled)

    def _priced(self, hold: Hold, outcome: Outcome) -> Settlement:
        try:
            price = self.pricing.price(hold.model, reported=outcome.model, service_tier=outcome.service_tier)
        except InvalidRequestError:  # since it was admitted, its price has gone from the lists
            price = hold.price
        cost, now = price.cost(outcome.usage), self.clock.now()
        return Settlement(
            status=outcome.status,
            estimated=outcome.estimated,
            usage=outcome.usage,
            cost=cost,
            price_source=price.source,
            rates=price.rates_for(outcome.usage.input_tokens),
            model=outcome.model,
            service_tier=outcome.service_tier,
            metadata=outcome.metadata,
            messages=outcome.messages,
            answered=outcome.answered,
            last_image=outcome.last_image,
            transcript_id=outcome.transcript_id,
            transcripts=outcome.transcripts,
            context_tokens=outcome.context_tokens,
            at=now,
            time_to_first_token_ms=outcome.time_to_first_token_ms,
            remembered=outcome.remember(cost) if outcome.remember else b"",
            summary=outcome.summary,
            end_number=outcome.end_number,
            open_until=now + _OPEN_FOR if outcome.is_open and hold.provider_response_id else None,
        )


def _charge(end: Settlement, settled: Settled) -> Charge:
    return Charge(end.usage, end.cost, end.estimated, settled.message_number, settled.spent)
