"""A line before a few places, in which nobody's many stand before another's first."""

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from textllm_core.errors import ServiceUnavailableError
from textllm_core.tenancy import Owner


@dataclass(slots=True, eq=False)
class _Guest:
    owner: Owner
    has_place: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def parties(self) -> tuple[Hashable, Hashable]:
        """Whom its place is counted for: a tenant, who may name a new user each time, and the user."""
        return self.owner.tenant_id, self.owner


class WaitingLine:
    """A free place goes to the tenant with the fewest, then to its user with the fewest; among equals, to whoever's
    last turn is longest ago, then to whoever came first.

    A user never has the last place: all others would wait for as long as one stranger's document can be made to take.
    A tenant may have it, as most services have only one.

    Args:
        places: how many there are; a user has one less, or the only one.
        max_waiting: how many may wait; half of them of one tenant, and an eighth of one user.
        patience_s: for how long each of them may.
    """

    def __init__(self, *, places: int, max_waiting: int, patience_s: float) -> None:
        self._places, self._patience_s = places, patience_s
        self._places_of_user = max(1, places - 1)
        self._max_waiting = max_waiting
        self._waiting: list[_Guest] = []
        self._inside: list[_Guest] = []
        self._turns = 0
        self._last_turns: dict[Hashable, int] = {}  # of those who are here

    @asynccontextmanager
    async def place(self, owner: Owner) -> AsyncIterator[None]:
        """One of the places, until the block ends.

        Raises:
            ServiceUnavailableError: too many wait, or it waited for too long.
        """
        guest = _Guest(owner)
        self._waiting.append(guest)
        try:  # whatever ends it, and whenever: it stands in one of the two lists, and leaves it
            self._give_places()
            await self._wait(guest)
            yield
        finally:
            (self._inside if guest.has_place.is_set() else self._waiting).remove(guest)
            here = {party for other in (*self._inside, *self._waiting) for party in other.parties}
            self._last_turns = {party: turn for party, turn in self._last_turns.items() if party in here}
            self._give_places()

    def _give_places(self) -> None:
        while len(self._inside) < self._places:
            allowed = [guest for guest in self._waiting if self._count_inside(guest.owner) < self._places_of_user]
            if not allowed:
                return
            guest = min(allowed, key=self._rank)  # the first of equals
            self._waiting.remove(guest)
            self._inside.append(guest)
            self._turns += 1
            self._last_turns |= dict.fromkeys(guest.parties, self._turns)
            guest.has_place.set()

    def _rank(self, guest: _Guest) -> list[tuple[int, int]]:
        return [(self._count_inside(party), self._last_turns.get(party, 0)) for party in guest.parties]

    def _count_inside(self, party: Hashable) -> int:
        return sum(party in guest.parties for guest in self._inside)

    async def _wait(self, guest: _Guest) -> None:
        if guest.has_place.is_set():
            return
        for party, share, whose in zip(guest.parties, (2, 8), ("tenant", "user"), strict=True):
            if sum(party in other.parties for other in self._waiting) > self._max_waiting // share:
                raise ServiceUnavailableError(
                    f"As many documents of this {whose} wait to be read as may; "
                    "send this one again once one of them is answered."
                )
        busy = ServiceUnavailableError("Too many documents are being read; send this one again later.")
        if len(self._waiting) > self._max_waiting:
            raise busy
        try:
            async with asyncio.timeout(self._patience_s):
                await guest.has_place.wait()
        except TimeoutError:
            raise busy from None
