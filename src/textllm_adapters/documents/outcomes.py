"""What the child tells its parent, as one line of JSON."""

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from textllm_core.errors import (
    DocumentTooLargeError,
    ImageTooLargeError,
    TextLLMError,
    UnreadableDocumentError,
    UnreadableReason,
    UnsupportedMediaTypeError,
)
from textllm_core.images import damaged
from textllm_core.ports.document_reader import FileType, Picture


class Found(Struct, frozen=True, tag=True):
    """What was asked for: `text` is empty where it was only to be counted, else `text_bytes` is 0.

    Args:
        file_type: what it turned out to be; None: what it was taken for.
    """

    text: str = ""
    pages: int | None = None
    text_bytes: int = 0
    is_text_counted: bool = False
    file_type: FileType | None = None
    warnings: tuple[str, ...] = ()


class Unreadable(Struct, frozen=True, tag=True):
    """See `UnreadableDocumentError`."""

    reason: UnreadableReason


class TooLarge(Struct, frozen=True, tag=True):
    """See `DocumentTooLargeError`."""

    limit: int
    counts: Literal["pages", "characters", "unpacked_bytes"]


class Unsupported(Struct, frozen=True, tag=True):
    """See `UnsupportedMediaTypeError`."""


class Pictured(Struct, frozen=True, tag=True):
    """See `Picture`."""

    content: bytes
    media_type: str
    width: int
    height: int
    warnings: tuple[str, ...] = ()


class Drawn(Struct, frozen=True, tag=True):
    """Pages of a PDF."""

    pages: tuple[Pictured, ...]


class TooLargeImage(Struct, frozen=True, tag=True):
    """See `ImageTooLargeError`."""

    message: str
    limit: int
    counts: Literal["bytes", "pixels"]


Outcome: TypeAlias = Found | Pictured | Drawn | Unreadable | TooLarge | TooLargeImage | Unsupported

# Beyond the text, whose characters take at most four bytes each: everything else in the line.
OVERHEAD_BYTES: Final = 64 * 1024


_KINDS: Final[Mapping[FileType, str]] = {
    "pdf": "PDF",
    "docx": "DOCX without macros",
    "pptx": "PPTX without macros",
    "xlsx": "XLSX without macros",
    "odt": "ODT",
    "ods": "ODS",
    "odp": "ODP",
    "epub": "EPUB",
}


def unsupported(file_type: FileType) -> UnsupportedMediaTypeError:
    """The content of a file is not of the type that it was taken for."""
    kind = _KINDS.get(file_type, "text")
    return UnsupportedMediaTypeError(
        f"The content of the file is not {kind}: save it as {kind}, or rename it to end in what it is."
    )


def outcome_of(error: TextLLMError) -> Outcome:
    """A refusal in the child, to be sent."""
    match error:
        case UnreadableDocumentError():
            return Unreadable(error.reason)
        case ImageTooLargeError():
            return TooLargeImage(str(error), error.limit, "pixels" if error.counts == "pixels" else "bytes")
        case DocumentTooLargeError():
            return TooLarge(error.limit, error.counts)
        case UnsupportedMediaTypeError():
            return Unsupported()
    raise error


def found_in(outcome: Outcome, file_type: FileType) -> Found:
    """What was found in a file of this type, or the refusal, raised in the parent."""
    match outcome:
        case Found():
            return outcome
        case Unreadable():
            raise UnreadableDocumentError(outcome.reason)
        case TooLarge():
            raise DocumentTooLargeError(limit=outcome.limit, counts=outcome.counts)
    raise unsupported(file_type)


def pages_in(outcome: Outcome) -> tuple[Picture, ...]:
    """The pages that were drawn, or the refusal."""
    match outcome:
        case Drawn():
            return tuple(picture_in(page, page.media_type) for page in outcome.pages)
        case Unreadable():
            raise UnreadableDocumentError(outcome.reason)
    raise unsupported("pdf")


def picture_in(outcome: Outcome, media_type: str) -> Picture:
    """What became of an image of that type, or the refusal."""
    match outcome:
        case Pictured():
            return Picture(outcome.content, outcome.media_type, outcome.width, outcome.height, outcome.warnings)
        case TooLargeImage():
            raise ImageTooLargeError(outcome.message, limit=outcome.limit, counts=outcome.counts)
    raise damaged(media_type)
