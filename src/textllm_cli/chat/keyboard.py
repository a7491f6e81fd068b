"""What is typed, wherever it comes from."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol


class Interrupted(Exception):  # noqa: N818  # not a failure: Ctrl-C at the prompt
    """Ctrl-C instead of a line."""


class Keyboard(Protocol):
    """Lines, and Ctrl-C while there is a reply to interrupt."""

    async def line(self, prompt: str, *, draft: str = "") -> str:
        """The next line, without its end; it may be of several lines.

        Args:
            draft: stands at the prompt already, to be changed or sent.
        Raises:
            EOFError: there is no further line.
            Interrupted: Ctrl-C was pressed instead.
        """
        ...

    def interrupting(self, act: Callable[[], object], *, holds_back: bool = False) -> AbstractContextManager[None]:
        """Ctrl-C calls `act` while the block runs.

        Args:
            holds_back: what a person types meanwhile stands at the next prompt, and is not sent, whatever it is: a turn
                costs money, and should be meant.
        """
        ...

    def tell(self, show: Callable[[], None]) -> None:
        """Have `show` print lines, also while somebody types."""
        ...


class Page(Protocol):
    """Where a reply is written while it comes."""

    def begin(self) -> None:
        """The model was asked; nothing has come yet."""
        ...

    def delta(self, text: str) -> None:
        """The next piece of the reply."""
        ...

    def end(self) -> None:
        """No more will come; what is printed next begins a line. Once it is called, nothing more is written."""
        ...
