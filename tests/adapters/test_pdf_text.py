"""How much text is counted in PDFs that a model reads itself."""

import io
import math
import time
import zlib

import pytest
from pypdf import PdfReader
from tests import documents
from tests.documents import pdf, pdf_of_pages, pdf_of_stream, stream

from textllm_adapters.documents import pdf_text
from textllm_adapters.documents.document_reader import ChildDocumentReader
from textllm_adapters.documents.pdf_text import TextSize, strings_of, text_size
from textllm_core.ports.document_reader import Document
from textllm_core.tenancy import Owner
from textllm_core.uploads import Upload

ANN = Owner("default", "ann")
PACKED = b"/Filter /FlateDecode"
FORM = b"/Type /XObject /Subtype /Form /BBox [0 0 9 9] "
SHOWS_6 = b"/XObject << /X 6 0 R >>"
IMAGE = b"BI /W 2 /H 1 /BPC 8 /CS /RGB ID (<ab(( EI "


async def inspect(content: bytes) -> Document:
    return await ChildDocumentReader(timeout_s=120).inspect(
        Upload.of_bytes("a.pdf", content), owner=ANN, max_pages=1000
    )


async def counted(content: bytes) -> tuple[int, bool]:
    document = await inspect(content)
    return document.text_bytes, document.is_text_counted


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (b"BT /F1 12 Tf (Tea) Tj (at five) ' ET", 10),
        (b"[(Te) -20 (a) 4.5 <6174>] TJ", 5),
        (
            rb"(\)\(\\) Tj (\101\1012) Tj (\
) Tj",
            7,
        ),
        (b"(a(b(c))d()) Tj (e) Tj", 11),
        (b"(<41>) Tj (a>b) Tj", 7),
        (b"<48 65 6C> Tj <4> Tj", 5),
        (b"/Span << /ActualText (six) /MCID 0 >> BDC EMC", 3),
        (b"/A\\(text) Tj", 4),
        (b")) ) (text) Tj", 4),
        (b"", 0),
    ],
)
def test_all_strings_of_a_content_stream_are_counted(content: bytes, size: int) -> None:
    strings = strings_of(content)
    assert (strings.size, strings.is_whole) == (size, True)


@pytest.mark.parametrize(
    ("content", "least"),
    [(b"(one) Tj (two", 6), (b"(one) Tj (tw\\", 5), (b"(one) Tj <4142", 5), (IMAGE + b"(one) Tj", 3)],
)
def test_a_content_stream_that_can_be_read_in_two_ways_is_not_counted_as_whole(content: bytes, least: int) -> None:
    strings = strings_of(content)
    assert not strings.is_whole
    assert least <= strings.size <= least + 1


def test_forms_are_counted_by_name() -> None:
    assert strings_of(b"/X Do\n/Y#20Z  Do /X\0Do (/W Do) /V Doo").forms == {"/X": 2, "/Y Z": 1, "/W": 1}


@pytest.mark.parametrize(
    "piece", [b"(", b")", b"<", b"\\", b"(\\", b"<a", b"(a", b"()", b"BI /", b"BI / ID ", b"/a ", b"/"]
)
def test_the_time_that_strings_take_grows_with_their_length_alone(piece: bytes) -> None:
    begun = time.process_time()
    strings_of(piece * 300_000)
    assert time.process_time() - begun < 20  # a square of it would take hours


async def test_a_page_of_dense_text_is_counted_to_its_length() -> None:
    text = b"BT /F1 1 Tf " + (b"(" + b"word " * 2_000 + b") Tj 0 -1 Td ") * 50 + b"ET"
    content = pdf_of_stream(zlib.compress(text), PACKED)
    assert len(content) < 3_000
    assert await counted(content) == (500_000, True)


async def test_an_ordinary_document_is_counted_to_its_length() -> None:
    pages = ["The first page.", "", "Äpfel für 3 €."]
    assert await counted(pdf_of_pages(pages)) == (sum(map(len, pages)), True)
    assert await counted(pdf_of_pages(["Some words on a page."] * 1000)) == (21_000, True)


async def test_forms_are_counted_as_often_as_they_are_shown() -> None:
    inner = stream(zlib.compress(b"(five5) Tj"), FORM + PACKED)
    outer = stream(b"(one) Tj /Y Do", FORM + b"/Resources << /XObject << /Y 7 0 R >> >>")
    content = pdf_of_stream(b"/X Do (two) Tj /X Do", b"", outer, inner, resources=SHOWS_6)
    assert await counted(content) == (2 * (3 + 5) + 3, True)
    assert await counted(pdf_of_stream(b"(two) Tj", b"", outer, inner, resources=SHOWS_6)) == (3, True)


async def test_a_form_that_shows_itself_is_counted_once() -> None:
    form = stream(b"(one) Tj /X Do", FORM + b"/Resources << " + SHOWS_6 + b" >>")
    assert await counted(pdf_of_stream(b"/X Do", b"", form, resources=SHOWS_6)) == (3, True)


async def test_forms_that_multiply_are_counted_in_no_time() -> None:
    size, is_whole = await counted(documents.pdf_of_nested_forms())
    assert (size, is_whole) == (10**11, True)


async def test_images_are_not_decoded() -> None:
    image = stream(
        b"(no text) Tj, and no image", b"/Type /XObject /Subtype /Image /Width 9 /Height 9 /Filter /DCTDecode"
    )
    assert await counted(pdf_of_stream(b"(one) Tj /X Do", b"", image, resources=SHOWS_6)) == (3, True)


async def test_annotations_are_counted_as_they_look() -> None:
    content = pdf(
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Annots [4 0 R << /Subtype /Link >>] >>",
        b"<< /Type /Annot /Subtype /Widget /AP << /N 5 0 R >> >>",
        stream(b"(filled in) Tj", FORM),
    )
    assert await counted(content) == (9, True)


@pytest.mark.parametrize(
    "broken",
    [
        stream(b"no stream of zlib", FORM + PACKED),
        stream(b"no such filter", FORM + b"/Filter /Unheard"),
        stream(zlib.compress(b" " * 80_000_000), FORM + PACKED),
        stream(IMAGE, FORM),
        b"null",
    ],
)
async def test_what_can_be_counted_is_where_something_cannot(broken: bytes) -> None:
    assert await counted(pdf_of_stream(b"(one) Tj /X Do", b"", broken, resources=SHOWS_6)) == (3, False)


async def test_a_stream_that_many_pages_show_is_counted_for_each() -> None:
    assert await counted(documents.pdf_that_keeps_the_processor_busy()) == (40 * 500_000, True)


def test_counting_ends_when_its_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = PdfReader(io.BytesIO(pdf_of_pages(["one", "two"])))
    for ends_after_s, expected in ((math.inf, TextSize(6, is_whole=True)), (0.0, TextSize(0, is_whole=False))):
        monkeypatch.setattr(pdf_text, "_ENDS_AFTER_S", ends_after_s)  # of this process, which has used some
        assert text_size(reader) == expected
