"""How much text the pages of a PDF show, by the strings in them. Runs in the child alone.

Text is shown by strings, and a character takes at least a byte of one; counting them takes a small part of the time
that extracting the text would.
"""

import re
from collections import Counter
from collections.abc import Mapping
from time import process_time
from typing import Final
from urllib.parse import unquote_to_bytes

from msgspec import Struct
from pypdf import PdfReader
from pypdf.errors import LimitReachedError
from pypdf.filters import decode_stream_data
from pypdf.generic import ArrayObject, DictionaryObject, EncodedStreamObject, IndirectObject, StreamObject

_ENDS_AFTER_S: Final = 5.0  # of the child's processor time; the rest is for the stream in hand
_MOST: Final = 10**12  # forms within forms show more than any number can say

# Each of them looks at a byte a bounded number of times. A flat string is one match; one with escapes or parentheses
# in it is followed to its end; what is no string after all is counted rather than missed.
_OUTSIDE: Final = re.compile(rb"\([^()\\]*\)|\(|<<|<[^<>(]*")
_INSIDE: Final = re.compile(rb"\\[0-7]{1,3}|\\.|[()]", re.DOTALL)
_INLINE_IMAGE: Final = re.compile(rb"\bBI\s*/(?:(?!\bBI\b)[^()])*?\sID\s")
_END_OF_IMAGE: Final = re.compile(rb"\sEI\b")
_SHOWN: Final = re.compile(rb"/([^\0\s/()<>\[\]{}%]++)[\0\s]++Do\b")


class Strings(Struct, frozen=True):
    """What one content stream shows: `size` bytes of strings, and forms, each so many times by its name.

    `is_whole`: nothing may have been missed.
    """

    size: int = 0
    is_whole: bool = False
    forms: Mapping[str, int] = {}


class TextSize(Struct, frozen=True):
    """Bytes of text in a PDF; `is_whole` where all of it could be counted."""

    size: int
    is_whole: bool


def strings_of(content: bytes) -> Strings:
    """The strings of a content stream: `(of text \\) and (nesting))` and `<6F6620686578>`."""
    content, has_images = _without_images(content)
    size = position = 0
    is_whole = not has_images
    while found := _OUTSIDE.search(content, position):
        token, position = found[0], found.end()
        if token == b"(":
            length, position = _inside(content, position)
            size += length
            is_whole = is_whole and position <= len(content)
        elif token.startswith(b"("):
            size += len(token) - 2
        elif token != b"<<":
            size += len(token) // 2
            is_whole = is_whole and position < len(content)  # else it goes on in the next stream
    names = Counter(_SHOWN.findall(content))
    forms = {unquote_to_bytes(b"/" + name.replace(b"#", b"%")).decode("latin-1"): names[name] for name in names}
    return Strings(size, is_whole, forms)


def _inside(content: bytes, start: int) -> tuple[int, int]:
    """The length of the string that begins there, and where it is over: behind the end of a stream that it outlasts."""
    depth, escapes = 1, 0
    for found in _INSIDE.finditer(content, start):
        token = found[0]
        if token == b"(":
            depth += 1
        elif token == b")":
            depth -= 1
        else:
            escapes += len(token) - 1
        if not depth:
            return found.start() - start - escapes, found.end()
    return len(content) - start - escapes, len(content) + 1


def _without_images(content: bytes) -> tuple[bytes, bool]:
    """The content without images written into it, and whether there are any: what looks like one may be none."""
    kept, position = [], 0
    while begun := _INLINE_IMAGE.search(content, position):
        ended = _END_OF_IMAGE.search(content, begun.end() - 1)
        if ended is None:
            break
        kept.append(content[position : begun.start()])
        position = ended.end()
    return b" ".join([*kept, content[position:]]), position > 0


def text_size(reader: PdfReader) -> TextSize:
    """The text of all pages, with the forms that they show, as often as they do, and their annotations.

    What does not decode, or is not reached in time, is missing.
    """
    count = TextCount()
    size = 0
    for page in reader.pages:
        try:
            size += count.page(page)
        except Exception:  # noqa: BLE001 - what a parser raises on a broken page is not foreseeable
            count.is_whole = False
        if process_time() > _ENDS_AFTER_S:
            count.is_whole = False
            break
    return TextSize(min(size, _MOST), count.is_whole)


class TextCount:
    """Counts text; each stream is decoded once, however many pages show it."""

    def __init__(self) -> None:
        self.is_whole = True
        self.is_broken = False  # a stream did not decode
        self._strings: dict[IndirectObject | None, Strings] = {}
        self._forms: dict[IndirectObject | None, int] = {}

    def page(self, page: DictionaryObject) -> int:
        contents, resources = _entry(page, "/Contents"), _entry(page, "/Resources")
        streams = [part.get_object() for part in contents] if isinstance(contents, ArrayObject) else [contents]
        size = sum(self._shown(stream, resources) for stream in streams)
        annotations = _entry(page, "/Annots")
        for annotation in annotations if isinstance(annotations, ArrayObject) else ():
            size += self._form(_entry(_entry(annotation.get_object(), "/AP"), "/N"), resources)
        return size

    def _shown(self, stream: object, resources: object) -> int:
        """What a stream shows, its forms too."""
        if not isinstance(stream, StreamObject):
            return 0
        reference = stream.indirect_reference
        if reference not in self._strings:
            self._strings[reference] = self._read(stream)
        strings = self._strings[reference]
        self.is_whole = self.is_whole and strings.is_whole
        size, forms = strings.size, _entry(resources, "/XObject")
        for name, times in strings.forms.items():
            form = _entry(forms, name)
            self.is_whole = self.is_whole and isinstance(form, StreamObject)
            size += times * self._form(form, resources)
        return size

    def _form(self, form: object, resources: object) -> int:
        if not isinstance(form, StreamObject) or _entry(form, "/Subtype") == "/Image":
            return 0
        reference = form.indirect_reference
        if reference not in self._forms:
            self._forms[reference] = 0  # where it shows itself
            self._forms[reference] = min(self._shown(form, _entry(form, "/Resources") or resources), _MOST)
        return self._forms[reference]

    def _read(self, stream: StreamObject) -> Strings:
        if process_time() > _ENDS_AFTER_S:
            return Strings()
        try:
            # Not by the stream itself, which would keep what it decodes.
            is_packed = isinstance(stream, EncodedStreamObject)
            content = decode_stream_data(stream) if is_packed else stream.get_data()
        except LimitReachedError:
            return Strings()
        except Exception:  # noqa: BLE001 - as above
            content = b""
        if is_packed and not content:  # also what comes of a stream in which nothing can be made out
            self.is_broken = True
            return Strings()
        return strings_of(content)


def _entry(holder: object, key: str) -> object:
    """What a dictionary has there, wherever it stands; None where it is none."""
    return holder[key] if isinstance(holder, DictionaryObject) and key in holder else None
