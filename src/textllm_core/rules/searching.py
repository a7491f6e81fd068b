"""What words a text has, and which of them are looked for: the same for every store, whatever its own index takes."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from textllm_core.errors import InvalidRequestError

MAX_QUERY_CHARS: Final = 1000
MAX_CHARS: Final = 50_000  # of a message; PostgreSQL takes no more than a megabyte of words and their places
# A run of letters and digits; of Chinese, Japanese and Korean, which have no spaces, each character.
_EASTERN: Final = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_WORD: Final = re.compile(rf"[{_EASTERN}]|[^\W_{_EASTERN}]+")
_PHRASE: Final = re.compile(r'"([^"]*)"?|([^\s"]+)')


def words_of(text: str) -> Sequence[str]:
    """The words of a text, in their order: without case, and letters without their accents."""
    plain = unicodedata.normalize("NFKD", text[:MAX_CHARS].casefold())
    return _WORD.findall("".join(character for character in plain if not unicodedata.combining(character)))


def phrases_of(query: str) -> Sequence[Sequence[str]]:
    """What a query looks for: each of its words, and what is in quotes as words that follow each other.

    Raises:
        InvalidRequestError: it has no word, or is too long.
    """
    if len(query) > MAX_QUERY_CHARS:
        raise InvalidRequestError.of("search", f"must have at most {MAX_QUERY_CHARS} characters")
    phrases = [words_of(quoted or plain) for quoted, plain in _PHRASE.findall(query)]
    if not any(phrases):
        raise InvalidRequestError.of("search", "must have a word to look for")
    return [phrase for phrase in phrases if phrase]


def has_phrase(words: Sequence[str], phrase: Sequence[str]) -> bool:
    """Whether the words of a phrase follow each other somewhere among the words."""
    length = len(phrase)
    return any(words[start : start + length] == phrase for start in range(len(words) - length + 1))
