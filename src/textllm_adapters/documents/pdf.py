"""Text and pages of PDF files, by pypdf; what it cannot open, and a model perhaps can, is opened by pdfium.

Runs in the child alone.
"""

import re
from io import BytesIO
from typing import Final

from pypdf import PdfReader
from pypdf.errors import LimitReachedError

from textllm_adapters.documents.lines import Lines
from textllm_adapters.documents.outcomes import Found
from textllm_adapters.documents.pdf_text import text_size
from textllm_core.errors import DocumentTooLargeError, UnreadableDocumentError

_OBJECT: Final = re.compile(rb"(?<![0-9])([0-9]{1,7})[ \t\r\n]+[0-9]{1,5}[ \t\r\n]+obj\b")
# Says of no object where it is, so that all are looked for; and among how many the one is that names the pages.
_NEW_END: Final = b"\ntrailer\n<< /Size %d >>\nstartxref\n0\n%%%%EOF\n"


def measure_pdf(content: bytes, *, max_pages: int) -> Found:
    """The number of its pages, and how much text they show; that is not counted where pdfium alone can open it."""
    try:
        reader, _ = _open(content, max_pages)
        text = text_size(reader)
        return Found(pages=len(reader.pages), text_bytes=text.size, is_text_counted=text.is_whole)
    except DocumentTooLargeError:
        raise
    except Exception:  # what a parser raises on a broken file is not foreseeable
        pages = _pages_by_pdfium(content)
        if pages == 0:
            raise
        return Found(pages=_allowed(pages, max_pages))


def _pages_by_pdfium(content: bytes) -> int:
    """How many pages Chrome would show; 0 where it would not open the file."""
    import pypdfium2  # few files come here, and all would wait for it

    try:
        document = pypdfium2.PdfDocument(content)
        document[0]  # some name pages that there are not
        return len(document)
    except pypdfium2.PdfiumError:
        return 0


def read_pdf(content: bytes, *, max_chars: int, max_pages: int) -> Found:
    """Its text, with the line `[page 3]` before that of the third page."""
    reader, is_mended = _open(content, max_pages)
    lines, has_text = Lines(max_chars), False
    for number, page in enumerate(reader.pages, 1):
        try:
            text = page.extract_text().strip()
        except LimitReachedError as error:
            raise UnreadableDocumentError("too_complex") from error
        has_text = has_text or text != ""
        lines.add(f"[page {number}]")
        lines.add(text)
    if not has_text:
        raise UnreadableDocumentError("damaged" if is_mended else "empty")
    return Found(lines.text(), pages=len(reader.pages))


def _open(content: bytes, max_pages: int) -> tuple[PdfReader, bool]:
    """A reader of at most `max_pages` pages, and whether the file had to be mended for it.

    Raises:
        UnreadableDocumentError: it cannot be opened without a password, or has no pages.
    """
    try:
        reader, is_mended = _reader(content)
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
