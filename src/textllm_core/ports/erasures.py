"""What is still to be erased on the provider's side."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, Protocol

from msgspec import Struct

from textllm_core.events import ErasuresWaiting

ErasureKind = Literal["transcript", "reply"]


class Erasure(Struct, frozen=True, kw_only=True):
    """Something that the provider is to forget.

    Args:
        provider_id: the provider's name for it.
        attempts: how often it was tried, this time included.
    """

    tenant_id: str
    user_id: str
    id: str
    kind: ErasureKind
    provider_id: str
    attempts: int


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
