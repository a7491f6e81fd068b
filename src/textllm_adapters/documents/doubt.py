"""Whether text that was read can be what a person would read. Runs in the child alone.

Fonts may name their characters wrongly, or not at all: then a page shows words, and what is read of it is noise.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Final

GARBLED: Final = 0.25  # from this doubt on: a quarter of it is noise

_SAMPLE: Final = 20_000  # characters that are looked at
_FEWEST: Final = 10  # characters: less can be anything, such as a number
_FEWEST_ALONE: Final = 20  # letters: fewer are those of a list, or of a drawing
_RARE: Final = re.compile(
    r"(?<!\w)[\u0180-\u02af]{3,}(?!\w)"
)  # Latin letters behind those of Europe, and phonetic ones
_WORD: Final = re.compile(r"(?:[^\W\d_]|[\u0300-\u036f])+")  # also the accents that stand by themselves
_GLYPHS: Final = re.compile(r"(?:/[A-Za-z]{1,3}_?\d{1,5}){2,}")  # `/g3/g131/g148`: their names, not what they mean
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]")
_MOST_CONTROLS: Final = 0.05  # of its characters: a space is one where codes are shifted, every sixth
_TOKEN: Final = re.compile(r"\S+")
_NO_LETTERS: Final = frozenset({"Cc", "Cn", "Co", "Cs"})
_LONGEST_WORD: Final = 45  # the longest in dictionaries of English and German; in scripts with spaces
# These are written together, or without spaces.
_EAST_ASIA: Final = frozenset(
    {"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "HALFWIDTH", "FULLWIDTH"}
)
_UNSPACED: Final = frozenset({"EAST ASIA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"})
# Signs of other names are used in words of any script.
_ALPHABETS: Final = _EAST_ASIA | frozenset(
    {
        "LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "HEBREW", "ARABIC", "SYRIAC", "THAANA", "DEVANAGARI", "BENGALI",
        "GURMUKHI", "GUJARATI", "ORIYA", "TAMIL", "TELUGU", "KANNADA", "MALAYALAM", "SINHALA", "THAI", "LAO", "TIBETAN",
        "MYANMAR", "GEORGIAN", "ETHIOPIC", "KHMER", "MONGOLIAN", "CHEROKEE", "CANADIAN", "OGHAM", "RUNIC",
    }
)  # fmt: skip


def doubt(text: str) -> float:
    """From 0, a text like any other, to 1: nothing in it is a word."""
    sample = text[:_SAMPLE]
    letters = "".join(sample.split())
    if len(letters) < _FEWEST:
        return 0.0
    return min(
        1.0,
        max(
            _share(iter(_GLYPHS.findall(sample)), letters),
            sum(map(_is_no_letter, letters)) / len(letters),
            _share(iter(_CONTROLS.findall(letters)), letters) / _MOST_CONTROLS * GARBLED,
            _share(_of_many_scripts(sample), letters),
            _share(_run_together(sample), letters),
            _spaced_out(sample),
            _share(_of_wrong_case(sample), letters),
            _share(_of_rare_letters(sample), letters),
        ),
    )


def _share(words: Iterator[str], letters: str) -> float:
    return sum(map(len, words)) / len(letters)


@lru_cache(maxsize=4096)
def _is_no_letter(character: str) -> bool:
    return character == "\ufffd" or (unicodedata.category(character) in _NO_LETTERS and not character.isspace())


@lru_cache(maxsize=4096)
def _script(character: str) -> str | None:
    name = unicodedata.name(character, "").partition(" ")[0]
    if name in _EAST_ASIA:
        return "EAST ASIA"
    return name if name in _ALPHABETS else None


def _of_many_scripts(text: str) -> Iterator[str]:
    """Words whose letters are of several alphabets; Latin ones stand beside those of East Asia without a space."""
    for word in _WORD.findall(text):
        scripts = {script for character in word if (script := _script(character))}
        if len(scripts) > 1 and scripts != {"EAST ASIA", "LATIN"}:
            yield word


def _of_rare_letters(text: str) -> Iterator[str]:
    """Words all of whose letters are such as a language has one or two of among its others."""
    return iter(_RARE.findall(text))


def _run_together(text: str) -> Iterator[str]:
    """Words that are too long to be one."""
    for word in _WORD.findall(text):
        if len(word) > _LONGEST_WORD and _script(word[0]) not in _UNSPACED and len(set(word)) > 4:
            yield word


def _spaced_out(text: str) -> float:
    """Whether letters stand alone, as in `w o r d s`."""
    tokens = _TOKEN.findall(text)
    alone = sum(len(token) == 1 and token.isalpha() and _script(token) not in _UNSPACED for token in tokens)
    return alone / len(tokens) if alone > _FEWEST_ALONE else 0.0


def _of_wrong_case(text: str) -> Iterator[str]:
    """Words with capitals amid small letters, more often than names of things have them."""
    for word in _WORD.findall(text):
        turns = sum(a.islower() and b.isupper() for a, b in pairwise(word))
        if turns and turns * 4 > len(word):
            yield word
