"""Documents read in children: what good ones say, and what bad ones end in."""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Callable

import psutil
import pytest
import uvloop
from tests import documents
from tests.documents import docx_of, paragraph, pdf_of_pages
from tests.reader_here import ReaderHere

from textllm_adapters.documents.document_reader import ChildDocumentReader
from textllm_core.errors import (
    DocumentTooLargeError,
    ServiceUnavailableError,
    TextLLMError,
    UnreadableDocumentError,
    UnsupportedMediaTypeError,
)
from textllm_core.ports.document_reader import Document, DocumentText
from textllm_core.tenancy import Owner
from textllm_core.uploads import Upload

ANN, BOB = Owner("default", "ann"), Owner("default", "bob")
MIB = 1024 * 1024
PIECE = b" " * MIB


async def read(name: str, content: bytes, *, max_chars: int = 400_000, max_pages: int = 1000) -> DocumentText:
    upload = Upload.of_bytes(name, content)
    return await ReaderHere(timeout_s=120).read(upload, owner=ANN, max_chars=max_chars, max_pages=max_pages)


async def read_by_child(name: str, content: bytes) -> DocumentText:
    """For what only its limits keep from taking all there is, and for what comes of a child."""
    reader = ChildDocumentReader(timeout_s=120)  # how busy the machine is, is not what is tested
    return await reader.read(Upload.of_bytes(name, content), owner=ANN, max_chars=400_000, max_pages=1000)


async def inspect(content: bytes, *, max_pages: int = 1000) -> Document:
    return await ReaderHere(timeout_s=120).inspect(Upload.of_bytes("a.pdf", content), owner=ANN, max_pages=max_pages)


def children() -> set[psutil.Process]:
    """Also those that are dead and not buried."""
    return set(psutil.Process().children(recursive=True))


async def test_a_pdf_is_read_with_a_mark_before_each_page() -> None:
    document = await read_by_child("a.pdf", pdf_of_pages(["The first page.", "", "Äpfel für 3 €."]))
    assert document.text == "[page 1]\nThe first page.\n[page 2]\n\n[page 3]\nÄpfel für 3 €."
    assert (document.file_type, document.media_type, document.pages) == ("pdf", "application/pdf", 3)


async def test_a_docx_is_read_in_its_order() -> None:
    document = await read_by_child("a.docx", documents.written_docx())
    assert document.text.split("\n") == [
        "[header: Confidential]",
        "Rivers",
        "The longest ones:",
        "- Nile",
        "1. Amazon",
        "River\tkm",
        "Nile\t6,650",
        "Amazon\t",
        "After\tthe table.",
        "Its second line.",
        "[footer: The end]",
    ]
    assert (document.file_type, document.pages) == ("docx", None)


async def test_a_table_in_a_cell_is_part_of_the_cell() -> None:
    inner = f"<w:tbl><w:tr><w:tc>{paragraph('b')}</w:tc><w:tc>{paragraph('c')}</w:tc></w:tr></w:tbl>"
    body = (
        f"<w:tbl><w:tr><w:tc>{paragraph('a')}{inner}</w:tc><w:tc>{paragraph('d')}{paragraph('e')}</w:tc></w:tr></w:tbl>"
    )
    assert (await read("a.docx", docx_of(body))).text == "a b\tc\td e"


async def test_lists_are_marked_by_level_and_deleted_text_is_left_out() -> None:
    item = (
        "<w:p><w:pPr><w:numPr><w:ilvl w:val='{}'/><w:numId w:val='1'/></w:numPr></w:pPr><w:r><w:t>{}</w:t></w:r></w:p>"
    )
    deleted = "<w:p><w:del><w:r><w:delText>old</w:delText></w:r></w:del><w:ins><w:r><w:t>new</w:t></w:r></w:ins></w:p>"
    body = item.format(0, "one") + item.format(1, "two") + deleted
    assert (await read("a.docx", docx_of(body))).text == "- one\n  - two\nnew"


async def test_content_controls_text_boxes_links_and_spaces_are_read() -> None:
    box = f"<w:r><w:pict><w:txbxContent>{paragraph('in a box')}</w:txbxContent></w:pict></w:r>"
    again = '<m:Fallback xmlns:m="http://schemas.openxmlformats.org/markup-compatibility/2006">{}</m:Fallback>'.format
    body = (
        f"<w:sdt><w:sdtContent>{paragraph('a template&apos;s field')}</w:sdtContent></w:sdt>"
        f"<w:p>{box}{again(box)}<w:r><w:t>around the box</w:t></w:r></w:p>"
        '<w:p><w:r><w:t>see</w:t></w:r><w:r><w:t xml:space="preserve"> </w:t></w:r>'
        "<w:hyperlink><w:r><w:t>there</w:t></w:r></w:hyperlink></w:p>"
    )
    assert (await read("a.docx", docx_of(body))).text == "a template's field\nin a box\naround the box\nsee there"


async def test_a_ruby_is_read_by_its_base() -> None:
    run = "<w:r><w:t>{}</w:t></w:r>".format
    ruby = (
        f"<w:ruby><w:rt>{run('かんじ')}</w:rt><w:rubyBase>{run('漢')}<w:ins>{run('字')}</w:ins></w:rubyBase></w:ruby>"
    )
    body = f"<w:p>{run('before ')}<w:r>{ruby}</w:r>{run(' after')}</w:p>"
    assert (await read("a.docx", docx_of(body))).text == "before 漢字 after"


async def test_equations_are_read_where_they_stand() -> None:
    run = "<m:r><m:t>{}</m:t></m:r>".format
    square = f"<m:sSup><m:e>{run('c')}</m:e><m:sup>{run('2')}</m:sup></m:sSup>"
    half = f"<m:f><m:num>{run('1')}</m:num><m:den>{run('2')}</m:den></m:f>"
    body = (
        f'<w:p xmlns:m="{documents.MATH}"><w:r><w:t>So E = </w:t></w:r><m:oMath>{run("m")}{square}</m:oMath>'
        f"<w:r><w:t>, or </w:t></w:r><m:oMathPara><m:oMath>{half}</m:oMath></m:oMathPara></w:p>"
    )
    content = docx_of(body)
    assert (await read("a.docx", content)).text == "So E = mc^(2), or (1)/(2)"
    assert (await read("a.docx", documents.strict_docx(content))).text == "So E = mc^(2), or (1)/(2)"


@pytest.mark.parametrize(
    ("properties", "text"),
    [
        ("<w:numPr><w:numId/></w:numPr>", "one"),
        ("<w:numPr><w:numId w:val='x'/></w:numPr>", "one"),
        ("<w:numPr><w:ilvl w:val='x'/><w:numId w:val='1'/></w:numPr>", "- one"),
        ("<w:numPr><w:ilvl/><w:numId w:val='1'/></w:numPr>", "- one"),
        ("<w:pStyle/>", "one"),
        ("<w:tabs><w:tab w:val='left' w:pos='700'/></w:tabs>", "one"),
    ],
)
async def test_a_paragraph_is_read_although_its_properties_lack_their_values(properties: str, text: str) -> None:
    body = f"<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>one</w:t></w:r></w:p>"
    assert (await read("a.docx", docx_of(body))).text == text


@pytest.mark.parametrize(
    ("kind", "root", "text"),
    [
        ("header", "hdr", "[header: A note.]\nThe body."),
        ("footer", "ftr", "The body.\n[footer: A note.]"),
    ],
)
async def test_headers_stand_before_the_body_and_footers_behind(kind: str, root: str, text: str) -> None:
    part = f'<w:{root} xmlns:w="{documents.WORD}">{paragraph("A note.")}</w:{root}>'.encode()
    assert (await read("a.docx", documents.docx_with_part(f"{kind}1.xml", kind, part))).text == text


async def test_a_strict_docx_is_read_like_any_other() -> None:
    assert await read("a.docx", documents.strict_docx(documents.written_docx())) == await read(
        "a.docx", documents.written_docx()
    )


@pytest.mark.parametrize(
    "text",
    [
        "Strict is http://purl.oclc.org/ooxml/wordprocessingml/main here.",
        'Write xmlns:w="http://purl.oclc.org/ooxml/wordprocessingml/main" there.',
    ],
)
async def test_a_docx_may_speak_of_namespaces(text: str) -> None:
    assert (await read("a.docx", documents.strict_docx(docx_of(paragraph(text))))).text == text


@pytest.mark.parametrize(
    "relationship",
    [
        'Target="NULL"',
        'Target="../NULL"',
        'Target="media/gone.png"',
        'Target="#_top"',
        'Target=""',
        "",
        'Target="NULL" TargetMode="Internal"',
        'Target="http://localhost:1/a.png" TargetMode="External"',
    ],
)
async def test_a_docx_is_read_although_a_part_that_it_names_is_not_there(relationship: str) -> None:
    content = documents.docx_with_relationships(relationship, relationship)
    assert (await read("a.docx", content)).text == "Hello"


async def test_html_is_read_without_markup_scripts_and_styles() -> None:
    page = (
        "<!DOCTYPE html><html><head><title>Rivers</title><style>p { color: red }</style></head><body>"
        "<p>The <b>longest</b>\n ones &amp; more:</p><ul><li>Nile<li>Amazon</ul><script>alert('x')</script>"
        "<table><tr><th>River</th><th>km</th></tr><tr><td><p>Nile</p></td><td> 6,650 </td></tr></table>"
        "<pre>a\n  b</pre>"
    )
    document = await read_by_child("a.htm", page.encode())
    assert document.text == ("Rivers\nThe longest ones & more:\n- Nile\n- Amazon\nRiver\tkm\nNile\t6,650\na\n  b")


async def test_a_pdf_that_is_only_protected_against_changes_is_read() -> None:
    assert (await read("a.pdf", documents.encrypted_pdf(password=""))).text == "[page 1]\nSecret words."


async def test_the_content_tells_the_type_of_a_file_without_an_ending() -> None:
    assert (await read("scan", pdf_of_pages(["Hello"]))).file_type == "pdf"
    assert (await read("letter", docx_of(paragraph("Hello")))).file_type == "docx"


async def test_pages_of_a_pdf_are_counted_also_where_it_has_no_text() -> None:
    assert await inspect(pdf_of_pages(["", ""])) == Document(file_type="pdf", pages=2, is_text_counted=True)


async def test_a_pdf_may_have_as_many_pages_as_allowed() -> None:
    assert (await inspect(pdf_of_pages(["x"] * 5), max_pages=5)).pages == 5
    for reading in (
        inspect(pdf_of_pages(["x"] * 6), max_pages=5),
        read("a.pdf", pdf_of_pages(["x"] * 6), max_pages=5),
    ):
        with pytest.raises(DocumentTooLargeError, match="more than 5 pages") as refusal:
            await reading
        assert refusal.value.details() == {"limit": 5, "counts": "pages"}


async def test_a_thousand_pages_are_read() -> None:
    document = await read("a.pdf", pdf_of_pages(["Some words on a page."] * 1000))
    assert document.pages == 1000
    assert document.text.endswith("[page 1000]\nSome words on a page.")


@pytest.mark.parametrize("name", ["a.pdf", "a.docx", "a.html"])
async def test_text_may_be_as_long_as_allowed_in_every_type(name: str) -> None:
    content = {"a.pdf": pdf_of_pages(["i" * 91]), "a.docx": docx_of(paragraph("x" * 100)), "a.html": b"x" * 100}[name]
    assert len((await read(name, content, max_chars=100)).text) == 100
    with pytest.raises(DocumentTooLargeError) as refusal:
        await read(name, content, max_chars=99)
    assert refusal.value.details() == {"limit": 99, "counts": "characters"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: documents.encrypted_pdf(password="secret"), "encrypted"),
        (lambda: b"", "empty"),
        (lambda: pdf_of_pages([]), "empty"),
        (lambda: b"%PDF-1.7\n", "damaged"),
        (lambda: pdf_of_pages(["Hello"])[:200], "damaged"),
        (documents.pdf_whose_pages_contain_themselves, "damaged"),
    ],
)
async def test_a_bad_pdf_is_refused_with_the_reason(content: Callable[[], bytes], reason: str) -> None:
    bad = content()
    for reading in (read_by_child("a.pdf", bad), inspect(bad)):
        with pytest.raises(UnreadableDocumentError) as refusal:
            await reading
        assert refusal.value.details() == {"reason": reason}


async def test_a_pdf_that_names_a_page_again_and_again_has_too_many() -> None:
    bad = documents.pdf_of_many_kids(1_000_000)
    for reading in (read_by_child("a.pdf", bad), inspect(bad)):
        with pytest.raises(DocumentTooLargeError):
            await reading


@pytest.mark.parametrize("name", ["a.txt", "a.docx", "a.jpg"])
async def test_a_pdf_or_a_docx_is_told_by_its_content_whatever_its_name_is(name: str) -> None:
    assert (await read(name, pdf_of_pages(["Hello"]))).file_type == "pdf"
    assert (await read(name, docx_of(paragraph("Hello")))).file_type == "docx"


async def test_a_pdf_whose_first_line_is_lost_is_read_as_one() -> None:
    document = await read("a.pdf", pdf_of_pages(["Hello"]).partition(b"\n")[2])
    assert (document.file_type, document.text, document.warnings) == ("pdf", "[page 1]\nHello", ())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: pdf_of_pages([""]), "empty"),
        (documents.pdf_of_nested_forms, "too_complex"),
        (lambda: documents.pdf_that_unpacks_to(100 * MIB), "empty"),
        pytest.param(lambda: documents.pdf_that_unpacks_to(1024 * MIB), "too_complex", marks=pytest.mark.slow),
    ],
)
async def test_a_pdf_without_text_that_can_be_had_is_refused(content: Callable[[], bytes], reason: str) -> None:
    with pytest.raises(UnreadableDocumentError) as refusal:
        await read_by_child("a.pdf", content())
    assert refusal.value.reason == reason


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.pdf", documents.pdf_that_keeps_the_processor_busy),
        ("a.html", lambda: b"<!--" * 8_000_000),
        ("a.html", lambda: b"<div>" * 8_000_000),
    ],
)
async def test_endless_work_is_ended(name: str, content: Callable[[], bytes]) -> None:
    upload = Upload.of_bytes(name, content())
    begun = time.monotonic()
    with pytest.raises(UnreadableDocumentError) as refusal:
        await ChildDocumentReader().read(upload, owner=ANN, max_chars=10**9, max_pages=1000)
    assert refusal.value.reason == "timed_out"
    assert time.monotonic() - begun < 60  # which is when its process is ended, and not when it is done


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (documents.docx_with_an_entity_bomb, "unsafe"),
        (lambda: documents.docx_with_doctype('<!ENTITY x SYSTEM "file:///etc/passwd">', "&amp;x;"), "unsafe"),
        (lambda: documents.docx_with_doctype("", "Hello"), "unsafe"),
        (lambda: documents.docx_with_doctype("", "Hello", encoding="utf-16"), "unsafe"),
        (lambda: docx_of(paragraph("a"), further={"word/x.xml": b"<!DOCTYPE x><x/>"}), "unsafe"),
        (lambda: docx_of(paragraph("a"), further={"../x.xml": b"<x/>"}), "unsafe"),
        (lambda: docx_of(paragraph("a"), further={"/etc/x.xml": b"<x/>"}), "unsafe"),
        (lambda: docx_of(paragraph("a"), further={f"{number}.bin": b"" for number in range(2000)}), "unsafe"),
        (lambda: documents.docx_with_part("h.bin", "header", b"<!DOCTYPE x><x/>"), "unsafe"),
        (lambda: documents.docx_with_part("n.bin", "footnotes", b"<!DOCTYPE x><x/>"), "unsafe"),
        (lambda: docx_of("<w:p/>" * 6_000_000), "too_complex"),
        (lambda: documents.docx_of_elements(6_000_000), "too_complex"),
        (lambda: docx_of("<w:ins>" * 300 + paragraph("a") + "</w:ins>" * 300), "too_complex"),
        (lambda: docx_of("<w:tbl><w:tr><w:tc>" * 300_000), "too_complex"),
        (lambda: documents.docx_whose_entries_overlap(1000), "too_complex"),
        (lambda: documents.docx_that_lies_about_its_size(5_000_000, claim=1000), "damaged"),
        (lambda: documents.docx_that_lies_about_its_size(1000, claim=4_000_000_000), "damaged"),
        (documents.encrypted_zip, "encrypted"),
        (documents.encrypted_docx, "encrypted"),
        (lambda: docx_of(""), "empty"),
        (lambda: docx_of(b"<w:document"), "damaged"),
        (lambda: docx_of(paragraph("a"))[:-30], "damaged"),
        (lambda: b"PK\x03\x04", "damaged"),
    ],
)
async def test_a_bad_docx_is_refused_with_the_reason(content: Callable[[], bytes], reason: str) -> None:
    with pytest.raises(UnreadableDocumentError) as refusal:
        await read_by_child("a.docx", content())
    assert refusal.value.reason == reason


@pytest.mark.parametrize("size", [200 * MIB, pytest.param(1024 * MIB, marks=pytest.mark.slow)])
async def test_a_docx_that_unpacks_to_too_much_is_refused(size: int) -> None:
    with pytest.raises(DocumentTooLargeError) as refusal:
        await read_by_child("a.docx", documents.docx_that_unpacks_to(size))
    assert refusal.value.details() == {"limit": 50_000_000, "counts": "unpacked_bytes"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.docx", documents.docm()),
        ("a.docm", documents.docm()),
        ("a.pdf", documents.docm()),
        ("a.pdf", documents.zip_of([("a.txt", b"Hello")])),
        ("a.docx", docx_of(paragraph("a"), further={"word/vbaProject.bin": b"Sub AutoOpen()"})),
        ("a.docx", documents.zip_of([("again.zip", documents.zip_of([("again.zip", b"")]))])),
        ("a.pdf", documents.PNG),
        ("a.pdf", b"GIF89a" + pdf_of_pages(["Hello"])),
        ("a.txt", documents.PNG),
        ("a.csv", documents.EXE),
        ("a.json", b"\x00" * 1000),
        ("a.md", bytes(range(256)) * 20),
        ("a.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 1000),
        ("a.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 1000),
    ],
)
async def test_a_file_whose_name_says_what_it_is_not_is_refused(name: str, content: bytes) -> None:
    with pytest.raises(UnsupportedMediaTypeError):
        await read(name, content)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.pdf", documents.zip_of([("a.txt", b"Hello")]), "not PDF: save it as PDF, or rename it"),
        ("a.bin", documents.EXE, "not text: save it as text, or rename it"),
        ("a.pdf", documents.encrypted_pdf(password="secret"), "encrypted; remove its password first"),
        ("a.txt", documents.PNG, "not text: save it as text, or rename it"),
        ("a.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 1000, "not DOCX without macros: save it"),
    ],
)
async def test_a_refusal_says_what_to_do_with_the_file(name: str, content: bytes, words: str) -> None:
    with pytest.raises((UnsupportedMediaTypeError, UnreadableDocumentError), match=re.escape(words)):
        await read(name, content)


async def test_a_long_upload_is_never_whole_in_memory() -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    highest = before

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal highest
        for _ in range(100):
            highest = max(highest, process.memory_info().rss)
            yield PIECE

    with pytest.raises(DocumentTooLargeError):
        await ChildDocumentReader(timeout_s=120).read(
            Upload("a.txt", 100 * MIB, pieces), owner=ANN, max_chars=400_000, max_pages=1
        )
    assert highest - before < 16 * MIB


def never_ending(child_runs: asyncio.Event | None = None) -> Upload:
    """Its second piece never comes."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"Hello" * 1000
        if child_runs is not None:  # it took the first piece
            child_runs.set()
        await asyncio.Event().wait()

    return Upload("a.txt", 2 * MIB, pieces)


async def test_whoever_stops_asking_leaves_no_child_behind() -> None:
    before, child_runs = children(), asyncio.Event()
    reading = asyncio.create_task(
        ChildDocumentReader().read(never_ending(child_runs), owner=ANN, max_chars=9, max_pages=1)
    )
    await child_runs.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert children() == before


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_child_that_dies_while_it_is_still_sent_its_document_is_the_documents_fault(
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    before = children()

    async def pieces() -> AsyncIterator[bytes]:
        yield PIECE
        for child in children() - before:
            child.kill()
        for _ in range(3):
            await asyncio.sleep(0.1)
            yield PIECE

    with asyncio.Runner(loop_factory=loop_factory) as runner, pytest.raises(UnreadableDocumentError) as refusal:
        runner.run(ChildDocumentReader().read(Upload("a.txt", 4 * MIB, pieces), owner=ANN, max_chars=9, max_pages=1))
    assert refusal.value.reason == "too_complex"
    assert children() == before


@pytest.mark.parametrize("is_at_work", [False, True])
async def test_a_child_that_takes_too_long_is_ended_and_its_document_blamed_only_where_it_was_at_work(
    monkeypatch: pytest.MonkeyPatch, is_at_work: bool
) -> None:
    if is_at_work:
        monkeypatch.setattr("textllm_adapters.documents.document_reader._OWN_FAULT_S", 0.0)
    before = children()
    with pytest.raises(TextLLMError) as refusal:
        await ChildDocumentReader(timeout_s=0.5).read(never_ending(), owner=ANN, max_chars=9, max_pages=1)
    told = {"reason": "timed_out"} if is_at_work else {"retry_after_s": 10}
    assert (type(refusal.value), refusal.value.details()) == (
        UnreadableDocumentError if is_at_work else ServiceUnavailableError,
        told,
    )
    assert children() == before


async def test_whoever_finds_all_places_taken_is_told_to_come_back() -> None:
    reader = ChildDocumentReader(at_once=1, max_waiting=0)
    child_runs = asyncio.Event()
    reading = asyncio.create_task(reader.read(never_ending(child_runs), owner=ANN, max_chars=9, max_pages=1))
    await child_runs.wait()
    with pytest.raises(ServiceUnavailableError) as refusal:
        await reader.read(Upload.of_bytes("a.txt", b"Hello"), owner=ANN, max_chars=9, max_pages=1)
    assert refusal.value.details() == {"retry_after_s": 2}
    reading.cancel()
    await asyncio.wait([reading])
    assert (await reader.read(Upload.of_bytes("a.txt", b"Hello"), owner=ANN, max_chars=9, max_pages=1)).text == "Hello"


async def test_who_waits_for_too_long_is_told_to_come_back() -> None:
    reader, child_runs = ChildDocumentReader(at_once=1, patience_s=0.1), asyncio.Event()
    reading = asyncio.create_task(reader.read(never_ending(child_runs), owner=ANN, max_chars=9, max_pages=1))
    await child_runs.wait()
    with pytest.raises(ServiceUnavailableError):
        await reader.read(never_ending(), owner=BOB, max_chars=9, max_pages=1)
    reading.cancel()
    await asyncio.wait([reading])


async def test_who_comes_right_after_the_slowest_document_is_not_refused_for_it() -> None:
    reader = ChildDocumentReader(at_once=1, timeout_s=0.5)
    readings = [reader.read(never_ending(), owner=owner, max_chars=9, max_pages=1) for owner in (ANN, ANN, BOB)]
    outcomes = await asyncio.gather(*readings, return_exceptions=True)
    assert ["could not be read in time" in str(outcome) for outcome in outcomes] == [True] * 3


async def test_more_documents_than_places_are_read_one_after_the_other() -> None:
    reader = ChildDocumentReader(at_once=1)
    uploads = [Upload.of_bytes("a.txt", str(number).encode()) for number in range(4)]
    texts = await asyncio.gather(*(reader.read(upload, owner=ANN, max_chars=9, max_pages=1) for upload in uploads))
    assert [text.text for text in texts] == ["0", "1", "2", "3"]


async def test_no_word_of_a_document_reaches_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    damaged = pdf_of_pages(["canary"])[:300]
    with pytest.raises(TextLLMError) as refusal:
        await read_by_child("canary.pdf", damaged)
    assert "canary" not in str(refusal.value)
    assert capfd.readouterr() == ("", "")


async def test_a_child_knows_nothing_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    before, child_runs = children(), asyncio.Event()
    reading = asyncio.create_task(
        ChildDocumentReader().read(never_ending(child_runs), owner=ANN, max_chars=9, max_pages=1)
    )
    await child_runs.wait()
    (child,) = children() - before
    assert "OPENAI_API_KEY" not in child.environ()
    assert os.getsid(child.pid) == child.pid
    reading.cancel()
    await asyncio.wait([reading])


async def test_a_child_lets_its_parent_go_first() -> None:
    before, child_runs = children(), asyncio.Event()
    reading = asyncio.create_task(
        ChildDocumentReader().read(never_ending(child_runs), owner=ANN, max_chars=9, max_pages=1)
    )
    await child_runs.wait()
    (child,) = children() - before
    nicest = min(psutil.Process().nice() + 10, 19)
    async with asyncio.timeout(60):
        while child.nice() != nicest:  # noqa: ASYNC110 - nobody tells when it is
            await asyncio.sleep(0.01)
    reading.cancel()
    await asyncio.wait([reading])
