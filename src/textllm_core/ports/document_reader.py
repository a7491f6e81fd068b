"""The text in files that people send."""

from collections.abc import Mapping
from typing import Final, Literal, Protocol, TypeAlias

from msgspec import Struct

from textllm_core.file_names import DOCX
from textllm_core.tenancy import Owner
from textllm_core.uploads import Upload

FileType: TypeAlias = Literal[
    "pdf", "docx", "pptx", "xlsx", "odt", "ods", "odp", "epub", "rtf", "eml", "txt", "md", "csv", "json", "html"
]

MEDIA_TYPES: Final[Mapping[FileType, str]] = {
    "pdf": "application/pdf",
    "docx": DOCX,
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "odt": "application/vnd.oasis.opendocument.text",
    "ods": "application/vnd.oasis.opendocument.spreadsheet",
    "odp": "application/vnd.oasis.opendocument.presentation",
    "epub": "application/epub+zip",
    "rtf": "application/rtf",
    "eml": "message/rfc822",
    "txt": "text/plain",
    "md": "text/markdown",
    "csv": "text/csv",
    "json": "application/json",
    "html": "text/html",
}


class Document(Struct, frozen=True, kw_only=True):
    """What a file is.

    Args:
        file_type: what its content is.
        pages: of a PDF; None for the others, which have no pages of their own.
        text_bytes: of a PDF that is not to be read here: so much text was found in it, a byte or two a character.
        is_text_counted: that is all of it.
        warnings: what may be wrong or missing in its text, such as `page 4 may be garbled`.
    """

    file_type: FileType
    pages: int | None = None
    text_bytes: int = 0
    is_text_counted: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def media_type(self) -> str:
        """Its media type, without parameters."""
        return MEDIA_TYPES[self.file_type]


class DocumentText(Document, frozen=True, kw_only=True):
    """What a file says. `text` is never blank; `\\n` and the tab are its only control characters."""

    text: str


class Picture(Struct, frozen=True):
    """An image that was made of another: `media_type` is "image/png" or "image/jpeg".

    Args:
        width, height: in pixels.
        warnings: what of the other one is not in it.
    """

    content: bytes
    media_type: str
    width: int
    height: int
    warnings: tuple[str, ...] = ()


class DocumentReader(Protocol):
    """Reads files that strangers made: none of them ends, blocks or fills the process that asks, and no owner's keep
    those of others waiting for longer than one takes.

    What a file is is told by its content, whatever its name is; which kind of text a text is, by its name.
    All methods raise the same.

    Raises:
        UnsupportedMediaTypeError: it is not one of the types above, or its name says PDF, DOCX or the like of something
            else.
        UnreadableDocumentError: damaged, encrypted, empty, or too much work; its `reason` says which.
        DocumentTooLargeError: it has more pages or characters than allowed, or unpacks to too many bytes.
        ServiceUnavailableError: too many documents, or too many of the owner's, wait to be read; the same call may pass
            later.
    """

    async def inspect(self, upload: Upload, *, owner: Owner, max_pages: int) -> Document:
        """Tell what a file is, without its text: for a model that reads the file itself.

        A PDF is opened, its pages and its text are counted; it may hold images alone, and be damaged as far as viewers
        of PDF can mend it. The others are told by their first bytes: what is wrong further on is for `read` to find.
        """
        ...

    async def read(self, upload: Upload, *, owner: Owner, max_chars: int, max_pages: int) -> DocumentText:
        """The text of a file, in its own order.

        A line `[page 3]` stands before the text of a PDF's third page, and `[page 3 could not be read]` in place of the
        text if that page is broken and others are not. What is filled into a form, and comments, end their page. Cells
        of a table are separated by tabs, rows by lines; items of lists begin with a hyphen. HTML loses its markup,
        scripts and styles; Markdown, CSV and JSON are left as they are.

        Args:
            max_chars: of the text, page marks included.
        """
        ...

    async def pages(self, upload: Upload, *, owner: Owner, most: int) -> tuple[Picture, ...]:
        """How the first pages of a PDF look, at most that many: for a model that sees where no text can be had.

        Raises:
            UnreadableDocumentError: none can be drawn.
            ServiceUnavailableError: as above.
        """
        ...

    async def picture(self, upload: Upload, *, owner: Owner, media_type: str) -> Picture:
        """The first image of a file in a form that all models take, the right way up.

        Args:
            media_type: what it is, as `kind_to_turn` says.
        Raises:
            UnsupportedMediaTypeError: it is damaged, or too much work.
            ImageTooLargeError: it has more than `MAX_PIXELS`, or too many bytes once it is turned.
            ServiceUnavailableError: as above.
        """
        ...
