"""What must hold of a file that is a ZIP archive of XML parts before a library opens it, and what is mended.

These are DOCX, PPTX and XLSX (ECMA-376), OpenDocument and EPUB. Runs in the child alone.
"""

import posixpath
import re
import zipfile
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Final
from xml.parsers import expat

from docx.opc.constants import CONTENT_TYPE, RELATIONSHIP_TARGET_MODE
from docx.opc.packuri import PackURI
from docx.oxml import parse_xml
from lxml import etree

from textllm_adapters.documents.outcomes import unsupported
from textllm_core.errors import DocumentTooLargeError, UnreadableDocumentError
from textllm_core.ports.document_reader import FileType

_MAX_ENTRIES: Final = 2_000
_MAX_UNPACKED_BYTES: Final = 50_000_000
_MAX_RATIO: Final = 100  # of unpacked to packed bytes
_FREE_BYTES: Final = 1_000_000  # of an entry, before its ratio counts: the picture of an embedded file packs well
_PIECE_BYTES: Final = 64 * 1024
_ENCRYPTED_ENTRY: Final = 0x1  # a flag bit of an entry

_CONTENT_TYPES: Final = "[Content_Types].xml"
_RELATIONSHIPS: Final = ".rels"
_XML: Final = (".xml", _RELATIONSHIPS)
_MACROS: Final = re.compile(r".*macroEnabled.*\.main\+xml")  # not files that are only within this one
# Templates and slide shows are built as documents are; python-docx and python-pptx open those alone.
_SHAPES: Final[Mapping[bytes, bytes]] = {
    b"wordprocessingml.template.main+xml": b"wordprocessingml.document.main+xml",
    b"presentationml.template.main+xml": b"presentationml.presentation.main+xml",
    b"presentationml.slideshow.main+xml": b"presentationml.presentation.main+xml",
}
_PARSED: Final = re.compile(r"application/vnd\.openxmlformats-(?:officedocument|package)\..*\+xml")
# By the type of the main part, or what the entry "mimetype" says.
_KINDS: Final[Mapping[str, FileType]] = {
    CONTENT_TYPE.WML_DOCUMENT_MAIN: "docx",
    CONTENT_TYPE.WML_DOCUMENT_MAIN.replace("document.main", "template.main"): "docx",
    CONTENT_TYPE.PML_PRESENTATION_MAIN: "pptx",
    CONTENT_TYPE.PML_SLIDESHOW_MAIN: "pptx",
    CONTENT_TYPE.PML_TEMPLATE_MAIN: "pptx",
    CONTENT_TYPE.SML_SHEET_MAIN: "xlsx",
    CONTENT_TYPE.SML_TEMPLATE_MAIN: "xlsx",
}
_MIME_KINDS: Final[Mapping[bytes, FileType]] = {
    b"application/vnd.oasis.opendocument.text": "odt",
    b"application/vnd.oasis.opendocument.spreadsheet": "ods",
    b"application/vnd.oasis.opendocument.presentation": "odp",
    b"application/epub+zip": "epub",
}
_MIME_TYPE: Final = "mimetype"
_ODF_MANIFEST: Final = "META-INF/manifest.xml"  # which says what is encrypted

# How a "Strict Open XML Document" names its namespaces and relationships, in attributes of tags; and how all others do.
_STRICT_TAG: Final = re.compile(rb"<[^<>]*http://purl\.oclc\.org/ooxml/[^<>]*>")
_STRICT: Final = re.compile(rb"""(?<==["'])http://purl\.oclc\.org/ooxml/(\w+)/""")
_TRANSITIONAL: Final = rb"http://schemas.openxmlformats.org/\1/2006/"


def check(content: bytes) -> FileType:
    """What a file is, once it is seen to be safe to unpack; none of its XML may declare a document type, but in EPUB.

    Raises:
        UnsupportedMediaTypeError: it is another kind of file, or one with macros.
        UnreadableDocumentError: it is encrypted, a bomb, or not what any word processor writes.
        DocumentTooLargeError: it unpacks to too much.
    """
    with zipfile.ZipFile(BytesIO(content)) as archive:
        entries = archive.infolist()
        if len(entries) > _MAX_ENTRIES or len({entry.filename for entry in entries}) < len(entries):
            raise UnreadableDocumentError("unsafe")
        left = _MAX_UNPACKED_BYTES
        kind = _kind(archive)
        for entry in entries:
            _check_entry(entry)
            left = _check_content(archive, entry, left, is_strict=kind != "epub")
        if kind is None and _CONTENT_TYPES not in archive.namelist():
            raise unsupported("docx")
        if kind is not None and b"encryption-data" in _content_of(archive, _ODF_MANIFEST):
            raise UnreadableDocumentError("encrypted")
        return kind or _check_content_types(archive.read(_CONTENT_TYPES))


def _kind(archive: zipfile.ZipFile) -> FileType | None:
    """What the entry "mimetype" says; None where there is none."""
    if _MIME_TYPE not in archive.namelist():
        return None
    said = next(_pieces(archive, archive.getinfo(_MIME_TYPE), _PIECE_BYTES), b"")
    if (kind := _MIME_KINDS.get(said.strip())) is None:
        raise unsupported("docx")
    return kind


def _content_of(archive: zipfile.ZipFile, name: str) -> bytes:
    return archive.read(name) if name in archive.namelist() else b""


def mended(content: bytes) -> BytesIO:
    """A file that was checked, as python-docx can open it.

    That knows the transitional namespaces alone, and wants every part that another one names; Word itself, and add-ins
    to it, leave names of parts that are not there, such as "NULL".
    """
    file = BytesIO()
    with zipfile.ZipFile(BytesIO(content)) as archive, zipfile.ZipFile(file, "w") as copy:
        names = frozenset(archive.namelist())
        for name in names:
            part = archive.read(name)
            if name.lower().endswith(_XML):
                part = _STRICT_TAG.sub(lambda tag: _STRICT.sub(_TRANSITIONAL, tag[0]), part)
            if name.lower().endswith(_RELATIONSHIPS):
                part = _without_missing(part, names, base=f"/{posixpath.dirname(posixpath.dirname(name))}")
            if name == _CONTENT_TYPES:
                for template, document in _SHAPES.items():
                    part = part.replace(template, document)
            copy.writestr(name, part)
    file.seek(0)
    return file


def _without_missing(xml: bytes, names: frozenset[str], *, base: str) -> bytes:
    """Relationships of a part in the folder `base`, without those to parts of the package that it does not have."""
    relationships = parse_xml(xml)
    for relationship in list(relationships.iterchildren("{*}*")):  # comments are children, too
        is_external = relationship.get("TargetMode") == RELATIONSHIP_TARGET_MODE.EXTERNAL
        if not is_external and PackURI.from_rel_ref(base, relationship.get("Target", "")).membername not in names:
            relationships.remove(relationship)
    return bytes(etree.tostring(relationships))


def _check_entry(entry: zipfile.ZipInfo) -> None:
    if entry.flag_bits & _ENCRYPTED_ENTRY:
        raise UnreadableDocumentError("encrypted")
    if entry.filename.lower().endswith("vbaproject.bin"):
        raise unsupported("docx")
    parts = entry.filename.replace("\\", "/").split("/")
    if parts[0] == "" or ".." in parts or entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise UnreadableDocumentError("unsafe")


def _check_content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, left: int, *, is_strict: bool) -> int:
    """Every entry is unpacked, so that none is a bomb for whoever unpacks it next. The bytes that are left then."""
    parser = _parser() if is_strict and entry.filename.lower().endswith(_XML) else None
    before = left
    for piece in _pieces(archive, entry, left):
        left -= len(piece)
        if parser is not None:
            parser.Parse(piece, False)
    if parser is not None and left < before:  # office programs write empty ones
        parser.Parse(b"", True)
    return left


def _pieces(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int) -> Iterator[bytes]:
    """Its bytes, counted as they come: the sizes in its header may lie."""
    unpacked = 0
    allowed = _FREE_BYTES + entry.compress_size * _MAX_RATIO
    with archive.open(entry) as file:
        while piece := file.read(_PIECE_BYTES):
            unpacked += len(piece)
            if unpacked > most:
                raise DocumentTooLargeError(limit=_MAX_UNPACKED_BYTES, counts="unpacked_bytes")
            if unpacked > allowed:
                raise UnreadableDocumentError("too_complex")
            yield piece


def _parser() -> expat.XMLParserType:
    """Refuses what is not well formed, and document types, which is where entities come from. Word writes none."""

    def refuse(*_: object) -> None:
        raise UnreadableDocumentError("unsafe")

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartDoctypeDeclHandler = refuse
    return parser


def _check_content_types(xml: bytes) -> FileType:
    """What the file is. They say what is parsed as XML: it must have a name whose XML was looked at."""
    kinds = [
        (element.get("ContentType") or "", element.get("PartName") or f".{element.get('Extension')}")
        for element in parse_xml(xml)
    ]
    main = next((_KINDS[kind] for kind, _ in kinds if kind in _KINDS), None)
    if main is None or any(_MACROS.fullmatch(kind) for kind, _ in kinds):
        raise unsupported("docx")
    if any(_PARSED.fullmatch(kind) and not name.lower().endswith(_XML) for kind, name in kinds):
        raise UnreadableDocumentError("unsafe")
    return main
