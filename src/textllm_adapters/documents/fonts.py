"""A font in the place of those that a PDF does not hold. For reading, not for drawing. Runs in the child alone.

pdfium leaves out text that takes no room, and a character takes none where no font on the machine has it: on a server,
most of what is written in Chinese, Japanese or Korean by fonts of the reader's own. Here every character is a box.
"""

import ctypes
import struct
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import pypdfium2.raw as api

_EM: Final = 1000
_ASCENT: Final = 880  # of Chinese, Japanese and Korean fonts
_DESCENT: Final = -120
_CHARACTERS: Final = (0x20, 0x3FFFF)
_BOX: Final = ((100, 0), (100, 800), (900, 800), (900, 0))
_HANDLE: Final = 1  # any that is not null


@cache
def stand_in() -> None:
    """Have pdfium take the box for every font of other characters than Latin ones; those it brings with it."""
    api.FPDF_SetSystemFontInfo(_fonts())


@cache
def _fonts() -> Any:
    """What pdfium asks for fonts: kept, since it goes on asking."""
    kept = api.FPDF_SYSFONTINFO(version=1)
    font, kinds = box_font(), dict(kept._fields_)

    def map_font(_: object, _weight: int, _italic: int, charset: int, *_rest: object) -> int | None:
        return None if charset == api.FXFONT_ANSI_CHARSET else _HANDLE

    def data(_: object, _font: object, table: int, buffer: Any, size: int) -> int:
        if table:  # such as the list of a file of several fonts
            return 0
        if buffer and size >= len(font):
            ctypes.memmove(buffer, font, len(font))
        return len(font)

    answers = {
        "MapFont": map_font,
        "GetFont": lambda *_: None,
        "GetFontData": data,
        "GetFaceName": lambda *_: 0,
        "GetFontCharset": lambda *_: api.FXFONT_DEFAULT_CHARSET,
        "EnumFonts": lambda *_: None,
        "DeleteFont": lambda *_: None,
        "Release": lambda *_: None,
    }
    for name, answer in answers.items():
        setattr(kept, name, kinds[name](answer))
    return kept


def box_font() -> bytes:
    """A TrueType font, in which each character is the same box."""
    xs, ys = zip(*_BOX, strict=True)
    bounds = (min(xs), min(ys), max(xs), max(ys))
    glyph = struct.pack(">h4hHH4B", 1, *bounds, len(_BOX) - 1, 0, *[1] * len(_BOX))  # one outline, of points on it
    glyph += b"".join(struct.pack(">4h", *(b - a for a, b in zip((0, *line), line, strict=False))) for line in (xs, ys))
    first, last = _CHARACTERS
    group = struct.pack(">HHIIIIII", 13, 0, 28, 0, 1, first, last, 1)  # format 13: many characters, one glyph
    return _file(
        {
            b"cmap": struct.pack(">HHHHI", 0, 1, 3, 10, 12) + group,
            b"glyf": glyph * 2,  # also what stands for a missing one
            b"head": struct.pack(
                ">IIIIHHqq4hHHhhh", 0x10000, 0x10000, 0, 0x5F0F3CF5, 3, _EM, 0, 0, *bounds, 0, 8, 2, 1, 0
            ),
            b"hhea": struct.pack(">IhhhHhhhhhh8xhH", 0x10000, _ASCENT, _DESCENT, 0, _EM, 0, 0, 0, 1, 0, 0, 0, 2),
            b"hmtx": struct.pack(">HhHh", _EM, min(xs), _EM, min(xs)),
            b"loca": struct.pack(">III", 0, len(glyph), 2 * len(glyph)),
            b"maxp": struct.pack(">IHHH22x", 0x10000, 2, len(_BOX), 1),
        }
    )


def _file(tables: Mapping[bytes, bytes]) -> bytes:
    """A font file of tables, without sums that nobody checks."""
    start = 12 + 16 * len(tables)
    directory, contents = struct.pack(">IHHHH", 0x10000, len(tables), 0, 0, 0), b""
    for name, table in sorted(tables.items()):
        directory += struct.pack(">4sIII", name, 0, start + len(contents), len(table))
        contents += table + bytes(-len(table) % 4)
    return directory + contents
