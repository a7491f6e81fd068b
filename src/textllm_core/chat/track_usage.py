"""Charges exchanges: each ends with one entry, which the provider's late word may set right."""

from dataclasses import dataclass

from textllm_core.events import UNHEARD, ExchangeCorrected, ExchangeSettled
from textllm_core.ports.ledger import Ledger
from textllm_core.ports.telemetry import Telemetry
from textllm_core.records.journal import JournalEntry
from textllm_core.records.ledger import Hold, Settled, Settlement


@dataclass(frozen=True, slots=True)
class TrackUsage:
    """Charge an exchange: the first call settles it, any further one changes nothing."""

    ledger: Ledger
    telemetry: Telemetry = UNHEARD

    async def __call__(
        self, hold: Hold, end: Settlement, *, said: JournalEntry | None = None, recovered: bool = False
    ) -> Settled | None:
        """Write down how an exchange ended; None where that was done before.

        Where recovery took its process for dead, and has estimated what is known here, the estimate is set right.

        Args:
            said: as `Ledger.settle` has it.
            recovered: it is not settled by whoever carried it out.
        Raises:
            StorageUnavailableError: nothing is settled yet; call again.
        """
        settled = await self.ledger.settle(hold, end, said=said)
        if settled is None:
            return await self.correct(hold, end, said=said)
        self.telemetry.emit(
            ExchangeSettled(
                response_id=hold.response_id,
                kind=hold.kind,
                model=end.model,
                status=end.status,
                usage=end.usage,
                held=hold.amount,
                cost=end.cost,
                estimated=end.estimated,
                recovered=recovered,
                time_to_first_token_ms=end.time_to_first_token_ms,
            )
        )
        return settled

    async def correct(self, hold: Hold, end: Settlement, *, said: JournalEntry | None = None) -> Settled | None:
        """Put what is known at last in the place of an estimate; None where it is none, or the entry is none any more.

        Raises:
            StorageUnavailableError: nothing is corrected yet; call again.
        """
        if end.estimated:
            return None
        # An estimate changes but once.
        estimate = await self.ledger.entry(hold.tenant_id, hold.response_id, user_id=hold.user_id)
        settled = await self.ledger.correct(hold, end, said=said)
        if settled is not None and estimate is not None:
            self.telemetry.emit(
                ExchangeCorrected(
                    response_id=hold.response_id,
                    model=end.model,
                    held=hold.amount,
                    estimate=estimate.cost,
                    cost=end.cost,
                )
            )
        return settled
