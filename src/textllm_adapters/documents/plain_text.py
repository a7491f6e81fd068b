"""Text in whatever encoding it came. Runs in the child alone."""

import codecs
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from chardet import DetectionDict, detect, detect_all

from textllm_adapters.documents.lines import Lines
from textllm_adapters.documents.outcomes import Found, unsupported
from textllm_adapters.documents.taiwan import by_iconv, is_euc_tw

# UTF-32's little-endian mark begins with that of UTF-16.
_BYTE_ORDER_MARKS: Final = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# What programs have long read files of these names as, with some more characters; by chardet's names.
_GROWN: Final = {"GB2312": "gb18030", "SHIFT_JIS": "cp932", "EUC-KR": "cp949", "TIS-620": "cp874"}
_WESTERN: Final = "cp1252"
# In a short text, these are seldom what they seem to be.
_COMMON: Final = re.compile(r"windows-|iso-?8859|koi8|utf|gb|big5|euc|cp9|shift|johab|iso-?2022|hz", re.IGNORECASE)
_EAST_ASIAN: Final = re.compile(r"gb|big5|euc|cp949|johab", re.IGNORECASE)
_USUAL_LETTERS: Final = frozenset(
    "ÄÖÜäöüßàâçéèêëîïôùûœÀÂÇÉÈÊËÎÏÔÙÛáíóúñÁÍÓÚÑ¿¡ãõÃÕåøæÅØÆìòÌÒ“”‘’„‚«»‹›–—…•€£§©®™°·²³¼½¾´µ×¤\xa0"
)
_MOST_USUAL: Final = 0.3  # of its bytes: text of Latin letters has no more others
# Of snippets of labelled files, of 60 to 1000 bytes, a third below it were read wrongly, and one in a hundred above.
_SURE: Final = 0.1
# The right one of 2,160 labelled files is nearly always among those; one text in twenty-five has others among them.
_AS_LIKELY: Final = 0.98
_CONTROLS: Final = re.compile(r"[\x80-\x9f]")  # in no text: that is where other encodings have letters and quotes
# What begins text that is ASCII by its bytes and says otherwise: ISO-2022-JP, -KR, -CN, and HZ.
_SHIFTED: Final = re.compile(rb"\x1b\$[@B()]|\x1b\([BJI]|~\{")
_ESCAPED: Final = ("iso-2022", "iso2022", "hz")
_LONE_ACCENT: Final = re.compile(r"[^\W\d_][\u00a8\u00af\u00b8\u02c7\u02d8-\u02dd][^\W\d_]")  # amid a word
_NO_TEXT: Final = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")  # the escape character is at home in logs
_BEYOND_ASCII: Final = bytes(range(0x80, 0x100))
_FAULT: Final = "\N{REPLACEMENT CHARACTER}"
_RIGHT_TO_FAULT: Final = 10
_SAMPLE: Final = 64 * 1024  # bytes or characters that are looked at
_LOOKED_AT: Final = 200_000  # bytes, by chardet
_LONG_ENOUGH: Final = 32  # bytes
_ALIKE: Final = 0.5  # of UTF-16 in 12 scripts, no snippet of 16 characters and more passes it; nine in ten others do
_DAMAGED: Final = ("some characters could not be read",)
_UNSURE: Final = "the encoding of the text is not sure; it was read as"
_END_OF_FILE: Final = "\x1a"  # as DOS and CP/M mark it, once or up to the end of a block


class Decoded(NamedTuple):
    """A text, and what may be wrong in it."""

    text: str
    warnings: tuple[str, ...] = ()


def read_plain_text(content: bytes, *, max_chars: int) -> Found:
    """The text as it is."""
    lines = Lines(max_chars)
    text, warnings = decode(content)
    lines.add(text)
    return Found(lines.text(), warnings=warnings)


def decode(content: bytes, *, declared: str | None = None) -> Decoded:
    """Text by its byte order mark, else as declared, UTF-16 or UTF-8, else as `chardet` guesses.

    Args:
        content: all of it.
        declared: Python's name of the encoding that it says it is in; used if all of it can be in that.
    Raises:
        UnsupportedMediaTypeError: this is no text.
    """
    text, warnings = _decoded(content, declared)
    text = text.rstrip(_END_OF_FILE)
    if len(_NO_TEXT.findall(text, 0, _SAMPLE)) * 10 > min(len(text), _SAMPLE):
        raise unsupported("txt")
    return Decoded(text, warnings)


def _decoded(content: bytes, declared: str | None) -> Decoded:
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            return _replaced(content, encoding)
    if declared is not None:
        with suppress(UnicodeDecodeError):
            return Decoded(content.decode(declared))
    if (wide := _wide(content)) is not None:
        return _replaced(content, wide)
    if (b"\x1b" in content or b"~{" in content) and content.isascii() and _SHIFTED.search(content):
        encoding = str(detect(content)["encoding"]).lower()
        with suppress(UnicodeDecodeError, LookupError):
            if encoding.startswith(_ESCAPED):
                return Decoded(content.decode(encoding))
    with suppress(UnicodeDecodeError):
        return Decoded(content.decode())
    if b"\0" in content:
        raise unsupported("txt")
    if (text := _damaged_utf_8(content)) is not None:
        return Decoded(text, _DAMAGED)
    return _guessed(content.rstrip(_END_OF_FILE.encode()))


def _replaced(content: bytes, encoding: str) -> Decoded:
    """The text with U+FFFD for what is none in that encoding."""
    text = content.decode(encoding, "replace")
    return Decoded(text, _DAMAGED if _FAULT in text else ())


def _damaged_utf_8(content: bytes) -> str | None:
    """UTF-8 with U+FFFD for its faults, a cut end among them, if ten right characters beyond ASCII come to each.

    Text in another encoding is all faults, but for a few letters.
    """
    text = content.decode(errors="replace")
    beyond_ascii = len(text) - len(content.translate(None, _BEYOND_ASCII))
    faults = text.count(_FAULT) - content.count(_FAULT.encode())
    return text if beyond_ascii - faults >= faults * _RIGHT_TO_FAULT else None


def _wide(content: bytes) -> str | None:
    """UTF-16 or UTF-32 that lacks its mark.

    Of every two bytes one is mostly NUL, and the other never: a NUL or two among ASCII are no such thing, three
    characters in four must have one. Other scripts have fewer, and must be long enough for `chardet` to tell; it is
    believed where first and second bytes are of different kinds, as they are in every script.
    """
    beginning = content[:4096]
    if len(beginning) % 2 or b"\0" not in beginning:
        return None
    for encoding, *places in (("utf-32-le", 3, 2, 0), ("utf-32-be", 0, 1, 3)):
        highest, plane, lowest = (beginning[place::4] for place in places)
        if len(beginning) % 4 == 0 and not any(highest) and 0 not in lowest and plane.count(0) * 2 >= len(plane):
            return encoding
    nulls_before, nulls_behind = beginning[::2].count(0), beginning[1::2].count(0)
    many = -(-len(beginning) * 3 // 8)
    if nulls_before == 0 and nulls_behind >= many:
        return "utf-16-le"
    if nulls_behind == 0 and nulls_before >= many:
        return "utf-16-be"
    if len(content) < _LONG_ENOUGH or _overlap(beginning[::2], beginning[1::2]) > _ALIKE:
        return None
    guess = str(detect(content)["encoding"]).lower()
    return guess if guess.startswith(("utf-16", "utf-32")) else None


def _overlap(some: bytes, others: bytes) -> float:
    """How much of them is of the same kind, by the upper halves of the bytes: from 0 to 1."""
    kinds, other_kinds = (Counter(byte >> 4 for byte in each) for each in (some, others))
    return (kinds & other_kinds).total() / len(some)


def _guessed(content: bytes) -> Decoded:
    sample = content if len(content) <= _LOOKED_AT else _sample(content)
    guesses = [guess for guess in detect_all(sample) if guess["encoding"] is not None]
    if not guesses:
        raise unsupported("txt")
    if _EAST_ASIAN.match(str(guesses[0]["encoding"])) and is_euc_tw(content):
        if (text := by_iconv(content)) is None:
            raise unsupported("txt")
        return Decoded(text)
    try:
        likely = _likely(sample, guesses)
        encoding, is_known = likely[0], guesses[0]["confidence"] >= _SURE
        if not is_known and not _COMMON.match(encoding) and _is_western(content):
            encoding = _WESTERN
        text, warnings = _replaced(content, encoding)
    except LookupError:  # Python does not know it
        raise unsupported("txt") from None
    is_sure = is_known and likely == [_grown(guesses[0])] and not _LONE_ACCENT.search(text)
    return Decoded(text, warnings if is_sure else (f"{_UNSURE} {encoding.lower()}", *warnings))


def _likely(sample: bytes, guesses: Sequence[DetectionDict]) -> list[str]:
    """The likeliest encoding, and others in common use that are about as likely and make another text of it."""
    found: dict[str, str] = {}
    for guess in guesses:
        encoding = _grown(guess)
        is_likely = guess["confidence"] >= guesses[0]["confidence"] * _AS_LIKELY
        if is_likely and (not found or _COMMON.match(encoding)):
            text = sample.decode(encoding, "replace")
            if not _CONTROLS.search(text):
                found.setdefault(text, encoding)
    return list(found.values()) or [_grown(guesses[0])]


def _grown(guess: DetectionDict) -> str:
    name = str(guess["encoding"])
    return _GROWN.get(name.upper(), name)


def _is_western(content: bytes) -> bool:
    beyond_ascii = [character for character in content.decode(_WESTERN, "replace") if not character.isascii()]
    return len(beyond_ascii) < len(content) * _MOST_USUAL and _USUAL_LETTERS.issuperset(beyond_ascii)


def _sample(content: bytes) -> bytes:
    """Its beginning, which may name the encoding, and lines with something that is not ASCII."""
    beginning = content[:4096]
    telling = b"\n".join(line for line in content.splitlines() if not line.isascii())
    return beginning + b"\n" + telling[:_SAMPLE]
