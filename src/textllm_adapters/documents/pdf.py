"""Text and pages of PDF files, by pypdf. Runs in the child alone."""

from io import BytesIO

from pypdf import PdfReader
from pypdf.errors import LimitReachedError

from textllm_adapters.documents.lines import Lines
from textllm_adapters.documents.outcomes import Found
from textllm_adapters.documents.pdf_text import text_size
from textllm_core.errors import DocumentTooLargeError, UnreadableDocumentError


def measure_pdf(content: bytes, *, max_pages: int) -> Found:
    """The number of its pages, and how much text they show."""
    reader = _open(content, max_pages)
    text = text_size(reader)
    return Found(pages=len(reader.pages), text_bytes=text.size, is_text_counted=text.is_whole)


def read_pdf(content: bytes, *, max_chars: int, max_pages: int) -> Found:
    """Its text, with the line `[page 3]` before that of the third page."""
    reader, lines = _open(content, max_pages), Lines(max_chars)
    has_text = False
    for number, page in enumerate(reader.pages, 1):
        try:
            text = page.extract_text().strip()
        except LimitReachedError as error:
            raise UnreadableDocumentError("too_complex") from error
        has_text = has_text or text != ""
        lines.add(f"[page {number}]")
        lines.add(text)
    if not has_text:
        raise UnreadableDocumentError("empty")
    return Found(lines.text(), pages=len(reader.pages))


def _open(content: bytes, max_pages: int) -> PdfReader:
    """A reader of at most `max_pages` pages.

    Raises:
        UnreadableDocumentError: it cannot be opened without a password, or has no pages.
    """
    try:
        reader = PdfReader(BytesIO(content))
        # The empty password opens what is only protected against changes.
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadableDocumentError("encrypted")
        pages = len(reader.pages)
    except NotImplementedError as error:  # a cipher that pypdf does not know
        raise UnreadableDocumentError("encrypted") from error
    except LimitReachedError as error:
        raise UnreadableDocumentError("too_complex") from error
    if pages > max_pages:
        raise DocumentTooLargeError(limit=max_pages, counts="pages")
    if pages == 0:
        raise UnreadableDocumentError("empty")
    return reader
