"""Slides, sheets, OpenDocument, RTF, books and mail: told by their content, and read in children."""

import io
import zipfile
from collections.abc import Callable
from email.message import EmailMessage
from typing import Any

import pytest
import xlsxwriter
from pptx import Presentation
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches
from tests.documents import docx_frame, docx_of, paragraph, zip_of
from tests.reader_here import ReaderHere

from textllm_adapters.documents.office import read_package
from textllm_core.errors import DocumentTooLargeError, UnreadableDocumentError, UnsupportedMediaTypeError
from textllm_core.ports.document_reader import DocumentText
from textllm_core.tenancy import Owner
from textllm_core.uploads import Upload

LOCKED = b"<a><encryption-data/></a>"
ODT_TYPE = b"application/vnd.oasis.opendocument.text"


async def read(content: bytes, name: str = "file", max_chars: int = 10_000) -> DocumentText:
    upload = Upload.of_bytes(name, content)
    return await ReaderHere().read(upload, owner=Owner("default", "ann"), max_chars=max_chars, max_pages=10)


def pptx() -> bytes:
    presentation = Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[1])
    slide.shapes.title.text = "Rivers"
    slide.placeholders[1].text = "Nile\nAmazon"
    slide.placeholders[1].text_frame.paragraphs[1].level = 1
    slide.notes_slide.notes_text_frame.text = "Speak slowly."
    second = presentation.slides.add_slide(presentation.slide_layouts[6])
    table = second.shapes.add_table(2, 2, 0, 0, Inches(4), Inches(1)).table
    for place, text in enumerate(("River", "km", "Nile", "6,650")):
        table.cell(place // 2, place % 2).text = text
    new_data: Any = CategoryChartData  # which has no types
    data = new_data()
    data.categories = ["2024", "2025"]
    data.add_series("Boats", (3, 4.5))
    second.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, 0, 0, Inches(4), Inches(3), data)
    group = second.shapes.add_group_shape()
    group.shapes.add_textbox(0, 0, Inches(1), Inches(1)).text_frame.text = "Together"
    file = io.BytesIO()
    presentation.save(file)
    return file.getvalue()


def xlsx() -> bytes:
    file = io.BytesIO()
    with xlsxwriter.Workbook(file) as workbook:
        sheet = workbook.add_worksheet("Rivers")
        sheet.write_row(0, 0, ["River", "km", "long"])
        sheet.write_row(2, 0, ["Nile", 6650, True])
        sheet.write_row(3, 0, ["Elbe", 1094.5])
        workbook.add_worksheet("Empty")
    return file.getvalue()


def open_document(kind: str, body: str) -> bytes:
    names = " ".join(
        f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{space}:1.0"'
        for name, space in (("office", "office"), ("text", "text"), ("table", "table"), ("draw", "drawing"))
    )
    story = f"<office:body><office:x>{body}</office:x></office:body>"
    content = f"<office:document-content {names}>{story}</office:document-content>"
    mime_type = f"application/vnd.oasis.opendocument.{kind}".encode()
    return zip_of([("mimetype", mime_type), ("content.xml", content.encode()), ("empty.xml", b"")])


ODT = (
    "<text:h>Rivers</text:h><text:p>The<text:s text:c='2'/>longest<text:note><text:note-citation>1</text:note-citation>"
    "<text:note-body><text:p>By far.</text:p></text:note-body></text:note>:</text:p>"
    "<text:list><text:list-item><text:p>Nile</text:p><text:list><text:list-item><text:p>Blue</text:p></text:list-item>"
    "</text:list></text:list-item></text:list>"
    "<text:tracked-changes><text:p>old</text:p></text:tracked-changes>"
    "<text:p>End<office:annotation><text:p>Really?</text:p></office:annotation></text:p>"
)
TABLE = (
    "<table:table table:name='Rivers'><table:table-row><table:table-cell><text:p>River</text:p></table:table-cell>"
    "<table:table-cell table:number-columns-repeated='2'><text:p>km</text:p></table:table-cell>"
    "<table:table-cell table:number-columns-repeated='16000'/></table:table-row></table:table>"
)
RTF = rb"{\rtf1\ansi\ansicpg1250{\fonttbl{\f0 Arial;}}\f0 Hello {\b world}\par \u8364? caf\'e9\par}"


def epub(
    chapter: bytes = b"<html><head><title>x</title></head><body><h1>One</h1><p>Tea &amp; cake.</p></body></html>",
) -> bytes:
    container = '<container xmlns="c"><rootfiles><rootfile full-path="OPS/book.opf"/></rootfiles></container>'
    package = (
        '<package xmlns="p" xmlns:dc="d"><metadata><dc:title>A Book</dc:title><dc:creator>Ada</dc:creator></metadata>'
        '<manifest><item id="b" href="b.xhtml"/><item id="a" href="a%20a.xhtml"/>'
        '<item id="c" href="unread.xhtml"/></manifest>'
        '<spine><itemref idref="a"/><itemref idref="b"/></spine></package>'
    )
    return zip_of(
        [
            ("mimetype", b"application/epub+zip"),
            ("META-INF/container.xml", container.encode()),
            ("OPS/book.opf", package.encode()),
            ("OPS/a a.xhtml", b"<!DOCTYPE html>" + chapter),
            ("OPS/b.xhtml", b"<p>The end.</p>"),
            ("OPS/unread.xhtml", b"<p>Not in the book.</p>"),
        ]
    )


def eml(subtype: str = "plain") -> bytes:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "ada@example.org", "ben@example.org", "Tea für zwei"
    message.set_content("Tea is at five." if subtype == "plain" else "<p>Tea is at <b>five</b>.</p>", subtype=subtype)
    message.add_attachment(b"%PDF-", maintype="application", subtype="pdf", filename="menu.pdf")
    return bytes(message)


MAIL = "From: ada@example.org\nTo: ben@example.org\nSubject: Tea für zwei\nTea is at five.\n[attachment: menu.pdf]"
SLIDES = (
    "[slide 1]\nRivers\nNile\n  Amazon\n[notes: Speak slowly.]\n"
    "[slide 2]\nRiver\tkm\nNile\t6,650\n\tBoats\n2024\t3\n2025\t4.5\nTogether"
)
FILES: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "pptx": (pptx, "pptx", SLIDES),
    "xlsx": (xlsx, "xlsx", "[sheet Rivers]\nRiver\tkm\tlong\nNile\t6650\tTRUE\nElbe\t1094.5\n[sheet Empty]"),
    "odt": (
        lambda: open_document("text", ODT),
        "odt",
        "Rivers\nThe  longest[1]:\n- Nile\n  - Blue\nEnd\n[comment: Really?]\n[1] By far.",
    ),
    "ods": (lambda: open_document("spreadsheet", TABLE), "ods", "[sheet Rivers]\nRiver\tkm\tkm"),
    "odp": (
        lambda: open_document("presentation", "<draw:page><text:p>Hello</text:p></draw:page>"),
        "odp",
        "[slide 1]\nHello",
    ),
    "rtf": (lambda: RTF, "rtf", "Hello world\n€ café"),
    "epub": (epub, "epub", "A Book\nAda\nOne\nTea & cake.\nThe end."),
    "eml": (eml, "eml", MAIL),
    "eml of html": (lambda: eml("html"), "eml", MAIL),
    "docx": (lambda: docx_of(paragraph("Hello")), "docx", "Hello"),
    "yaml": (lambda: b"tea: five\n", "txt", "tea: five\n"),
    "html": (lambda: b"<!doctype html><p>Tea</p>", "html", "Tea"),
}


@pytest.mark.parametrize("kind", FILES)
async def test_a_file_is_told_by_its_content_and_read(kind: str) -> None:
    make, file_type, text = FILES[kind]
    for name in ("file", "file.xyz", f"file.{file_type}"):
        document = await read(make(), name)
        assert (document.file_type, document.text) == (file_type, text)


@pytest.mark.parametrize(
    "name", ["main.py", "Makefile", "notes.yaml", "server.log", "paper.tex", ".gitignore", "a.rtf"]
)
async def test_any_text_is_read_whatever_its_name(name: str) -> None:
    text = "# Tea: at five\n\\cake{six}\n"
    assert (await read(text.encode(), name)).text == text


@pytest.mark.parametrize("kind", ["pptx", "xlsx", "odt", "rtf", "epub", "eml"])
async def test_no_text_is_longer_than_allowed(kind: str) -> None:
    with pytest.raises(DocumentTooLargeError):
        await read(FILES[kind][0](), max_chars=9)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: open_document("text", ""), "empty"),
        (lambda: open_document("text", "").replace(b"empty.xml", b"../ty.xml"), "unsafe"),
        (lambda: zip_of([("mimetype", ODT_TYPE), ("content.xml", b"<!DOCTYPE a><a/>")]), "unsafe"),
        (lambda: zip_of([("mimetype", ODT_TYPE), ("META-INF/manifest.xml", LOCKED)]), "encrypted"),
        (lambda: docx_of("", media_type=SHEET), "damaged"),
    ],
)  # fmt: skip
async def test_a_bad_office_file_is_refused_with_the_reason(content: Callable[[], bytes], reason: str) -> None:
    with pytest.raises(UnreadableDocumentError) as refusal:
        await read(content())
    assert refusal.value.reason == reason


def of_type(content: bytes, kind: bytes, other: bytes) -> bytes:
    """A file whose main part is of another type."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        return zip_of([(name, file.read(name).replace(kind, other)) for name in file.namelist()])


EMBEDDED = b'<Default Extension="xlsb" ContentType="application/vnd.ms-excel.sheet.binary.macroEnabled.12"/></Types>'
OF_OTHER_TYPES = [
    of_type(docx_of(paragraph("Together")), b"document.main+xml", b"template.main+xml"),
    of_type(docx_of(paragraph("Together")), b"</Types>", EMBEDDED),
    of_type(pptx(), b"presentation.main+xml", b"slideshow.main+xml"),
    of_type(pptx(), b"presentation.main+xml", b"template.main+xml"),
]


@pytest.mark.parametrize("content", OF_OTHER_TYPES, ids=["dotx", "with a workbook in it", "ppsx", "potx"])
def test_templates_slide_shows_and_files_with_workbooks_in_them_are_read(content: bytes) -> None:
    assert "Together" in read_package(content, max_chars=1000).text


SHEET = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.xlsx", bytes(range(256)) * 4),
        ("a", bytes(range(256)) * 4),
        ("a.xlsm", zip_of({**docx_frame("application/vnd.ms-excel.sheet.macroEnabled.main+xml")}.items())),
        ("a.odg", open_document("graphics", "")),
    ],
)
async def test_what_is_none_of_these_is_refused(name: str, content: bytes) -> None:
    with pytest.raises(UnsupportedMediaTypeError):
        await read(content, name)


@pytest.mark.parametrize(
    ("content", "file_type", "text"),
    [(b"a,b\n1,2\n", "txt", "a,b\n1,2\n"), (b"<html><body><p>Tea</p></body></html>", "html", "Tea")],
)
async def test_a_text_that_is_called_a_spreadsheet_is_read_and_told(content: bytes, file_type: str, text: str) -> None:
    document = await read(content, "a.xlsx")
    assert (document.file_type, document.text) == (file_type, text)
    assert document.warnings == ("its name says that it is XLSX, but it is text, and was read as that",)


async def test_a_chart_of_an_unknown_kind_leaves_a_mark_in_its_place() -> None:
    with zipfile.ZipFile(io.BytesIO(pptx())) as known:
        parts = [(name, known.read(name).replace(b"c:barChart", b"c:surfaceChart")) for name in known.namelist()]
    text = (await read(zip_of(parts))).text
    assert "[a chart that could not be read]" in text
    assert "Boats" not in text
    assert "Together" in text
