"""A turn is counted, and then let in."""

from dataclasses import dataclass

from textllm_core.errors import Allowance, TextLLMError
from textllm_core.ports.ledger import Ledger
from textllm_core.ports.rate_limiter import RateLimiter
from textllm_core.records.ledger import AlreadySettledError, Hold, Reservation


@dataclass(frozen=True, slots=True)
class InTwoSteps:
    """The `Turnstile` of any `RateLimiter` and any `Ledger`."""

    rate_limiter: RateLimiter
    ledger: Ledger

    async def admit(self, reservation: Reservation, *, per_minute: int) -> tuple[Allowance, Hold | None]:
        """Keeps `Turnstile.admit`."""
        left = await self.rate_limiter.take(reservation.tenant_id, reservation.payer, per_minute=per_minute)
        try:
            return left, await self.ledger.reserve(reservation)
        except (TextLLMError, AlreadySettledError):  # it is asked again, and says so again
            return left, None
