"""Where a turn is counted and let in, in one step."""

from typing import Protocol

from textllm_core.errors import Allowance
from textllm_core.records.ledger import Hold, Reservation


class Turnstile(Protocol):
    """A `RateLimiter` and a `Ledger` over the same storage, asked once for what every turn asks of both."""

    async def admit(self, reservation: Reservation, *, per_minute: int) -> tuple[Allowance, Hold | None]:
        """Take a token of whoever pays, as `RateLimiter.take` does, then reserve as `Ledger.reserve` does.

        Returns what is left of the rate limit, and the hold. None: it cannot be had so simply. Then the token is taken,
        and nothing else has happened; `Ledger.reserve` grants the hold, or says why not.
        Raises:
            RateLimitedError: no token was left; nothing has happened.
            StorageUnavailableError: as in both.
        """
        ...
