"""Text as models and clients send it: cut anywhere, also in the middle of a character."""

from collections.abc import Sequence
from typing import Final

from textllm_core.errors import InvalidRequestError

_MOST_LISTED: Final = 20  # names that a message lists


def well_formed(text: str) -> str:
    """The text with its surrogate pairs joined, and U+FFFD for each surrogate that has no partner.

    Models cut their replies anywhere, also between the halves of a pair.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


class WholeCharacters:
    """Pieces of a text, as a model cuts them, made into pieces that each consist of whole characters."""

    __slots__ = ("_half",)

    def __init__(self) -> None:
        self._half = ""

    def take(self, piece: str) -> str:
        """What is whole of the text by now; the first half of a character waits for the second."""
        text, self._half = self._half + piece, ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return well_formed(text)

    def encoded(self, piece: str) -> bytes:
        """The same in UTF-8."""
        if not self._half:
            try:
                return piece.encode()
            except UnicodeEncodeError:
                pass
        return self.take(piece).encode()

    def rest(self) -> str:
        """What is left when no more comes."""
        half, self._half = self._half, ""
        return well_formed(half)


def refuse_half_characters(**fields: str | None) -> None:
    """
    Raises:
        InvalidRequestError: a field has half of a surrogate pair, which nobody can store or send.
    """
    for field, text in fields.items():
        if text is not None and text != well_formed(text):
            raise InvalidRequestError.of(field, "has half of a surrogate pair, which is no character")


def listing(names: Sequence[str]) -> str:
    """The first of the names with commas between them, and how many more there are."""
    more = len(names) - _MOST_LISTED
    return ", ".join(names[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
