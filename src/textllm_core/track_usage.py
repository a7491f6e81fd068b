"""Prices what an exchange used, and settles it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from msgspec import Struct

from textllm_core.chat.messages import Message
from textllm_core.errors import InvalidRequestError
from textllm_core.events import UNHEARD, ExchangeSettled
from textllm_core.ports.clock import Clock
from textllm_core.ports.ledger import Hold, Ledger, Settlement
from textllm_core.ports.telemetry import Telemetry
from textllm_core.pricing import Pricing
from textllm_core.usage import EntryStatus, Usage


class Outcome(Struct, frozen=True, kw_only=True):
    """How an exchange ended, before it is priced. The fields are those of `Settlement`.

    `remember` makes `Settlement.remembered` of the cost in USD; None for an exchange that nobody will ask for again.
    `recovered`: it is not settled by whoever carried it out.
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
    """Charge an exchange, exactly once: the first call settles it, any further one changes nothing."""

    ledger: Ledger
    pricing: Pricing
    clock: Clock
    telemetry: Telemetry = UNHEARD

    async def __call__(self, hold: Hold, outcome: Outcome) -> Charge | None:
        """The charge; None where the exchange was settled or released before.

        Raises:
            StorageUnavailableError: nothing is settled yet; call again.
        """
        try:
            price = self.pricing.price(hold.model, reported=outcome.model, service_tier=outcome.service_tier)
        except InvalidRequestError:  # since it was admitted, its price has gone from the lists
            price = hold.price
        cost = price.cost(outcome.usage)
        settled = await self.ledger.settle(
            hold,
            Settlement(
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
                at=self.clock.now(),
                time_to_first_token_ms=outcome.time_to_first_token_ms,
                remembered=outcome.remember(cost) if outcome.remember else b"",
                summary=outcome.summary,
                end_number=outcome.end_number,
            ),
        )
        if settled is None:
            return None
        self.telemetry.emit(
            ExchangeSettled(
                response_id=hold.response_id,
                kind=hold.kind,
                model=outcome.model,
                status=outcome.status,
                usage=outcome.usage,
                held=hold.amount,
                cost=cost,
                estimated=outcome.estimated,
                recovered=outcome.recovered,
                time_to_first_token_ms=outcome.time_to_first_token_ms,
            )
        )
        return Charge(outcome.usage, cost, outcome.estimated, settled.message_number, settled.spent)
