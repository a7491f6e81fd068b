"""Sessions as they are kept."""

from collections.abc import Sequence
from datetime import date
from typing import Protocol

from textllm_core.records.sessions import Session


class SessionRepository(Protocol):
    """Reads sessions and ends them; the `Ledger` opens them and moves their counters.

    Every method raises StorageUnavailableError when the storage does not answer.
    """

    async def get(self, tenant_id: str, session_id: str, *, user_id: str | None = None) -> Session | None:
        """One session of the tenant, and of the user where one is named."""
        ...

    async def of_day(self, tenant_id: str, user_id: str, day: date) -> Session | None:
        """The user's session of a UTC day."""
        ...

    async def since(self, tenant_id: str, user_id: str, first: date) -> Sequence[Session]:
        """The user's sessions of the UTC day `first` and of later ones, newest first."""
        ...

    async def end(self, tenant_id: str, user_id: str, session_id: str) -> Session | None:
        """Make a session of the user inactive, and change nothing else; None where there is no such session.

        The exchanges that run in it then say nothing any more of whether it is active: see `books.closing`.
        """
        ...
