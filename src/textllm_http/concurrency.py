"""How much is done at a time."""

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final

from textllm_core.errors import TextLLMError

_NO_SHARES: Final[Mapping[Hashable, int]] = MappingProxyType({})


class ConcurrencyLimit:
    """So many at a time; who comes beyond that is refused at once, and waits elsewhere.

    Args:
        refusal: the error, and the words of it.
    """

    def __init__(self, number: int, refusal: type[TextLLMError], message: str) -> None:
        self._number, self._refusal, self._message = number, refusal, message
        self._total, self._taken = 0, Counter[Hashable]()

    @contextmanager
    def taken(self, shares: Mapping[Hashable, int] = _NO_SHARES) -> Iterator[None]:
        """One of them, until the block ends.

        Args:
            shares: by whom it is taken, and how many each of these may have at a time.
        Raises:
            TextLLMError: the refusal.
        """
        if self._total >= self._number or any(self._taken[who] >= most for who, most in shares.items()):
            raise self._refusal(self._message)
        self._total += 1
        self._taken.update(shares.keys())
        try:
            yield
        finally:
            self._total -= 1
            self._taken -= Counter(shares.keys())  # which drops who has none left
