"""Text and pages of PDF files: by pdfium, and by pypdf where that reads a page better. Runs in the child alone.

Of the public test files of pdf.js, pdfminer.six, pdfplumber and pypdf each of the two reads some wrongly that the other
reads well; `benchmarks/readers.py` measures both.
"""

import re
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import pairwise
from time import process_time
from typing import Final

from pypdf import PageObject, PdfReader
from pypdf.errors import LimitReachedError
from pypdfium2 import PdfiumError

from textllm_adapters.documents.crashes import CrashedPages
from textllm_adapters.documents.doubt import GARBLED, doubt
from textllm_adapters.documents.lines import Lines
from textllm_adapters.documents.misread import letters_of_names, without_codes
from textllm_adapters.documents.outcomes import Found
from textllm_adapters.documents.pdf_text import TextCount, text_size
from textllm_adapters.documents.pdfium import PdfiumDocument
from textllm_adapters.documents.processor_time import TookTooLongError, within
from textllm_core.errors import DocumentTooLargeError, UnreadableDocumentError

_OBJECT: Final = re.compile(rb"(?<![0-9])([0-9]{1,7})[ \t\r\n]+[0-9]{1,5}[ \t\r\n]+obj\b")
# Says of no object where it is, so that all are looked for; and among how many the one is that names the pages.
_NEW_END: Final = b"\ntrailer\n<< /Size %d >>\nstartxref\n0\n%%%%EOF\n"
_OPENING_S: Final = 4.0  # of the child's processor time for pypdf; pdfium opens in the rest what is too much for it
_SECOND_OPINIONS_S: Final = 4.0  # of the child's processor time; the rest is for pages that nobody doubts
_BYTES_OF_CHARACTER: Final = 2  # as most fonts of many characters have them
_MOST_LOST: Final = 0.5  # of characters that the page shows
_MUCH_OUTSIDE: Final = 0.3  # of those that are read
_CLEARLY: Final = 1.1
_HIDDEN: Final = 2  # of the flags of an annotation
_RANGES_NAMED: Final = 10  # in a warning


def measure_pdf(content: bytes, *, max_pages: int) -> Found:
    """The number of its pages, and how much text they show; that is not counted where pdfium alone can open it."""
    try:
        reader, _ = _open(content, max_pages)
        text = text_size(reader)
        return Found(pages=len(reader.pages), text_bytes=text.size, is_text_counted=text.is_whole)
    except DocumentTooLargeError:
        raise
    except Exception:  # what a parser raises on a broken file is not foreseeable
        document = _by_pdfium(content)
        if document is None:
            raise
        return Found(pages=_allowed(len(document), max_pages))


def read_pdf(content: bytes, *, max_chars: int, max_pages: int, crashed: CrashedPages | None = None) -> Found:
    """Its text, with the line `[page 3]` before that of the third page; pdfium is spared pages that it crashes on."""
    pages = _Pages(content, max_pages, crashed or CrashedPages())
    lines, has_text = Lines(max_chars), False
    lost, garbled = [], []
    for number in range(1, len(pages) + 1):
        lines.add(f"[page {number}]")
        text = pages.text(number - 1)
        if text is None:
            lost.append(number)
            lines.add(f"[page {number} could not be read]")
            continue
        has_text = has_text or text != ""
        lines.add(text)
        if pages.is_garbled(text, number - 1):
            garbled.append(number)
    if not has_text:
        raise UnreadableDocumentError("damaged" if lost or pages.is_mended else "empty")
    faults = ((lost, "could not be read"), (garbled, "may be garbled"))
    warnings = tuple(f"{_named(numbers)} {what}" for numbers, what in faults if numbers)
    return Found(lines.text(), pages=len(pages), warnings=warnings)


class _Pages:
    """The pages of a file, read by whichever of the two can.

    Raises:
        UnreadableDocumentError: neither can open it, or it has no pages.
        DocumentTooLargeError: it has too many of them.
    """

    def __init__(self, content: bytes, max_pages: int, crashed: CrashedPages) -> None:
        self._content, self._max_pages, self._crashed = content, max_pages, crashed
        self._reader: PdfReader | None = None
        self._count: TextCount | None = None
        self._raw: set[int] = set()
        self._outside: dict[int, int] = {}
        self.is_mended = False
        self._pdfium = None if crashed.is_hopeless else _by_pdfium(content)
        if self._pdfium is None:
            self._reader, self.is_mended = _open(content, max_pages)
        else:
            _allowed(len(self._pdfium), max_pages)
            self._ask_another()

    def __len__(self) -> int:
        return len(self._reader.pages) if self._pdfium is None and self._reader else len(self._pdfium or ())

    def _ask_another(self) -> None:
        try:
            reader, self.is_mended = _open(self._content, self._max_pages)
            if len(reader.pages) == len(self):
                self._reader = reader
        except Exception:  # noqa: BLE001 - as above
            self._reader = None

    def text(self, index: int) -> str | None:
        """What a page says; None where neither can tell."""
        if self._pdfium is None:
            return self._by_pypdf(index)
        if index in self._crashed.pages:
            return self._by_pypdf(index) or None
        self._crashed.begin(index)
        try:
            text, is_raw, self._outside[index] = self._pdfium.text(index)
        except PdfiumError:
            return self._by_pypdf(index)
        if is_raw:
            self._raw.add(index)
        if process_time() < _SECOND_OPINIONS_S and (self.is_garbled(text, index) or not (text or self._outside[index])):
            second = letters_of_names(self._by_pypdf(index) or "")
            if _is_better(second, text, is_raw=is_raw):
                self._raw.discard(index)
                return without_codes(second)
            if not text and self._count is not None and self._count.is_broken:
                return None
        return text

    def is_garbled(self, text: str, index: int) -> bool:
        """Whether this is not what the page shows, as far as can be told."""
        return index in self._raw or doubt(text) >= GARBLED or self._lacks(text, index)

    def _lacks(self, text: str, index: int) -> bool:
        """Whether the text is much shorter than what the page shows; never once time is short."""
        if self._reader is None or process_time() > _SECOND_OPINIONS_S:
            return False
        outside = self._outside.get(index, 0)
        if outside > len(text) * _MUCH_OUTSIDE:  # what is printed several times, which pdfium leaves out in part itself
            return False
        return len(text) + outside < self._shown(index) * _MOST_LOST

    def _by_pypdf(self, index: int) -> str | None:
        if self._reader is None:
            return None
        try:
            page = self._reader.pages[index]
            texts = [page.extract_text().strip()]
            if self._pdfium is None:  # which else tells of them
                texts += _said_beside(page)
            return "\n".join(text for text in texts if text)
        except LimitReachedError as error:
            if self._pdfium is None:
                raise UnreadableDocumentError("too_complex") from error
            return None
        except Exception:  # noqa: BLE001 - what a parser raises on a broken page is not foreseeable
            return None

    def _shown(self, index: int) -> int:
        """At least so many characters are shown on a page."""
        if self._reader is None:
            return 0
        self._count = self._count or TextCount()
        self._count.is_broken = False
        try:
            return self._count.page(self._reader.pages[index]) // _BYTES_OF_CHARACTER
        except Exception:  # noqa: BLE001 - as above
            return 0


def _said_beside(page: PageObject) -> Iterator[str]:
    """What is written onto a page and filled into it, and the comments on it."""
    for reference in page.annotations or ():
        annotation = reference.get_object()
        words, kind = annotation.get("/Contents"), annotation.get("/Subtype")
        if int(annotation.get("/F", 0)) & _HIDDEN or kind in {"/Link", "/Popup"}:
            continue
        if kind == "/Widget":
            words = annotation.get("/V")
            if isinstance(words, str) and words.strip() and annotation.get("/FT") in {"/Tx", "/Ch"}:
                yield f"[field {annotation.get('/T', '')}: {words.strip()}]"
        elif isinstance(words, str) and words.strip():
            yield words.strip() if kind == "/FreeText" else f"[comment: {words.strip()}]"


def _is_better(second: str, first: str, *, is_raw: bool) -> bool:
    """Whether more of the second, by a tenth at least, can be read; what is said again does not count."""

    def readable(text: str) -> float:
        letters = "".join(text.split())
        return len({*letters, *pairwise(letters)}) * (1 - doubt(text))

    if doubt(second) >= GARBLED:
        return False
    return readable(second) > (readable(first) * _CLEARLY if not is_raw else 0)


def _named(numbers: Sequence[int]) -> str:
    """`page 3`, or `pages 3-5, 9 and more`."""
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    names = [str(first) if first == last else f"{first}-{last}" for first, last in ranges[:_RANGES_NAMED]]
    more = " and more" if len(ranges) > _RANGES_NAMED else ""
    return f"page{'s' if len(numbers) > 1 else ''} {', '.join(names)}{more}"


def _by_pdfium(content: bytes) -> PdfiumDocument | None:
    """None where Chrome would not open the file."""
    try:
        document = PdfiumDocument(content)
    except (PdfiumError, UnreadableDocumentError):
        return None
    return document if document.has_pages() else None  # some name pages that there are not


def _open(content: bytes, max_pages: int) -> tuple[PdfReader, bool]:
    """A reader of at most `max_pages` pages, and whether the file had to be mended for it.

    Raises:
        UnreadableDocumentError: it cannot be opened without a password, or in time, or has no pages.
    """
    try:
        with within(_OPENING_S):
            reader, is_mended = _reader(content)
    except TookTooLongError as error:
        raise UnreadableDocumentError("timed_out") from error
    except NotImplementedError as error:  # a cipher that pypdf does not know
        raise UnreadableDocumentError("encrypted") from error
    except LimitReachedError as error:
        raise UnreadableDocumentError("too_complex") from error
    if _allowed(len(reader.pages), max_pages) == 0:
        raise UnreadableDocumentError("damaged" if is_mended else "empty")
    return reader, is_mended


def _allowed(pages: int, max_pages: int) -> int:
    if pages > max_pages:
        raise DocumentTooLargeError(limit=max_pages, counts="pages")
    return pages


def _reader(content: bytes) -> tuple[PdfReader, bool]:
    """A reader that knows its pages. Where the file does not say, or says wrongly, what is where, it is mended."""
    try:
        return _decrypted(content), False
    except (UnreadableDocumentError, NotImplementedError, LimitReachedError):
        raise
    except Exception:  # noqa: BLE001 - what a parser raises on a broken file is not foreseeable
        highest = max((int(number) for number in _OBJECT.findall(content)), default=0)
        return _decrypted(content + _NEW_END % highest), True


def _decrypted(content: bytes) -> PdfReader:
    reader = PdfReader(BytesIO(content))
    # The empty password opens what is only protected against changes.
    if reader.is_encrypted and not reader.decrypt(""):
        raise UnreadableDocumentError("encrypted")
    len(reader.pages)  # which is where most faults are found
    return reader
