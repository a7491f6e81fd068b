"""Documents that are text already."""

from collections.abc import Mapping
from typing import Final
from unicodedata import category

from textllm_core.errors import DocumentTooLargeError, UnreadableDocumentError, UnsupportedMediaTypeError
from textllm_core.ports.document_reader import Document, DocumentText, FileType, Picture
from textllm_core.tenancy import Owner
from textllm_core.uploads import Upload

_KINDS: Final[Mapping[str, FileType]] = {"md": "md", "csv": "csv", "json": "json", "html": "html"}
_NO_TEXTS: Final = (b"%PDF-", b"PK\x03\x04")  # how others begin


class MemoryDocumentReader:
    """A `DocumentReader` for text in UTF-8, HTML with its markup; its kind of text is told by its name."""

    async def inspect(self, upload: Upload, *, owner: Owner, max_pages: int) -> Document:  # noqa: ARG002 - as below
        """As the port says."""
        return Document(file_type=await _file_type(upload))

    async def read(
        self,
        upload: Upload,
        *,
        owner: Owner,  # noqa: ARG002 - nobody waits
        max_chars: int,
        max_pages: int,  # noqa: ARG002 - text has none
    ) -> DocumentText:
        """As the port says."""
        file_type = await _file_type(upload)
        content = b"".join([piece async for piece in upload.read()])
        try:
            text = _clean(content.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            raise UnsupportedMediaTypeError("The file is not text in UTF-8.") from error
        if len(text) > max_chars:
            raise DocumentTooLargeError(limit=max_chars, counts="characters")
        if not text.strip():
            raise UnreadableDocumentError.of_empty_file()
        warnings = ("some characters could not be read",) if "\ufffd" in text else ()
        return DocumentText(file_type=file_type, text=text, warnings=warnings)

    async def pages(self, upload: Upload, *, owner: Owner, most: int) -> tuple[Picture, ...]:  # noqa: ARG002 - as above
        """None is drawn here."""
        raise UnreadableDocumentError("empty")

    async def picture(self, upload: Upload, *, owner: Owner, media_type: str) -> Picture:  # noqa: ARG002 - as above
        """None is turned here."""
        raise UnsupportedMediaTypeError(f"No {media_type} is turned here; send PNG, JPEG, WebP or GIF.")


def _clean(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(character for character in text if character in "\n\t" or category(character) != "Cc")


async def _file_type(upload: Upload) -> FileType:
    if (await upload.beginning(8)).startswith(_NO_TEXTS):
        raise UnsupportedMediaTypeError("Only files of text are read here.")
    return _KINDS.get(upload.name.rpartition(".")[2].lower(), "txt")
