"""Text in whatever encoding it came. Runs in the child alone."""

import codecs
import re
from contextlib import suppress
from typing import Final

from charset_normalizer import from_bytes

from textllm_adapters.documents.lines import Lines
from textllm_adapters.documents.outcomes import Found, unsupported

# UTF-32's little-endian mark begins with that of UTF-16.
_BYTE_ORDER_MARKS: Final = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# What people's old files are in; without this list, a few words of Latin-1 may be taken for a Macintosh's Turkish.
_USUAL: Final = ["cp1252"]
_OTHERS: Final = [
    "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp874", "koi8_r",
    "cp932", "euc_jp", "gb18030", "big5", "cp949",
]  # fmt: skip
_NO_TEXT: Final = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")  # the escape character is at home in logs
_BEYOND_ASCII: Final = bytes(range(0x80, 0x100))
_FAULT: Final = "\N{REPLACEMENT CHARACTER}"
_RIGHT_TO_FAULT: Final = 10
_SAMPLE: Final = 64 * 1024  # bytes or characters that are looked at
_END_OF_FILE: Final = "\x1a"  # as DOS and CP/M mark it, once or up to the end of a block


def read_plain_text(content: bytes, *, max_chars: int) -> Found:
    """The text as it is."""
    lines = Lines(max_chars)
    lines.add(decode(content))
    return Found(lines.text())


def decode(content: bytes, *, declared: str | None = None) -> str:
    """Text by its byte order mark, else as declared, UTF-16 or UTF-8, else as `charset_normalizer` guesses.

    Args:
        content: all of it.
        declared: Python's name of the encoding that it says it is in; used if all of it can be in that.
    Raises:
        UnsupportedMediaTypeError: this is no text.
    """
    text = _decoded(content, declared).rstrip(_END_OF_FILE)
    if len(_NO_TEXT.findall(text, 0, _SAMPLE)) * 10 > min(len(text), _SAMPLE):
        raise unsupported("txt")
    return text


def _decoded(content: bytes, declared: str | None) -> str:
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            return content.decode(encoding, "replace")
    if declared is not None:
        with suppress(UnicodeDecodeError):
            return content.decode(declared)
    if (wide := _wide(content[:4096])) is not None:
        return content.decode(wide, "replace")
    with suppress(UnicodeDecodeError):
        return content.decode()
    if b"\0" in content:
        raise unsupported("txt")
    if (text := _damaged_utf_8(content)) is not None:
        return text
    if (guess := _guess(_sample(content))) is None:
        raise unsupported("txt")
    return content.decode(guess, "replace")


def _damaged_utf_8(content: bytes) -> str | None:
    """UTF-8 with U+FFFD for its faults, a cut end among them, if ten right characters beyond ASCII come to each.

    Text in another encoding is all faults, but for a few letters.
    """
    text = content.decode(errors="replace")
    beyond_ascii = len(text) - len(content.translate(None, _BEYOND_ASCII))
    faults = text.count(_FAULT) - content.count(_FAULT.encode())
    return text if beyond_ascii - faults >= faults * _RIGHT_TO_FAULT else None


def _wide(beginning: bytes) -> str | None:
    """UTF-16 that lacks its mark: of every two bytes one is mostly NUL, and the other never.

    A NUL or two among ASCII are no such thing: three characters in four must have one.
    """
    nulls_before, nulls_behind = beginning[::2].count(0), beginning[1::2].count(0)
    many = -(-len(beginning) * 3 // 8)
    if not beginning or len(beginning) % 2:
        return None
    if nulls_before == 0 and nulls_behind >= many:
        return "utf-16-le"
    return "utf-16-be" if nulls_behind == 0 and nulls_before >= many else None


def _guess(sample: bytes) -> str | None:
    guess = from_bytes(sample, cp_isolation=_USUAL).best() or from_bytes(sample, cp_isolation=_OTHERS).best()
    return None if guess is None else guess.encoding


def _sample(content: bytes) -> bytes:
    """Its beginning, which may name the encoding, and lines with something that is not ASCII."""
    beginning = content[:4096]
    telling = b"\n".join(line for line in content.splitlines() if not line.isascii())
    return beginning + b"\n" + telling[:_SAMPLE]
