"""Text as it is collected: cleaned, and never longer than allowed."""

import re
from typing import Final

from textllm_core.errors import DocumentTooLargeError, UnreadableDocumentError

_LINE_END: Final = re.compile(r"\r\n?|[\v\f\x85\u2028\u2029]")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]")
_NO_CHARACTER: Final = re.compile(r"[\ud800-\udfff\ufffe\uffff]")


class Lines:
    """At most `max_chars` characters of text."""

    def __init__(self, max_chars: int) -> None:
        self._max_chars = max_chars
        self._length = 0
        self._lines: list[str] = []

    def add(self, text: str) -> None:
        """Add a line, or several.

        Raises:
            DocumentTooLargeError: there is more text than allowed.
        """
        if len(text) <= 2 * self._max_chars:  # else too long however much of it were cleaned away
            text = clean(text)
        self._length += len(text) + 1
        if self._length - 1 > self._max_chars:  # the last line has no end
            raise DocumentTooLargeError(limit=self._max_chars, counts="characters")
        self._lines.append(text)

    def text(self) -> str:
        """All of it.

        Raises:
            UnreadableDocumentError: it is blank.
        """
        text = "\n".join(self._lines)
        if not text.strip():
            raise UnreadableDocumentError("empty")
        return text


def clean(text: str) -> str:
    """Every line end as `\\n`; no other control character but the tab; U+FFFD for what is no character."""
    return _NO_CHARACTER.sub("\ufffd", _CONTROL.sub("", _LINE_END.sub("\n", text)))
