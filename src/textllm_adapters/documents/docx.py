"""Text of DOCX files: a ZIP archive of XML parts (ECMA-376). Runs in the child alone."""

import posixpath
import zipfile
from collections.abc import Mapping
from io import BytesIO
from typing import Final

from textllm_adapters.documents.lines import Lines
from textllm_adapters.documents.outcomes import Found, unsupported
from textllm_adapters.documents.word_xml import ListStyles, Relationships, Text, check, parse
from textllm_core.errors import DocumentTooLargeError, UnreadableDocumentError

_MAX_ENTRIES: Final = 2_000
_MAX_UNPACKED_BYTES: Final = 50_000_000
_MAX_RATIO: Final = 100  # of unpacked to packed bytes
_FREE_BYTES: Final = 1_000_000  # of an entry, whatever its ratio
_PIECE_BYTES: Final = 64 * 1024
_ENCRYPTED_ENTRY: Final = 0x1  # a flag bit of an entry

_COMPOUND_FILE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # what Word wraps an encrypted DOCX in; and all of old DOC
_ENCRYPTED_PACKAGE: Final = "EncryptedPackage".encode("utf-16-le")

_CONTENT_TYPES: Final = "[Content_Types].xml"
_WORD_DOCUMENT: Final = b"application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
_MACROS: Final = b"macroEnabled"

_BEFORE: Final = ("header",)
_AFTER: Final = ("footnotes", "endnotes", "footer")


def read_docx(content: bytes, *, max_chars: int) -> Found:
    """Paragraphs, tables and lists in their order; headers before them, notes and footers behind."""
    if content.startswith(_COMPOUND_FILE):
        raise UnreadableDocumentError("encrypted") if _ENCRYPTED_PACKAGE in content else unsupported()
    parts = _xml_parts(content)
    types = parts.get(_CONTENT_TYPES, b"")
    if _WORD_DOCUMENT not in types or _MACROS in types:
        raise unsupported()
    for xml in parts.values():
        check(xml)
    main = _related(parts, "")["officeDocument"][0]
    related = _related(parts, main)
    list_styles = ListStyles()
    for part in related.get("styles", ()):
        parse(parts[part], list_styles)
    lines = Lines(max_chars)
    before, after = ([part for kind in kinds for part in related.get(kind, ())] for kinds in (_BEFORE, _AFTER))
    for part in (*before, main, *after):
        parse(parts[part], Text(lines, list_styles.ids))
    return Found(lines.text())


def _related(parts: Mapping[str, bytes], source: str) -> Mapping[str, list[str]]:
    """The parts that `source` refers to, by kind; "" is the package itself."""
    folder, name = posixpath.split(source)
    relationships = Relationships(folder)
    if (part := posixpath.join(folder, "_rels", f"{name}.rels")) in parts:
        parse(parts[part], relationships)
    return relationships.parts


def _xml_parts(content: bytes) -> dict[str, bytes]:
    """Its XML parts by name. Every entry is unpacked, so that none is a bomb for whoever unpacks it next."""
    parts: dict[str, bytes] = {}
    left = _MAX_UNPACKED_BYTES
    with zipfile.ZipFile(BytesIO(content)) as archive:
        entries = archive.infolist()
        if len(entries) > _MAX_ENTRIES or len({entry.filename for entry in entries}) < len(entries):
            raise UnreadableDocumentError("unsafe")
        for entry in entries:
            _check(entry)
            unpacked = _unpacked(archive, entry, left)
            left -= len(unpacked)
            if entry.filename.endswith((".xml", ".rels")):
                parts[entry.filename] = bytes(unpacked)
    return parts


def _check(entry: zipfile.ZipInfo) -> None:
    if entry.flag_bits & _ENCRYPTED_ENTRY:
        raise UnreadableDocumentError("encrypted")
    if entry.filename.lower().endswith("vbaproject.bin"):
        raise unsupported()
    parts = entry.filename.replace("\\", "/").split("/")
    if parts[0] == "" or ".." in parts or entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise UnreadableDocumentError("unsafe")


def _unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int) -> bytearray:
    """Its bytes, counted as they come: the sizes in its header may lie."""
    unpacked = bytearray()
    allowed = max(_FREE_BYTES, entry.compress_size * _MAX_RATIO)
    with archive.open(entry) as file:
        while piece := file.read(_PIECE_BYTES):
            unpacked += piece
            if len(unpacked) > most:
                raise DocumentTooLargeError(limit=_MAX_UNPACKED_BYTES, counts="unpacked_bytes")
            if len(unpacked) > allowed:
                raise UnreadableDocumentError("too_complex")
    return unpacked
