"""What is still to be erased on the provider's side."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from textllm_core.events import ErasuresWaiting
from textllm_core.records.erasures import Erasure


class Erasures(Protocol):
    """The list of erasures; the `Ledger` and the `ConversationRepository` add to it, with what they change.

    Every method raises StorageUnavailableError when the storage does not answer.
    """

    async def due(self, *, at: datetime, latest: datetime, lease_until: datetime, limit: int) -> Sequence[Erasure]:
        """At most `limit` erasures whose time has come at `at`; until `lease_until` no one else gets them.

        Args:
            latest: nobody puts anything off until later than that: what is, has its time from a clock that was wrong.
        """
        ...

    async def foresee(self, erasures: Sequence[Erasure], *, at: datetime) -> None:
        """Put on the list what is to be erased at `at`, unless it is struck off before; all or none."""
        ...

    async def done(self, *erasures: Erasure) -> None:
        """Strike them off: the provider has confirmed them, or there is nothing to erase."""
        ...

    async def waiting(self) -> ErasuresWaiting:
        """How many there are, of all tenants, and how many of them were tried already; `ready` ones do not wait."""
        ...

    async def put_off(self, erasure: Erasure, *, until: datetime) -> None:
        """Try it again, but not before then."""
        ...
