"""EUC-TW (CNS 11643), which neither Python nor chardet knows, by the C library. Runs in the child alone."""

import ctypes
import re
from typing import Final

_NAME: Final = b"EUC-TW"
_SAMPLE: Final = 64 * 1024  # bytes that are looked at
_FEWEST: Final = 10  # characters
_BEYOND_ASCII: Final = re.compile(rb"[\x80-\xff]+")
_PAIRS: Final = re.compile(rb"(?:[\xa1-\xfe\x8e][\xa1-\xfe])+")
_USUAL: Final = range(0xC4, 0xFE)  # the first bytes of the characters of its first plane
_USUAL_ELSEWHERE: Final = range(0xA7, 0xC2)  # where EUC-TW has none, and half the text in GB2312, Big5 and EUC-KR is
_MOST_UNUSUAL: Final = 0.05
_MOST_BYTES_FOR_ONE: Final = 2  # in UTF-8, for each byte: four for a pair, or for a pair of pairs
_FAILED: Final = (ctypes.c_void_p(-1).value, ctypes.c_size_t(-1).value)


def is_euc_tw(content: bytes) -> bool:
    """Whether all that is beyond ASCII comes in pairs of bytes, and in those that are usual in EUC-TW alone."""
    runs = _BEYOND_ASCII.findall(content, 0, _SAMPLE)
    if not all(map(_PAIRS.fullmatch, runs[:-1])):  # the last may be cut off
        return False
    firsts = b"".join(runs)[::2]
    elsewhere = sum(first in _USUAL_ELSEWHERE for first in firsts)
    usual = sum(first in _USUAL for first in firsts)
    return len(firsts) >= _FEWEST and elsewhere <= len(firsts) * _MOST_UNUSUAL and usual * 2 > len(firsts)


def by_iconv(content: bytes) -> str | None:
    """Its text; None where it is none in EUC-TW, or the C library has no table of it."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "iconv_open"):
        return None
    library.iconv_open.restype, library.iconv.restype = ctypes.c_void_p, ctypes.c_size_t
    table = library.iconv_open(b"UTF-8", _NAME)
    if table == _FAILED[0]:
        return None
    room = len(content) * _MOST_BYTES_FOR_ONE
    source, target = ctypes.create_string_buffer(content, len(content)), ctypes.create_string_buffer(room)
    of_source, of_target = ctypes.c_char_p(ctypes.addressof(source)), ctypes.c_char_p(ctypes.addressof(target))
    source_left, target_left = ctypes.c_size_t(len(content)), ctypes.c_size_t(room)
    done = library.iconv(
        ctypes.c_void_p(table),
        ctypes.byref(of_source),
        ctypes.byref(source_left),
        ctypes.byref(of_target),
        ctypes.byref(target_left),
    )
    return None if done == _FAILED[1] else target.raw[: room - target_left.value].decode()
