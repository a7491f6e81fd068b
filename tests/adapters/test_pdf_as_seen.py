"""Pages of PDFs are read as a person sees them."""

import time
from contextlib import suppress

import pytest
from tests.documents import pdf, pdf_of_stream, stream

from textllm_adapters.documents import pdf as pdf_reader
from textllm_adapters.documents.crashes import CrashedPages
from textllm_adapters.documents.pdf import read_pdf
from textllm_core.errors import UnreadableDocumentError


@pytest.fixture(autouse=True)
def in_a_process_that_has_just_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the child has: that of the tests has used up long ago what second opinions may take."""
    monkeypatch.setattr(pdf_reader, "process_time", lambda: 0.0)


def words(content: bytes) -> str:
    found = read_pdf(content, max_chars=10_000, max_pages=10)
    assert found.warnings == ()
    return found.text.removeprefix("[page 1]\n")


def pdf_in_font(encoding: str, collection: str, content: str) -> bytes:
    """A page in a font that the file does not hold, of Chinese, Japanese or Korean characters."""
    return pdf(
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 6 0 R "
        b"/Resources << /Font << /F1 4 0 R >> >> >>",
        b"<< /Type /Font /Subtype /Type0 /BaseFont /Unheard /Encoding /%s /DescendantFonts [5 0 R] >>"
        % encoding.encode(),
        b"<< /Type /Font /Subtype /CIDFontType2 /BaseFont /Unheard /CIDSystemInfo "
        b"<< /Registry (Adobe) /Ordering (%s) /Supplement 2 >> /FontDescriptor << /Type /FontDescriptor "
        b"/FontName /Unheard /Flags 4 /FontBBox [0 -120 1000 880] /ItalicAngle 0 /Ascent 880 /Descent -120 "
        b"/CapHeight 880 /StemV 80 >> >>" % collection.encode(),
        stream(b"BT /F1 20 Tf 72 720 Td %s ET" % content.encode()),
    )


def codes_of(text: str, codec: str) -> list[str]:
    return [letter.encode(codec).hex() for letter in text]


@pytest.mark.parametrize(
    ("encoding", "collection", "text", "codes"),
    [
        ("90ms-RKSJ-H", "Japan1", "日本語PDFファイル", codes_of("日本語PDFファイル", "cp932")),
        ("Identity-V", "Japan1", "あいうえお", ["034B", "034D", "034F", "0351", "0353"]),
        ("GBK-EUC-H", "GB1", "关于年度报告的说明", codes_of("关于年度报告的说明", "gbk")),
        ("KSCms-UHC-H", "Korea1", "한국어문서입니다", codes_of("한국어문서입니다", "cp949")),
    ],
)
def test_fonts_that_a_reader_must_have_are_not_missed(
    encoding: str, collection: str, text: str, codes: list[str]
) -> None:
    whole = f"<{''.join(codes)}> Tj"
    assert words(pdf_in_font(encoding, collection, whole)) == text
    moved = "0 -20 Td" if encoding.endswith("V") else "20 0 Td"
    one_by_one = " ".join(f"<{code}> Tj {moved}" for code in codes)
    assert "".join(words(pdf_in_font(encoding, collection, one_by_one)).split()) == text


def test_columns_of_upright_lines_are_read_as_lines() -> None:
    text = "吾輩は猫である。"
    column = " ".join(f"<{code}> Tj 0 -30 Td" for code in codes_of(text, "cp932"))
    assert words(pdf_in_font("90ms-RKSJ-H", "Japan1", column)) == text


def test_what_stands_beside_the_page_is_not_read() -> None:
    content = (
        b"BT /F1 12 Tf 72 720 Td (On the page) Tj ET BT /F1 12 Tf 72 -40 Td (below) Tj ET "
        b"BT /F1 12 Tf 700 720 Td (right) Tj ET BT /F1 12 Tf 72 900 Td (above) Tj ET"
    )
    assert words(pdf_of_stream(content)) == "On the page"
    cropped = pdf_of_stream(b"BT /F1 12 Tf 72 500 Td (cut off) Tj 0 220 Td (On the page) Tj ET").replace(
        b"/MediaBox [0 0 612 792]", b"/MediaBox [0 0 612 792] /CropBox [0 600 612 792]"
    )
    assert words(cropped) == "On the page"


@pytest.mark.parametrize("box", [b"[0 0 0 0]", b"[800 800 900 900]"])
def test_all_is_read_of_a_page_that_has_no_room(box: bytes) -> None:
    content = pdf_of_stream(b"BT /F1 12 Tf 72 720 Td (On the page) Tj ET")
    assert words(content.replace(b"792] ", b"792] /CropBox %s " % box)) == "On the page"


def test_words_that_lines_part_are_whole_and_those_with_a_hyphen_keep_it() -> None:
    lines = [
        b"The founda-", b"tion of a well-known and state-of-the-", b"art method is well-", b"known since COVID-",
        b"19. See https://example.com/my-", b"page for more, also on non-", b"English pages.",
    ]  # fmt: skip
    content = b"BT /F1 12 Tf 14 TL 72 720 Td %s ET" % b" ".join(b"(%s) Tj T*" % line for line in lines)
    assert " ".join((words(pdf_of_stream(content))).split()) == (
        "The foundation of a well-known and state-of-the-art method is well-known since COVID-19. "
        "See https://example.com/my-page for more, also on non-English pages."
    )


def test_letters_that_a_font_gives_as_bytes_are_read() -> None:
    text = "Справочный номер"
    pairs = [(code, letter) for code, letter in enumerate(sorted({*text} - {" "}), 0x41)]
    names = b"begincmap 1 begincodespacerange <00> <FF> endcodespacerange %d beginbfchar %s endbfchar endcmap" % (
        len(pairs),
        " ".join(f"<{code:02X}> <{letter.encode().hex()}>" for code, letter in pairs).encode(),
    )
    codes = {letter: chr(code) for code, letter in pairs}
    shown = "".join(codes.get(letter, letter) for letter in text).encode()
    content = pdf(
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 5 0 R "
        b"/Resources << /Font << /F1 4 0 R >> >> >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /ToUnicode 6 0 R >>",
        stream(b"BT /F1 12 Tf 72 720 Td (%s) Tj ET" % shown),
        stream(names),
    )
    assert words(content) == text


def test_what_is_written_onto_a_page_is_read_where_pdfium_opens_no_file() -> None:
    annotations = (
        b"/Annots [<< /Type /Annot /Subtype /FreeText /Contents (By hand) /Rect [0 0 99 20] >> "
        b"<< /Type /Annot /Subtype /Text /Contents (Is this right?) /Rect [0 30 99 50] >> "
        b"<< /Type /Annot /Subtype /Text /Contents (Hidden) /F 2 /Rect [0 30 99 50] >> "
        b"<< /Type /Annot /Subtype /Widget /FT /Tx /T (name) /V (Ada) /Rect [0 60 99 80] >>] /MediaBox"
    )
    content = pdf_of_stream(b"BT /F1 12 Tf 72 720 Td (On the page) Tj ET").replace(b"/MediaBox", annotations)
    crashed = CrashedPages()
    crashed.is_hopeless = True
    text = read_pdf(content, max_chars=1000, max_pages=1, crashed=crashed).text
    assert text == "[page 1]\nOn the page\nBy hand\n[comment: Is this right?]\n[field name: Ada]"


@pytest.mark.parametrize("letter", [b"a", b"-", b" ", b"a-"])
def test_the_time_that_a_long_line_takes_grows_with_its_length_alone(letter: bytes) -> None:
    begun = time.process_time()
    with suppress(UnreadableDocumentError):  # of spaces
        read_pdf(pdf_of_stream(b"BT /F1 1 Tf 72 720 Td (x%s) Tj ET" % (letter * 200_000)), max_chars=10**6, max_pages=1)
    assert time.process_time() - begun < 20  # a square of it would take hours
