"""The audit of the books: every counter against the ledger and the holds it follows from."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from textllm_core.ports.audit import Audit
from textllm_core.records.audit import BooksSize, Drift


@dataclass(frozen=True, slots=True)
class AuditBooks:
    """Say, of all tenants, which counters have drifted; safe while turns run.

    Every call raises StorageUnavailableError where the storage does not answer.
    """

    audit: Audit

    def __call__(self) -> AsyncGenerator[Drift, None]:
        """Each counter that has drifted; none where the books balance."""
        return self.audit.drifts()

    async def repair(self) -> AsyncGenerator[Drift, None]:
        """Set right what has drifted, user by user; each counter as it was found before it was set right."""
        users = {(drift.tenant_id, drift.user_id): None async for drift in self.audit.drifts()}
        for tenant_id, user_id in users:
            for drift in await self.audit.repair(tenant_id, user_id):
                yield drift

    async def size(self) -> BooksSize:
        """How many rows there are to check."""
        return await self.audit.size()
