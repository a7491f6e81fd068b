"""Addresses that bring keys which nobody has: a flood of them is refused without a question to the database."""

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from math import ceil
from time import monotonic
from typing import Final

from textllm_core.errors import UnknownKeysError

PER_MINUTE: Final = 30  # a person who tries keys needs few, and a client with a wrong one learns 401 from the first
_EACH_S: Final = 60 / PER_MINUTE  # how long a look-up is counted
_MOST_ADDRESSES: Final = 10_000  # a megabyte or two; the one that was quiet for longest is forgotten
_MOST_KNOWN: Final = 10_000
_NETWORK_BITS: Final = 64  # of IPv6, where one customer has so many addresses


class UnknownKeyLimit:
    """How many unknown keys each address may still have looked up, in this process.

    A key that was in force once is looked up from anywhere, whatever its neighbours do.

    Args:
        now: seconds of a clock that only goes forward.
    """

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._even_at: OrderedDict[str, float] = OrderedDict()  # when an address has all its tries back
        self._known: OrderedDict[bytes, None] = OrderedDict()

    def admit(self, address: str, digest: bytes) -> None:
        """Count a key that is about to be looked up.

        Raises:
            UnknownKeysError: the address has no tries left.
        """
        if digest in self._known:
            return
        now, place = self._now(), network_of(address)
        even_at = max(now, self._even_at.pop(place, now)) + _EACH_S
        if (wait := even_at - now - 60) > 0:
            self._even_at[place] = even_at - _EACH_S
            raise UnknownKeysError(retry_after_s=ceil(wait))
        self._even_at[place] = even_at
        if len(self._even_at) > _MOST_ADDRESSES:
            self._even_at.popitem(last=False)

    def know(self, address: str, digest: bytes) -> None:
        """The key is in force: it costs its address nothing."""
        if digest in self._known:
            self._known.move_to_end(digest)
            return
        self._known[digest] = None
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        if (place := network_of(address)) in self._even_at:
            self._even_at[place] -= _EACH_S

    def forget(self, digest: bytes) -> None:
        """The key is in force no more: from now on it is as unknown as any."""
        self._known.pop(digest, None)


@lru_cache(maxsize=4096)  # the same ask again and again, and taking one apart costs what routing does
def network_of(address: str) -> str:
    """Where somebody comes from: the address; of IPv6 its network, as one customer has all addresses of that."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # a socket of the same machine has none
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((parsed, _NETWORK_BITS), strict=False).network_address)
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)
