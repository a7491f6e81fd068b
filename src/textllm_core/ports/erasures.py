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

    async def done(self, erasure: Erasure) -> None:
        """Strike it off: the provider has confirmed it."""
        ...

    async def waiting(self) -> ErasuresWaiting:
        """How many there are, of all tenants, and how many of them were tried already."""
        ...

    async def put_off(self, erasure: Erasure, *, until: datetime) -> None:
        """Try it again, but not before then."""
        ...
