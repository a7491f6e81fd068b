"""What a word processor shows, and its file does not hold as text: numbers, notes, comments, images."""

import io
import random
import zipfile

import pytest
from tests.documents import WORD, docx_document, docx_of, docx_with_part, paragraph, zip_of

from textllm_adapters.documents.docx import read_docx
from textllm_adapters.documents.packages import check

LEVEL = "<w:lvl w:ilvl='{}'><w:start w:val='{}'/><w:numFmt w:val='{}'/><w:lvlText w:val='{}'/></w:lvl>"


def text_of(content: bytes) -> str:
    return read_docx(content, max_chars=10_000).text


def item(text: str, level: int = 0, number: int = 1) -> str:
    return (
        f"<w:p><w:pPr><w:numPr><w:ilvl w:val='{level}'/><w:numId w:val='{number}'/></w:numPr></w:pPr>"
        f"<w:r><w:t>{text}</w:t></w:r></w:p>"
    )


def docx_with_lists(body: str, *levels: str, further: str = "") -> bytes:
    """Number 1 is a list of these levels."""
    numbering = (
        f'<w:numbering xmlns:w="{WORD}"><w:abstractNum w:abstractNumId="7">{"".join(levels)}</w:abstractNum>'
        f'<w:num w:numId="1"><w:abstractNumId w:val="7"/></w:num>{further}</w:numbering>'
    )
    content = docx_with_part("numbering.xml", "numbering", numbering.encode())
    return with_body(content, body)


def with_body(content: bytes, body: str) -> bytes:
    """The same document with another body."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    return zip_of((parts | {"word/document.xml": docx_document(body)}).items())


def test_items_of_lists_have_their_numbers() -> None:
    content = docx_with_lists(
        item("one") + item("two") + item("deep", 1) + item("deeper", 1) + item("three") + item("again", 1),
        LEVEL.format(0, 1, "decimal", "%1."),
        LEVEL.format(1, 3, "lowerLetter", "%1.%2)"),
    )
    assert text_of(content).split("\n") == [
        "1. one",
        "2. two",
        "  2.c) deep",
        "  2.d) deeper",
        "3. three",
        "  3.c) again",
    ]


@pytest.mark.parametrize(
    ("kind", "start", "mark"),
    [
        ("upperRoman", 1994, "MCMXCIV."),
        ("lowerRoman", 4, "iv."),
        ("upperLetter", 27, "AA."),
        ("decimalZero", 7, "07."),
        ("lowerRoman", 1_000_000, "1000000."),
        ("cardinalText", 3, "3."),
        ("bullet", 1, "-"),
        ("none", 1, ""),
    ],
)
def test_numbers_are_written_as_their_list_has_them(kind: str, start: int, mark: str) -> None:
    content = docx_with_lists(item("one"), LEVEL.format(0, start, kind, "%1."))
    assert text_of(content) == f"{mark} one".strip()


def test_a_list_that_starts_anew_does_so_once() -> None:
    again = (
        '<w:num w:numId="2"><w:abstractNumId w:val="7"/>'
        '<w:lvlOverride w:ilvl="0"><w:startOverride w:val="1"/></w:lvlOverride></w:num>'
    )
    body = item("a") + item("b") + item("c", number=2) + item("d", number=2)
    content = docx_with_lists(body, LEVEL.format(0, 1, "decimal", "%1."), further=again)
    assert text_of(content) == "1. a\n2. b\n1. c\n2. d"


@pytest.mark.parametrize("kind", ["footnote", "endnote"])
def test_notes_are_numbered_where_they_are_referred_to(kind: str) -> None:
    notes = (
        f'<w:{kind}s xmlns:w="{WORD}"><w:{kind} w:id="0" w:type="separator">{paragraph("---")}</w:{kind}>'
        f'<w:{kind} w:id="1">{paragraph("Not for children.")}</w:{kind}></w:{kind}s>'
    )
    body = f"<w:p><w:r><w:t>Take two.</w:t><w:{kind}Reference w:id='1'/></w:r></w:p>" + paragraph("Twice a day.")
    content = with_body(docx_with_part(f"{kind}s.xml", f"{kind}s", notes.encode()), body)
    assert text_of(content) == "Take two.[1]\nTwice a day.\n[1] Not for children."


def test_comments_stand_behind_what_they_are_on() -> None:
    comments = f'<w:comments xmlns:w="{WORD}"><w:comment w:id="4">{paragraph("Really?")}</w:comment></w:comments>'
    body = "<w:p><w:r><w:t>It costs 3.</w:t><w:commentReference w:id='4'/></w:r></w:p>" + paragraph("It is blue.")
    content = with_body(docx_with_part("comments.xml", "comments", comments.encode()), body)
    assert text_of(content) == "It costs 3.\n[comment: Really?]\nIt is blue."


def test_an_image_is_read_by_its_alternative_text() -> None:
    drawing = (
        '<w:drawing><wp:inline xmlns:wp="http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing">'
        '<wp:docPr id="1" name="Picture 1" descr="A red\ncanoe"/></wp:inline></w:drawing>'
    )
    assert text_of(docx_of(f"<w:p><w:r><w:t>Look: </w:t>{drawing}</w:r></w:p>")) == "Look: [image: A red canoe]"


def form_field(kind: str) -> str:
    return f"<w:r><w:fldChar w:fldCharType='begin'><w:ffData>{kind}</w:ffData></w:fldChar></w:r>"


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        ("<w:checked/>", "☒"),
        ("<w:default w:val='0'/><w:checked w:val='1'/>", "☒"),
        ("<w:default w:val='1'/><w:checked w:val='0'/>", "☐"),
        ("<w:default w:val='true'/>", "☒"),
        ("<w:sizeAuto/>", "☐"),
    ],
)
def test_a_box_of_a_form_is_ticked_or_not(state: str, shown: str) -> None:
    box = form_field(f"<w:checkBox>{state}</w:checkBox>")
    assert text_of(docx_of(f"<w:p>{box}<w:r><w:t> Vegetarian</w:t></w:r></w:p>")) == f"{shown} Vegetarian"


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        ("<w:result w:val='2'/>", "green"),
        ("<w:default w:val='1'/>", "blue"),
        ("", "red"),
        ("<w:result w:val='3'/>", ""),
        ("<w:result w:val='-1'/>", ""),
    ],
)
def test_a_list_of_a_form_is_read_by_what_was_chosen(state: str, shown: str) -> None:
    entries = "".join(f"<w:listEntry w:val='{color}'/>" for color in ("red", "blue", "green"))
    choice = form_field(f"<w:ddList>{state}{entries}</w:ddList>")
    assert text_of(docx_of(f"<w:p><w:r><w:t>Color:</w:t><w:tab/></w:r>{choice}</w:p>")) == f"Color:\t{shown}"


def test_a_picture_that_packs_well_is_no_bomb() -> None:
    picture = random.Random(1).randbytes(10_000) + bytes(1_400_000)
    assert check(docx_of(paragraph("Look:"), further={"word/media/image1.emf": picture})) == "docx"
