"""Sessions as they are kept."""

from datetime import date
from typing import Protocol

from textllm_core.sessions import Session


class SessionRepository(Protocol):
    """Reads sessions; the `Ledger` writes them. Every method raises StorageUnavailableError when it cannot."""

    async def get(self, tenant_id: str, session_id: str) -> Session | None:
        """One session of the tenant."""
        ...

    async def of_day(self, tenant_id: str, user_id: str, day: date) -> Session | None:
        """The user's session of a UTC day."""
        ...
