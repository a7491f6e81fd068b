"""Files of office programs, told by what is in them. Runs in the child alone."""

from typing import Final

from textllm_adapters.documents.outcomes import Found, unsupported
from textllm_adapters.documents.packages import check
from textllm_core.errors import UnreadableDocumentError

_COMPOUND_FILE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # what Office wraps an encrypted file in; and all old ones
_ENCRYPTED_PACKAGE: Final = "EncryptedPackage".encode("utf-16-le")


def read_package(content: bytes, *, max_chars: int) -> Found:
    """The text of a DOCX, PPTX, XLSX, ODT, ODS, ODP or EPUB file."""
    if content.startswith(_COMPOUND_FILE):
        raise UnreadableDocumentError("encrypted") if _ENCRYPTED_PACKAGE in content else unsupported("docx")
    match check(content):  # its reader is loaded once it is known to be safe
        case "pptx":
            from textllm_adapters.documents.slides import read_pptx

            return read_pptx(content, max_chars=max_chars)
        case "xlsx":
            from textllm_adapters.documents.sheets import read_xlsx

            return read_xlsx(content, max_chars=max_chars)
        case "epub":
            from textllm_adapters.documents.epub import read_epub

            return read_epub(content, max_chars=max_chars)
        case "odt" | "ods" | "odp" as file_type:
            from textllm_adapters.documents.open_document import read_open_document

            return read_open_document(content, file_type=file_type, max_chars=max_chars)
    from textllm_adapters.documents.docx import read_docx

    return read_docx(content, max_chars=max_chars)
