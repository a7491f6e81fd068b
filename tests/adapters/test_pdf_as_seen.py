"""Pages of PDFs are read as a person sees them."""

import time
from collections.abc import Mapping
from contextlib import suppress

import pytest
from tests.documents import pdf, pdf_of_stream, stream

from textllm_adapters.documents import pdf as pdf_reader
from textllm_adapters.documents import pdfium
from textllm_adapters.documents.crashes import CrashedPages
from textllm_adapters.documents.misread import letters_of_names, letters_of_windows
from textllm_adapters.documents.pdf import read_pdf
from textllm_core.errors import UnreadableDocumentError


@pytest.fixture(autouse=True)
def in_a_process_that_has_just_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the child has: that of the tests has used up long ago what second opinions may take."""
    for module in (pdf_reader, pdfium):
        monkeypatch.setattr(module, "process_time", lambda: 0.0)


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


def pdf_named(shown: str, names: Mapping[str, str]) -> bytes:
    """A page in a font that says which characters, in hexadecimal, some letters are."""
    pairs = " ".join(f"<{ord(letter):02X}> <{name}>" for letter, name in names.items()).encode()
    space = b"begincmap 1 begincodespacerange <00> <FF> endcodespacerange"
    return pdf(
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 5 0 R "
        b"/Resources << /Font << /F1 4 0 R >> >> >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /ToUnicode 6 0 R >>",
        stream(b"BT /F1 12 Tf 72 720 Td (%s) Tj ET" % shown.encode()),
        stream(b"%s %d beginbfchar %s endbfchar endcmap" % (space, len(names), pairs)),
    )


def test_letters_that_a_font_gives_as_bytes_are_read() -> None:
    text = "Справочный номер"
    codes = {letter: chr(code) for code, letter in enumerate(sorted({*text} - {" "}), 0x41)}
    names = {codes[letter]: letter.encode().hex() for letter in codes}
    assert words(pdf_named("".join(codes.get(letter, letter) for letter in text), names)) == text


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


def one_by_one(letters: bytes, *, apart: float, rising: float = 0.0, gap: float = 0.0, behind: int = 99) -> bytes:
    """Each letter at a place of its own, and a gap behind one of them."""
    return b" ".join(
        b"BT /F1 12 Tf 1 0 0 1 %.2f %.2f Tm (%c) Tj ET"
        % (72 + apart * place + gap * (place >= behind), 720 + rising * place, letter)
        for place, letter in enumerate(letters)
    )


def test_a_small_space_between_words_is_seen() -> None:
    assert words(pdf_of_stream(one_by_one(b"nonoun", apart=6.7, gap=1.8, behind=2))) == "no noun"


def test_letters_that_are_set_apart_are_one_word() -> None:
    assert words(pdf_of_stream(b"BT /F1 12 Tf 2 Tc 72 720 Td (CONTENTS) Tj ET")) == "CONTENTS"


def test_words_that_stand_far_from_each_other_are_not_one() -> None:
    column = b" ".join(b"BT /F1 12 Tf 72 %d Td (%d) Tj ET" % (600 - 40 * row, row) for row in range(5))
    assert words(pdf_of_stream(column)).split() == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("shift", [b"0", b"0.5"])
def test_what_is_printed_twice_to_look_bold_is_read_once(shift: bytes) -> None:
    letters = one_by_one(b"guest", apart=7)
    bold = b"/Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica-Bold >> >>"
    form = b"/Type /XObject /Subtype /Form /BBox [0 0 612 792] /Resources << %s >>" % bold
    again = stream(b"1 0 0 1 %s 0 cm %s" % (shift, letters), form)
    assert words(pdf_of_stream(letters + b" /X Do", b"", again, resources=b"/XObject << /X 6 0 R >>")) == "guest"


def test_a_line_that_is_not_level_is_one() -> None:
    assert words(pdf_of_stream(one_by_one(b"uneven", apart=6.672, rising=1.6))) == "uneven"


def test_forms_within_forms_are_read_as_far_as_they_can_be_seen() -> None:
    inner = b"0.25 0 0 0.25 10 10 cm /X Do BT /F1 24 Tf 0 20 Td (again) Tj ET"
    form = (
        b"/Type /XObject /Subtype /Form /BBox [0 0 612 792] "
        b"/Resources << /Font << /F1 3 0 R >> /XObject << /X 6 0 R >> >>"
    )
    content = pdf_of_stream(b"/X Do", b"", stream(inner, form), resources=b"/XObject << /X 6 0 R >>")
    assert 1 <= words(content).split().count("again") <= 5


def test_a_word_at_the_edge_of_the_page_is_whole() -> None:
    content = pdf_of_stream(b"BT /F1 12 Tf 60 720 Td (Goodbye, world) Tj ET")
    assert words(content.replace(b"792] ", b"792] /CropBox [72 0 612 792] ")) == "Goodbye, world"


def test_latin_lines_are_read_from_the_left_where_pages_follow_each_other_from_the_right() -> None:
    content = pdf_of_stream(b"BT /F1 12 Tf 72 720 Td (Page1 of 2) Tj ET")
    turned = content.replace(b"/Type /Catalog", b"/Type /Catalog /ViewerPreferences << /Direction /R2L >>")
    assert words(turned) == "Page1 of 2"


def with_field(flags: int, look: bytes, value: bytes) -> bytes:
    """A page with a field of a form, of a value and a look of its own."""
    field = (
        b"<< /Type /Annot /Subtype /Widget /FT /Tx /T (name) /V (%s) /F %d /Rect [72 600 272 620] /AP << /N 7 0 R >> >>"
    )
    appearance = b"/Type /XObject /Subtype /Form /BBox [0 0 200 20] /Resources << /Font << /F1 3 0 R >> >>"
    page = pdf_of_stream(
        b"BT /F1 12 Tf 72 720 Td (On the page) Tj ET",
        b"",
        field % (value, flags),
        stream(look, appearance),
    )
    catalog = b"/Type /Catalog /AcroForm << /Fields [6 0 R] >>"
    return page.replace(b"/Type /Catalog", catalog).replace(b"/MediaBox", b"/Annots [6 0 R] /MediaBox")


def test_a_value_whose_characters_stand_each_in_a_box_is_one() -> None:
    boxes = b" ".join(
        b"BT /F1 12 Tf %d 5 Td (%c) Tj ET" % (5 + 40 * place, digit) for place, digit in enumerate(b"8642")
    )
    assert words(with_field(4, boxes, b"8642")) == "On the page\n8642"


def test_a_field_that_is_not_to_be_seen_is_not_read() -> None:
    assert words(with_field(32, b"BT /F1 12 Tf 5 5 Td (Hidden) Tj ET", b"Hidden")) == "On the page"


def test_codes_that_are_no_characters_part_words() -> None:
    text = read_pdf(pdf_named("one_two", {"_": "0003"}), max_chars=100, max_pages=1).text
    assert text == "[page 1]\none two"


@pytest.mark.parametrize(
    ("misread", "text"),
    [
        ("La durÈe, l’ÈtÈ; Allg‰u, K‰se; schˆn, f¸r; qualitÈ", "La durée, l’Èté; Allgäu, Käse; schön, für; qualité"),
        ("col·lega, École, l’État, 20‰", "col·lega, École, l’État, 20‰"),
    ],
)
def test_letters_that_a_font_takes_from_the_old_macintosh_are_read(misread: str, text: str) -> None:
    assert letters_of_windows(misread) == text


def test_letters_that_are_told_by_the_name_of_their_glyph_are_read() -> None:
    assert letters_of_names("o/f_f_ice, /f_irst") == "office, first"


def test_words_of_letters_that_are_rare_everywhere_are_said_to_be_garbled() -> None:
    shown = "open access for all"
    names = {letter: f"{0x01DF + 2 * place:04X}" for place, letter in enumerate(sorted({*shown} - {" "}))}
    assert read_pdf(pdf_named(shown, names), max_chars=100, max_pages=1).warnings == ("page 1 may be garbled",)


@pytest.mark.parametrize(("names", "text"), [("00660066", "diff ff"), ("D835DC65", "di𝑥 𝑥")])
def test_a_glyph_may_be_several_letters_or_one_of_several_codes(names: str, text: str) -> None:
    assert words(pdf_named("di_ _", {"_": names})) == text
