"""What is wrong with a file or a document that was sent."""

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from textllm_core.errors.base import TextLLMError
from textllm_core.uploads import in_bytes


class FileTooLargeError(TextLLMError):
    """The file has more bytes than the operator allows; `limit` is the most of what `counts` names."""

    code = "file_too_large"
    tells = ("limit", "counts")
    counts: Literal["bytes", "pixels", "stored_bytes"] = "bytes"

    def __init__(self, *, limit: int) -> None:
        super().__init__(
            f"The file is larger than {in_bytes(limit)}, the most that is allowed (the setting max_file_size_mb)."
        )
        self.limit = limit

    @classmethod
    def of_all(cls, *, limit: int) -> "FileTooLargeError":
        """All files of one request together."""
        error = cls(limit=limit)
        error.args = (f"The files together have more than {in_bytes(limit)}; send fewer or smaller ones.",)
        return error

    @classmethod
    def of_export(cls, *, limit: int) -> "FileTooLargeError":
        """A conversation of an export."""
        error = cls(limit=limit)
        error.args = (
            f"The conversation is larger than {in_bytes(limit)}, the most that is taken at once (the setting "
            "max_file_size_mb).",
        )
        return error


class ImageTooLargeError(FileTooLargeError):
    """An image has more pixels than allowed, or the images of a turn more bytes."""

    def __init__(self, message: str, *, limit: int, counts: Literal["bytes", "pixels"]) -> None:
        TextLLMError.__init__(self, message)
        self.limit, self.counts = limit, counts


class StorageQuotaExceededError(FileTooLargeError):
    """The file would make all files of the tenant together larger than the operator allows."""

    counts = "stored_bytes"

    def __init__(self, *, limit: int) -> None:
        TextLLMError.__init__(
            self,
            f"All files together may have {in_bytes(limit)} (the setting max_storage_mb_per_tenant); delete some to "
            "store this one.",
        )
        self.limit = limit


class UnsupportedMediaTypeError(TextLLMError):
    """The content is of a type that is not taken, or not of the type that its name says."""

    code = "unsupported_media_type"


UnreadableReason: TypeAlias = Literal["damaged", "encrypted", "empty", "unsafe", "timed_out", "too_complex"]
"""Why nothing could be read in a document."""


_UNREADABLE: Final[Mapping[UnreadableReason, str]] = {
    "damaged": "The document is damaged; open it, save it again, and send that.",
    "encrypted": "The document is encrypted; remove its password first, and send that.",
    "empty": "The document has no text; images of text must be turned into text first.",
    "unsafe": "The document is built in a way that no word processor builds one, and is not opened.",
    "timed_out": "The document takes too long to read; send a simpler one, or its text.",
    "too_complex": "The document takes too much memory to read; send a simpler one, or its text.",
}


class UnreadableDocumentError(TextLLMError):
    """The document's text cannot be had; `reason` says why."""

    code = "unreadable_document"
    tells = ("reason",)

    def __init__(self, reason: UnreadableReason, message: str | None = None) -> None:
        super().__init__(message or _UNREADABLE[reason])
        self.reason = reason

    @classmethod
    def of_empty_file(cls) -> "UnreadableDocumentError":
        """A file without any bytes, or with nothing but white space."""
        return cls("empty", "The file is empty; send one that has text.")


_DOCUMENT_SETTINGS: Final = {"pages": "max_document_pages", "characters": "max_document_chars"}


class DocumentTooLargeError(TextLLMError):
    """The document is longer than allowed; `limit` is the most of what `counts` names."""

    code = "document_too_large"
    tells = ("limit", "counts")

    def __init__(self, *, limit: int, counts: Literal["pages", "characters", "unpacked_bytes"]) -> None:
        most = f"{in_bytes(limit)} unpacked" if counts == "unpacked_bytes" else f"{limit} {counts}"
        setting = _DOCUMENT_SETTINGS.get(counts)
        of_setting = "" if setting is None else f" (the setting {setting})"
        super().__init__(f"The document has more than {most}, the most that is allowed{of_setting}.")
        self.limit, self.counts = limit, counts
