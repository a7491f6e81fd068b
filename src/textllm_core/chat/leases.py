"""Says of the exchanges of a process, while they run, that they are alive, and what is known of their costs."""

from contextlib import suppress
from dataclasses import dataclass

from textllm_core.chat.running import LEASE, RunningExchanges
from textllm_core.errors import StorageUnavailableError
from textllm_core.ports.clock import Clock
from textllm_core.ports.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Leases:
    """Keeps the holds of what runs alive; where the storage is away, the next round does it."""

    ledger: Ledger
    running: RunningExchanges
    clock: Clock

    async def renew(self) -> None:
        """Renew all."""
        with suppress(StorageUnavailableError):
            await self.ledger.renew(self.running.holds, lease_until=self.clock.now() + LEASE)

    async def note_usage(self) -> None:
        """Renew at once those of which the provider has begun to state the usage; what it states later can wait."""
        if unnoted := self.running.unnoted:
            holds = [hold for running in unnoted if (hold := running.renewed) is not None]
            with suppress(StorageUnavailableError):
                await self.ledger.renew(holds, lease_until=self.clock.now() + LEASE)
                for running in unnoted:
                    running.has_noted = True
