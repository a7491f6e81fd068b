"""Documents read in child processes: what a stranger's file does to its parser is done to nobody else."""

import asyncio
import os
import re
import signal
import sys
from contextlib import suppress
from typing import Final, get_args

import msgspec

from textllm_adapters.documents.child_process import Child, child_of
from textllm_adapters.documents.outcomes import (
    OVERHEAD_BYTES,
    Found,
    Outcome,
    found_in,
    pages_in,
    picture_in,
    unsupported,
)
from textllm_adapters.documents.waiting_line import WaitingLine
from textllm_core.errors import ServiceUnavailableError, UnreadableDocumentError, UnreadableReason
from textllm_core.file_names import media_type_of
from textllm_core.images import damaged
from textllm_core.ports.document_reader import Document, DocumentText, FileType, Picture
from textllm_core.tenancy import Owner
from textllm_core.uploads import Upload

_CHILD: Final = (sys.executable, "-I", "-m", "textllm_adapters.documents.child")
_MOST_BYTES_OF_PICTURE: Final = 24 * 1024 * 1024  # 16 MB of it, in base64
_HEAD_BYTES: Final = 1024  # as far as readers of PDF look for its mark

# How a file of a type begins; text begins like none of them. Word keeps an encrypted DOCX in a compound file.
_PDF: Final = b"%PDF-"
_PDF_OBJECT: Final = re.compile(rb"\b[0-9]+ [0-9]+ obj\b")
_ZIP: Final = b"PK\x03\x04"
_COMPOUND_FILE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_RTF: Final = b"{\\rtf"
_HTML: Final = re.compile(rb"(?:<!--.*?-->\s*)?<(?:!doctype html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
# Two fields of a message's head, the first of which texts of other kinds do not begin with (RFC 5322, 3.6).
_MAIL: Final = re.compile(
    rb"(?:Return-Path|Received|Delivered-To|Message-ID|MIME-Version|From|To|Date|Subject|X-[\w-]+): [^\r\n]*"
    rb"(?:\r?\n[ \t][^\r\n]*)*\r?\n[A-Za-z][\w-]*: ",
    re.IGNORECASE,
)
_NO_TEXTS: Final = frozenset({"pdf", "docx", "pptx", "xlsx", "odt", "ods", "odp", "epub"})
_ENDINGS: Final[dict[str, FileType]] = {**{kind: kind for kind in get_args(FileType)}, "htm": "html", "markdown": "md"}

# What a child died of that could not say so itself. The last two: the kernel, or a library, out of memory.
_DEATHS: Final[dict[int, UnreadableReason]] = {
    -signal.SIGXCPU: "timed_out",
    -signal.SIGKILL: "too_complex",
    -signal.SIGABRT: "too_complex",
}

_OWN_FAULT_S: Final = 2.0  # of processor time; an honest document of some pages takes less: then others held it up
_COME_BACK_S: Final = 10  # about as long as it waited in vain
_BUSY: Final = "The document could not be read in time, since the service is busy; send this again later."


class ChildDocumentReader:
    """A `DocumentReader` that starts a fresh process for each document, `at_once` at a time.

    A child has 768 MiB of memory, 10 s of processor time and no right to write a file. Only what it prints comes back:
    at most the text that is allowed.

    Args:
        at_once: how many children run at a time; unless said otherwise, one for each processor, and one that the
            documents of a single user cannot take.
        max_waiting: how many more documents may stand in the `WaitingLine`.
        timeout_s: how long one child may take.
        patience_s: how long a document may wait; longer than a child may take, or one that came right after a
            stranger's slowest would be refused for it.
    """

    def __init__(
        self,
        *,
        at_once: int | None = None,
        max_waiting: int = 64,
        timeout_s: float = 14.0,
        patience_s: float = 20.0,
    ) -> None:
        places = at_once or (os.cpu_count() or 1) + 1
        self._line = WaitingLine(places=places, max_waiting=max_waiting, patience_s=patience_s)
        self._timeout_s = timeout_s

    async def inspect(self, upload: Upload, *, owner: Owner, max_pages: int) -> Document:
        """As the port says; a PDF is opened in a child."""
        file_type = await file_type_of(upload)
        if file_type != "pdf":
            return Document(file_type=file_type)
        found = await self._ask("inspect", file_type, upload, owner=owner, max_chars=0, max_pages=max_pages)
        return Document(
            file_type=file_type,
            pages=found.pages,
            text_bytes=found.text_bytes,
            is_text_counted=found.is_text_counted,
            warnings=found.warnings,
        )

    async def read(self, upload: Upload, *, owner: Owner, max_chars: int, max_pages: int) -> DocumentText:
        """As the port says."""
        file_type = await file_type_of(upload)
        found = await self._ask("read", file_type, upload, owner=owner, max_chars=max_chars, max_pages=max_pages)
        named, warnings = _named(upload), found.warnings
        if named in _NO_TEXTS and file_type in ("txt", "html"):
            warnings = (f"its name says that it is {named.upper()}, but it is text, and was read as that", *warnings)
        return DocumentText(
            file_type=found.file_type or file_type, text=found.text, pages=found.pages, warnings=warnings
        )

    async def pages(self, upload: Upload, *, owner: Owner, most: int) -> tuple[Picture, ...]:
        """As the port says."""
        outcome = await self._outcome(
            "draw", "pdf", upload, "0", str(most), owner=owner, max_bytes=_MOST_BYTES_OF_PICTURE
        )
        return pages_in(outcome)

    async def picture(self, upload: Upload, *, owner: Owner, media_type: str) -> Picture:
        """As the port says."""
        try:
            outcome = await self._outcome("picture", media_type, upload, owner=owner, max_bytes=_MOST_BYTES_OF_PICTURE)
        except UnreadableDocumentError as error:  # killed, or too slow
            raise damaged(media_type) from error
        return picture_in(outcome, media_type)

    async def _ask(
        self, action: str, file_type: FileType, upload: Upload, *, owner: Owner, max_chars: int, max_pages: int
    ) -> Found:
        limits = (str(max_chars), str(max_pages))
        max_bytes = 4 * max_chars + OVERHEAD_BYTES
        outcome = await self._outcome(action, file_type, upload, *limits, owner=owner, max_bytes=max_bytes)
        return found_in(outcome, _named(upload) or file_type)

    async def _outcome(
        self, action: str, what: str, upload: Upload, *limits: str, owner: Owner, max_bytes: int
    ) -> Outcome:
        async with self._line.place(owner), child_of(*_CHILD, action, what, *(limits or ("0", "0"))) as child:
            try:
                async with asyncio.timeout(self._timeout_s):
                    await _send(child, upload)
                    line = await _output(child, max_bytes=max_bytes)
                    status = await child.ended()
            except TimeoutError as error:
                if child.processor_s() < _OWN_FAULT_S:
                    raise ServiceUnavailableError(_BUSY, retry_after_s=_COME_BACK_S) from error
                raise UnreadableDocumentError("timed_out") from error
        if status > 0:
            raise RuntimeError(f"the document reader's child could not start: exit status {status}")
        if status < 0:
            raise UnreadableDocumentError(_DEATHS.get(status, "damaged"))
        return msgspec.json.decode(line, type=Outcome)  # type: ignore[no-any-return]


def _named(upload: Upload) -> FileType | None:
    """What the ending of its name says it is; None where there is none, or one that is not read here."""
    _, dot, ending = upload.name.rpartition(".")
    return _ENDINGS.get(ending.lower()) if dot else None


async def file_type_of(upload: Upload) -> FileType:
    """What it is, by its content; kinds of text by their names. "docx" is any ZIP archive: its child looks into it."""
    named = _named(upload)
    head = await upload.beginning(_HEAD_BYTES)
    begins = head.lstrip(b"\xef\xbb\xbf\t\n\f\r ")
    if not begins and upload.size <= _HEAD_BYTES:
        raise UnreadableDocumentError.of_empty_file()
    if begins.startswith(_PDF):
        return "pdf"
    if head.startswith((_ZIP, _COMPOUND_FILE)):
        return "docx"
    if begins.startswith(_RTF):
        return "rtf"
    is_image = media_type_of(head).startswith("image/")
    if named in {None, "pdf"} and _PDF in head and not is_image:
        return "pdf"  # mail, scanners and web servers put lines of their own before it, and every viewer looks for it
    if named == "pdf" and _PDF_OBJECT.search(head) and not is_image:
        return "pdf"  # whose first line is lost
    if named == "eml" or (named in {None, "txt"} and _MAIL.match(begins)):
        return "eml"
    if named in _NO_TEXTS:  # a table in HTML, or one in CSV, is what many programs call a spreadsheet
        if media_type_of(head).startswith("image/"):
            raise unsupported(named)
        named = None
    if named is None and _HTML.match(begins):
        return "html"
    return named if named is not None and named != "rtf" else "txt"


async def _send(child: Child, upload: Upload) -> None:
    """The whole file, or as much of it as the child takes: the status of one that ends early says why it did."""
    with suppress(BrokenPipeError, ConnectionResetError):
        async for piece in upload.read():
            if child.input.is_closing():  # found out while we waited for the piece; uvloop refuses to write then
                return
            child.input.write(piece)
            await child.input.drain()
        if not child.input.is_closing():
            child.input.write_eof()
            await child.input.drain()


async def _output(child: Child, *, max_bytes: int) -> bytes:
    """All that it prints."""
    try:
        await child.output.readexactly(max_bytes + 1)
    except asyncio.IncompleteReadError as everything:
        return everything.partial
    raise UnreadableDocumentError("too_complex")
