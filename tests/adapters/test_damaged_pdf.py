"""PDF files with faults that viewers mend: what others open is refused no model that reads files itself."""

import os
import re
import signal
import time
import zlib
from collections.abc import Callable

import pytest
from msgspec import json
from tests.documents import encrypted_pdf, pdf_of_pages, pdf_of_stream, stream

from textllm_adapters.documents import pdf, pdf_text
from textllm_adapters.documents.crashes import CrashedPages, outlive
from textllm_adapters.documents.document_reader import ChildDocumentReader
from textllm_adapters.documents.outcomes import Found
from textllm_adapters.documents.pdf import measure_pdf, read_pdf
from textllm_adapters.documents.pdfium import PageText, PdfiumDocument
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


@pytest.fixture(autouse=True)
def in_a_process_that_has_just_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the child has: that of the tests has used up long ago what it may take."""
    begun = time.process_time()
    for module in (pdf, pdf_text):
        monkeypatch.setattr(module, "process_time", lambda: time.process_time() - begun)


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
    "a length beyond all numbers": re.sub(rb"/Length \d+", b"/Length 99999999999999999999", BROKEN),
}


@pytest.mark.parametrize("content", OPENED_BY_PDFIUM.values(), ids=OPENED_BY_PDFIUM.keys())
async def test_a_pdf_that_pypdf_cannot_open_is_opened_and_read_by_pdfium(content: bytes) -> None:
    reader = ChildDocumentReader(timeout_s=120)  # whose child has room for pdfium
    found = await reader.inspect(Upload.of_bytes("a.pdf", content), owner=Owner("default", "ann"), max_pages=10)
    assert (found.pages, found.is_text_counted) == (2, False)
    assert read(content).text == "[page 1]\nHello one\n[page 2]\nHello two"


def test_one_bad_page_does_not_lose_the_document() -> None:
    contents = b"BT /F1 12 Tf 72 720 Td (Hello one) Tj ET"
    bad = BROKEN.replace(b"/Length 40 ", b"/Length 40 /Filter /FlateDecode ", 1).replace(contents, b"\xff" * 40)
    found = read(bad)
    assert found.text == "[page 1]\n[page 1 could not be read]\n[page 2]\nHello two"
    assert found.warnings == ("page 1 could not be read",)


def read_by_copies(content: bytes) -> Found:
    """As in the child: a copy reads, and after a crash another one."""
    ours, its = os.pipe()
    child = os.fork()
    if not child:
        crashed = CrashedPages()
        outlive(
            lambda: os.write(its, json.encode(read_pdf(content, max_pages=10, max_chars=1000, crashed=crashed))),
            crashed,
        )
    os.close(its)
    _, status = os.waitpid(child, 0)
    assert status == 0
    with os.fdopen(ours, "rb") as told:
        return json.decode(told.read(), type=Found)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("crashing", [{1}, {0, 1, 3, 4, 5}, None])
def test_a_crash_of_pdfium_loses_only_what_pypdf_cannot_read_either(
    monkeypatch: pytest.MonkeyPatch, crashing: set[int] | None
) -> None:
    def crash(asked: Callable[..., object]) -> Callable[..., object]:
        def ask(document: PdfiumDocument, *index: int) -> object:
            if crashing is None or crashing.issuperset(index):
                os.kill(os.getpid(), signal.SIGTRAP)  # as it ends itself
            return asked(document, *index)

        return ask

    method = "text" if crashing else "__init__"
    monkeypatch.setattr(PdfiumDocument, method, crash(getattr(PdfiumDocument, method)))
    pages = [f"Hello {number}" for number in range(1, 7)]
    bad = pdf_of_pages(pages).replace(b"(Hello 2)", b"(Hello 2 ")
    found = read_by_copies(bad)
    assert found.warnings == ("page 2 could not be read",)
    lines = [line for line in found.text.splitlines() if not line.startswith("[")]
    assert lines == [page for page in pages if page != "Hello 2"]


def test_text_whose_characters_have_the_wrong_names_is_said_to_be_garbled() -> None:
    codes = "".join(f"<{code:04X}> <{0xE000 + code:04X}>\n" for code in range(32, 126)).encode()
    names = b"begincmap\n1 begincodespacerange <00> <FF> endcodespacerange\n94 beginbfchar\n%sendbfchar\nendcmap" % (
        codes.replace(b"<00", b"<")
    )
    found = read(
        pdf_of_pages(["A page as any other."])
        .replace(b"/BaseFont", b"/ToUnicode 6 0 R /BaseFont")
        .replace(b"\nxref", b"\n6 0 obj\n%s\nendobj\nxref" % stream(names))
    )
    assert found.warnings == ("page 1 may be garbled",)


@pytest.mark.parametrize(
    "text",
    [
        "+XLOH\\003G\\003\\0322OLYHV\\0039DO\\003-RDQLV\\003IURP\\003D\\003IRQW",  # each is 29 less than it should be
        "/g131/g149/g149/g135/g148/g3/g6/g138/g151/g150/g150",  # names of glyphs
    ],
)
def test_codes_and_names_in_the_place_of_characters_are_said_to_be_garbled(text: str) -> None:
    assert read(pdf_of_pages([text])).warnings == ("page 1 may be garbled",)


def test_a_page_of_a_single_letter_is_read_by_whoever_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PdfiumDocument, "text", lambda *_: PageText("", is_raw=False, outside=0))
    assert read(pdf_of_pages(["A"])).text == "[page 1]\nA"


def test_what_is_filled_into_a_form_and_comments_stand_at_the_end_of_their_page() -> None:
    page = b"/Annots [6 0 R 7 0 R] /Contents"
    filled = (
        b"6 0 obj\n<< /Type /Annot /Subtype /Widget /FT /Tx /T (name) /V (Ada Lovelace) /Rect [0 0 99 20] >>\nendobj\n"
        b"7 0 obj\n<< /Type /Annot /Subtype /Text /Contents (Is this right?) /Rect [0 30 99 50] >>\nendobj\nxref"
    )
    written = b"8 0 obj\n<< /Type /Annot /Subtype /FreeText /Contents (By hand) /Rect [0 60 99 80] >>\nendobj\nxref"
    page, filled = page.replace(b"]", b" 8 0 R]"), filled.replace(b"xref", written)
    form = pdf_of_pages(["Your name:"]).replace(b"/Contents", page).replace(b"\nxref", b"\n" + filled)
    form = form.replace(b"/Pages 2 0 R", b"/Pages 2 0 R /AcroForm << /Fields [6 0 R] >>")
    text = read(form).text
    assert text.startswith("[page 1]\nYour name:\n")
    assert "Ada Lovelace" in text
    assert text.endswith("[comment: Is this right?]\nBy hand")


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


@pytest.mark.slow
def test_a_file_whose_opening_is_too_much_work_for_the_one_is_measured_by_the_other() -> None:
    """Its first object is 150,000 things that nobody asks for; pypdf reads them all before it knows a page."""
    whole = pdf_of_pages(["Hello one", "Hello two"])
    busy = NO_STARTXREF.sub(
        b"", whole.replace(b"/Type /Catalog", b"/More [" + b"<</A (b)/C 1>>" * 150_000 + b"] /Type /Catalog")
    )
    assert inspect(busy) == Found(pages=2)
