"""Room for so many at a time."""

from collections.abc import Iterator
from contextlib import contextmanager

from textllm_core.errors import TextLLMError


class Places:
    """A number of places; who finds none is refused at once, and waits elsewhere.

    Args:
        refusal: the error, and the words of it.
    """

    def __init__(self, number: int, refusal: type[TextLLMError], message: str) -> None:
        self._free, self._refusal, self._message = number, refusal, message

    @contextmanager
    def taken(self) -> Iterator[None]:
        """One of them, until the block ends.

        Raises:
            TextLLMError: the refusal.
        """
        if self._free == 0:
            raise self._refusal(self._message)
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1
