"""PDF files with faults that viewers mend: what others open is refused no model that reads files itself."""

import re
import zlib
from collections.abc import Callable

import pytest
from tests.documents import encrypted_pdf, pdf_of_pages, pdf_of_stream

from textllm_adapters.documents.document_reader import ChildDocumentReader
from textllm_adapters.documents.outcomes import Found
from textllm_adapters.documents.pdf import measure_pdf, read_pdf
from textllm_core.errors import UnreadableDocumentError
from textllm_core.tenancy import Owner
from textllm_core.uploads import Upload

BROKEN = pdf_of_pages(["Hello one", "Hello two"])
PACKED = pdf_of_stream(zlib.compress(b"BT /F1 12 Tf 72 720 Td (Hello) Tj ET"), b"/Filter /FlateDecode")
NO_STARTXREF = re.compile(rb"startxref\n\d+\n")
# What viewers of PDF open all the same: without its table, its end, its lengths; with more before and behind it.
OPENED_ELSEWHERE = {
    "no xref": BROKEN[: BROKEN.index(b"xref\n")] + BROKEN[BROKEN.index(b"trailer") :],
    "wrong xref": re.sub(rb"\n\d{10} 00000 n", b"\n0000000001 00000 n", BROKEN),
    "no startxref": NO_STARTXREF.sub(b"", BROKEN),
    "a wrong startxref": NO_STARTXREF.sub(b"startxref\n999999\n", BROKEN),
    "no mark of the end": BROKEN.replace(b"%%EOF\n", b""),
    "neither xref nor trailer": BROKEN[: BROKEN.index(b"xref\n")],
    "a wrong length": re.sub(rb"/Length \d+", b"/Length 3", PACKED),
    "a length beyond its end": re.sub(rb"/Length \d+", b"/Length 99999", PACKED),
    "no length": re.sub(rb"/Length \d+", b"", PACKED),
    "junk before it": b"junk\r\n" * 100 + BROKEN,
    "junk behind it": BROKEN + b"<html>junk\n" * 1000,
    "NUL behind it": BROKEN + bytes(10_000),
    "no ends of objects": BROKEN.replace(b"endobj\n", b""),
    "no root": BROKEN.replace(b"/Root 1 0 R", b""),
    "line ends of another system": BROKEN.replace(b"\n", b"\r\n"),
    "its end cut off": BROKEN[: int(len(BROKEN) * 0.8)],
}


def inspect(content: bytes) -> Found:
    return measure_pdf(content, max_pages=10)


def read(content: bytes) -> Found:
    return read_pdf(content, max_pages=10, max_chars=1000)


@pytest.mark.parametrize("content", OPENED_ELSEWHERE.values(), ids=OPENED_ELSEWHERE.keys())
def test_a_pdf_that_other_readers_open_is_opened_and_read(content: bytes) -> None:
    assert inspect(content).pages in (1, 2)
    assert "Hello" in read(content).text


# By pdfium alone.
OPENED_BY_PDFIUM = {
    "a faulty /Encrypt": BROKEN.replace(b"/Root 1 0 R", b"/Root 1 0 R /Encrypt 17"),
    "pages of no type": BROKEN.replace(b"/Type /Pages", b"/Type /Sheets"),
}


@pytest.mark.parametrize("content", OPENED_BY_PDFIUM.values(), ids=OPENED_BY_PDFIUM.keys())
async def test_a_pdf_that_pypdf_cannot_open_still_goes_to_a_model_that_reads_files(content: bytes) -> None:
    reader = ChildDocumentReader()  # whose child has room for pdfium
    found = await reader.inspect(Upload.of_bytes("a.pdf", content), owner=Owner("default", "ann"), max_pages=10)
    assert (found.pages, found.is_text_counted) == (2, False)
    with pytest.raises(Exception, match=r"not a dictionary|no text"):  # which the child tells as a refusal
        read(content)


@pytest.mark.parametrize("reading", [inspect, read])
def test_a_damaged_pdf_that_is_encrypted_is_said_to_be_encrypted(reading: Callable[[bytes], Found]) -> None:
    with pytest.raises(UnreadableDocumentError) as refusal:
        reading(NO_STARTXREF.sub(b"", encrypted_pdf(password="secret")))
    assert refusal.value.reason == "encrypted"


@pytest.mark.parametrize("reading", [inspect, read])
def test_a_damaged_pdf_without_pages_is_not_said_to_be_empty(reading: Callable[[bytes], Found]) -> None:
    with pytest.raises(UnreadableDocumentError) as refusal:
        reading(BROKEN[:200])
    assert refusal.value.reason == "damaged"
