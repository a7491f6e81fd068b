"""What every reader keeps of the port `DocumentReader`, of files that are text already."""

import pytest

from textllm_core.errors import DocumentTooLargeError, UnreadableDocumentError
from textllm_core.ports.document_reader import Document, DocumentReader, DocumentText
from textllm_core.tenancy import Owner
from textllm_core.uploads import Upload

ANN = Owner("default", "ann")


async def read(reader: DocumentReader, name: str, content: bytes, *, max_chars: int = 1000) -> DocumentText:
    return await reader.read(Upload.of_bytes(name, content), owner=ANN, max_chars=max_chars, max_pages=10)


class DocumentReaderContract:
    """What every reader keeps of the port `DocumentReader`, of files that are text already.

    Fixture `reader`: one of them.
    """

    pytestmark = pytest.mark.asyncio

    @pytest.mark.parametrize(
        ("name", "file_type", "media_type"),
        [
            ("notes.txt", "txt", "text/plain"),
            ("NOTES.TXT", "txt", "text/plain"),
            ("notes.md", "md", "text/markdown"),
            ("notes.csv", "csv", "text/csv"),
            ("notes.json", "json", "application/json"),
        ],
    )
    async def test_text_is_read_as_it_is(
        self, reader: DocumentReader, name: str, file_type: str, media_type: str
    ) -> None:
        document = await read(reader, name, '{"river": "Nîl", "km": 6650}\n\t🏞\n'.encode())
        assert (document.file_type, document.media_type, document.pages) == (file_type, media_type, None)
        assert document.text == '{"river": "Nîl", "km": 6650}\n\t🏞\n'

    async def test_html_is_told_by_its_name(self, reader: DocumentReader) -> None:
        document = await read(reader, "page.html", b"<p>Hello</p>")
        assert (document.file_type, document.media_type) == ("html", "text/html")
        assert "Hello" in document.text

    async def test_the_type_is_told_without_reading(self, reader: DocumentReader) -> None:
        document = await reader.inspect(Upload.of_bytes("a.csv", b"x,y"), owner=ANN, max_pages=10)
        assert document == Document(file_type="csv", pages=None)

    async def test_line_ends_are_one_and_control_characters_none(self, reader: DocumentReader) -> None:
        document = await read(
            reader, "a.txt", b"\xef\xbb\xbfone\r\ntwo\rthree\tand \x00\x1b[31mfour\x7f, five, six, seven"
        )
        assert document.text == "one\ntwo\nthree\tand [31mfour, five, six, seven"

    async def test_text_may_be_as_long_as_allowed(self, reader: DocumentReader) -> None:
        assert (await read(reader, "a.txt", "é".encode() * 1000)).text == "é" * 1000

    async def test_longer_text_is_refused_with_the_limit(self, reader: DocumentReader) -> None:
        with pytest.raises(DocumentTooLargeError, match="more than 1000 characters") as refusal:
            await read(reader, "a.txt", "é".encode() * 1001)
        assert refusal.value.details() == {"limit": 1000, "counts": "characters"}

    @pytest.mark.parametrize("content", [b"", b" \n\t\r\n", b"\xef\xbb\xbf"])
    async def test_a_blank_file_is_refused(self, reader: DocumentReader, content: bytes) -> None:
        with pytest.raises(UnreadableDocumentError, match="The file is empty") as refusal:
            await read(reader, "a.txt", content)
        assert refusal.value.reason == "empty"

    @pytest.mark.parametrize(
        "name", ["a.exe", "a.docm", "a.txt.zip", "a.txt\r\n", "a.\u202etxt.exe", "", "README", "a."]
    )
    async def test_text_is_read_whatever_its_name(self, reader: DocumentReader, name: str) -> None:
        document = await read(reader, name, b"Hello")
        assert (document.text, document.file_type) == ("Hello", "txt")

    @pytest.mark.parametrize(
        "name",
        ["../../etc/passwd.txt", "C:\\notes.txt", "a\x00b.txt", "a\r\nb: c.txt", "\u202efdp.txt", "n" * 4096 + ".txt"],
    )
    async def test_the_rest_of_a_name_does_not_matter(self, reader: DocumentReader, name: str) -> None:
        assert (await read(reader, name, b"Hello")).text == "Hello"

    @pytest.mark.parametrize("name", ["a.pdf", "a.docx", "a.xlsx"])
    async def test_text_whose_name_says_something_else_is_read(self, reader: DocumentReader, name: str) -> None:
        document = await read(reader, name, b"a,b\n1,2\n")
        assert (document.file_type, document.text) == ("txt", "a,b\n1,2\n")
