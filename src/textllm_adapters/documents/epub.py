"""Chapters of EPUB files (EPUB 3.3, 3.1 and 4.2), read as the HTML that they are. Runs in the child alone."""

import posixpath
from io import BytesIO
from typing import Any, Final
from urllib.parse import unquote
from zipfile import ZipFile

from docx.oxml import parse_xml

from textllm_adapters.documents.html import add_html
from textllm_adapters.documents.lines import Lines
from textllm_adapters.documents.outcomes import Found
from textllm_core.errors import UnreadableDocumentError

_CONTAINER: Final = "META-INF/container.xml"
_HIDDEN: Final = frozenset({"script", "style", "title"})  # the title of a chapter is said in it again
_ENCRYPTION: Final = "META-INF/encryption.xml"


def read_epub(content: bytes, *, max_chars: int) -> Found:
    """Its title and authors, and the text of its chapters, in the order in which they are read.

    Raises:
        UnreadableDocumentError: a chapter is encrypted.
    """
    lines = Lines(max_chars)
    with ZipFile(BytesIO(content)) as archive:
        names = frozenset(archive.namelist())
        locked = archive.read(_ENCRYPTION).decode("utf-8", "replace") if _ENCRYPTION in names else ""
        package = _package(archive)
        described = parse_xml(archive.read(package))
        for named in (*described.iterfind(".//{*}title"), *described.iterfind(".//{*}creator")):
            lines.add(" ".join((named.text or "").split()))
        for chapter in _chapters(described, posixpath.dirname(package)):
            if chapter in locked:
                raise UnreadableDocumentError("encrypted")
            if chapter in names:
                add_html(archive.read(chapter), lines, hidden=_HIDDEN)
    return Found(lines.text(), file_type="epub")


def _package(archive: ZipFile) -> str:
    """The name of the file that describes the book."""
    root = parse_xml(archive.read(_CONTAINER)).find(".//{*}rootfile")
    return "" if root is None else str(root.get("full-path", ""))


def _chapters(described: Any, folder: str) -> list[str]:
    """The names of the files in its spine."""
    items = {item.get("id"): item.get("href", "") for item in described.iterfind(".//{*}manifest/{*}item")}
    read = [items.get(item.get("idref"), "") for item in described.iterfind(".//{*}spine/{*}itemref")]
    return [posixpath.normpath(posixpath.join(folder, unquote(href))) for href in read if href]
