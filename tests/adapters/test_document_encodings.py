"""Text and HTML in any encoding."""

import pytest
from tests.reader_here import ReaderHere

from textllm_adapters.documents.html import read_html
from textllm_adapters.documents.plain_text import decode, read_plain_text
from textllm_adapters.documents.taiwan import by_iconv
from textllm_core.errors import UnsupportedMediaTypeError
from textllm_core.ports.document_reader import DocumentText
from textllm_core.tenancy import Owner
from textllm_core.uploads import Upload

ANN = Owner("default", "ann")


async def read(name: str, content: bytes) -> DocumentText:
    return await ReaderHere().read(Upload.of_bytes(name, content), owner=ANN, max_chars=1000, max_pages=1)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Grüße aus Köln, schöne Straße", "latin-1"),
        ("Prix : 5 € – déjà vu, naïve “quote”", "cp1252"),
        ("Zażółć gęślą jaźń, to jest tekst po polsku", "cp1250"),
        ("Привет, как дела? Это текст по-русски.", "cp1251"),
        ("Привет, как дела? Это текст по-русски.", "koi8-r"),
        ("日本語のテキストです。これは文章です。", "shift_jis"),
        ("这是一个中文文本，用于测试编码。", "gb18030"),
        ("这是一个中文文本", "hz"),
        ("日本語のテキスト", "iso2022_jp"),
        ("한국어 텍스트", "iso2022_kr"),
        ("Привет, как дела? Это текст по-русски.", "cp866"),
        ("Straße;Ort\nHauptstraße 3;Köln", "cp1252"),
        ("naïve “quote” – 5 €", "cp1252"),
        ("Çok güzel, teşekkürler, ışık ve bahçe", "cp1254"),
        ("Łódź, Gdańsk i Kraków to miasta w Polsce, które są piękne", "iso8859-2"),
        ("Grüße aus Köln 🏞", "utf-32-le"),
        ("日本", "utf-32-be"),
        ("Any text 🏞", "utf-16"),
        ("Any text 🏞", "utf-32"),
        ("Grüße aus Köln 🏞", "utf-16-le"),
        ("Grüße aus Köln 🏞", "utf-16-be"),
        ("a", "utf-16-le"),
        ("a", "utf-8"),
        ("Any text 🏞", "utf-8-sig"),
    ],
)
async def test_text_is_read_in_its_encoding(text: str, encoding: str) -> None:
    assert (await read("a.txt", text.encode(encoding))).text == text


@pytest.mark.skipif(by_iconv(b"a") is None, reason="the C library of this system has no table of EUC-TW")
def test_traditional_chinese_in_euc_tw_is_read() -> None:
    content = bytes.fromhex("eac4d9d7c4cbcca8cfafeabde6fbd2b3f6f0e2f5c5b2c4b6cfa1c6bed6c0cbc6")
    assert decode(content) == ("維基大典者網路為礎集天下知四海言", ())
    with pytest.raises(UnsupportedMediaTypeError):
        decode(content + b"\xfe\xfe")  # which is no character


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("日本語のテキストです。".encode()[:-1], "日本語のテキストです\ufffd"),
        ("Grüße ".encode() * 10 + b"\xff" + "日本語".encode(), "Grüße " * 10 + "\ufffd日本語"),
        ("日本語".encode()[1:] + "のテキスト".encode() * 6, "\ufffd\ufffd本語" + "のテキスト" * 6),
        ("Grüße \ufffd".encode() * 10 + b"\xff", "Grüße \ufffd" * 10 + "\ufffd"),
    ],
)
async def test_utf_8_is_read_although_a_few_of_its_bytes_are_faulty(content: bytes, text: str) -> None:
    assert (await read("a.txt", content)).text == text


@pytest.mark.parametrize(
    ("content", "warnings"),
    [
        (("Привет, как дела? " * 9).encode("cp1251"), ()),
        ("Müller".encode("cp1252"), ("the encoding of the text is not sure; it was read as windows-1250",)),
        (
            ("Jūs zināt, ka šī ir " * 9).encode("iso8859-10"),
            ("the encoding of the text is not sure; it was read as iso8859-4",),
        ),
        (
            ("Aceștia știu și își țin țara. " * 9).encode("iso8859-16"),
            ("the encoding of the text is not sure; it was read as windows-1250",),
        ),
        (("Grüße " * 20).encode() + b"\xff", ("some characters could not be read",)),
        ("Grüße".encode("utf-16") + b"\0", ("some characters could not be read",)),
    ],
)
def test_text_whose_encoding_is_a_guess_or_that_is_damaged_says_so(content: bytes, warnings: tuple[str, ...]) -> None:
    for reading in (read_plain_text, read_html):
        assert reading(content, max_chars=1000).warnings == warnings


@pytest.mark.parametrize("lines", [2, 20])
async def test_some_binary_in_a_log_makes_no_utf_16(lines: int) -> None:
    content = b"line ok\nline \0\x01\x02 binary\nline ok\n" * lines
    assert (await read("a.txt", content)).text == "line ok\nline  binary\nline ok\n" * lines


@pytest.mark.parametrize("content", [b"abc\0def", b"abc\0", b"\0abc", b"a\0b", b"ab\0cd\0ef"])
async def test_a_stray_nul_makes_no_utf_16(content: bytes) -> None:
    with pytest.raises(UnsupportedMediaTypeError):
        await read("a.txt", content)


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.csv", "a.json", "a.html"])
@pytest.mark.parametrize("end", [b"\x1a", b"\x1a" * 100])
async def test_the_mark_that_dos_puts_at_the_end_of_a_file_is_no_part_of_its_text(name: str, end: bytes) -> None:
    assert (await read(name, b"a" + end)).text == "a"


@pytest.mark.parametrize("text", ["La cité", "Straße, Grüße, Äpfel; not Ã¼ or Ã¤"])
async def test_text_is_not_taken_for_damaged_utf_8(text: str) -> None:
    assert (await read("a.txt", text.encode("cp1252"))).text == text


@pytest.mark.parametrize(
    ("label", "text", "encoding"),
    [
        ("iso-8859-2", "Łódź", "iso8859-2"),
        ("windows-1251", "Привет, мир", "cp1251"),
        ("Shift_JIS", "日本語①", "cp932"),
        ("x-sjis", "日本語①", "cp932"),
        ("iso-8859-1", "5 €", "cp1252"),
        ("gb2312", "镕", "gb18030"),
        ("iso-2022-jp", "日本語", "iso2022_jp"),
        ("windows-874", "ไทย", "cp874"),
        ("x-mac-cyrillic", "мир", "mac-cyrillic"),
        ("utf-8", "Łódź", "utf-8"),
        ("utf-16", "Łódź", "utf-8"),
        ("windows-1251", "Łódź", "utf-8-sig"),
        ("windows-1251", "Łódź", "utf-16"),
    ],
)
async def test_html_is_read_in_the_encoding_that_it_declares(label: str, text: str, encoding: str) -> None:
    for meta in (
        f"<meta charset={label}>",
        f"<META\nCharset = '{label}' />",
        f'<meta content="text/html; charset={label}" http-equiv="Content-Type">',
    ):
        assert (await read("a.html", f"<title>A</title>{meta}<p>{text}".encode(encoding))).text == f"A\n{text}"


@pytest.mark.parametrize(
    "beginning",
    [
        "<!-- <meta charset=windows-1251> -->",
        "<!-- <meta charset=windows-1251> --><meta charset=windows-1250>",
        "<!--><meta charset=windows-1250><!-- -->",
        '<meta name="description" content="charset=windows-1251"><meta charset=windows-1250>',
        "<meta charset=windows-1250><meta charset=windows-1251>",
        "<meta charset=ascii-of-mine>",
        "<meta charset=rot13>",
        "<meta charset=utf-7>",
        "<meta charset=''>",
        "<meta charset=ł>",
        "<meta charset=euc-kr>",
    ],
)
async def test_what_declares_no_fitting_encoding_of_html_is_passed_over(beginning: str) -> None:
    text = "Zażółć gęślą jaźń, to jest tekst po polsku"
    assert (await read("a.html", f"{beginning}<p>{text}</p>".encode("cp1250"))).text == text


async def test_an_encoding_of_html_whose_name_has_a_nul_is_passed_over() -> None:
    assert (await read("a.html", "<meta charset='a\0b'>Łódź".encode())).text == "Łódź"
