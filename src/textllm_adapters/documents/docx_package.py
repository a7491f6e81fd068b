"""What must hold of a DOCX file, a ZIP archive of XML parts (ECMA-376), before a library opens it, and what is mended.

Runs in the child alone.
"""

import posixpath
import re
import zipfile
from collections.abc import Iterator
from io import BytesIO
from typing import Final
from xml.parsers import expat

from docx.opc.constants import CONTENT_TYPE, RELATIONSHIP_TARGET_MODE
from docx.opc.packuri import PackURI
from docx.opc.part import PartFactory
from docx.oxml import parse_xml
from lxml import etree

from textllm_adapters.documents.outcomes import unsupported
from textllm_core.errors import DocumentTooLargeError, UnreadableDocumentError

_MAX_ENTRIES: Final = 2_000
_MAX_UNPACKED_BYTES: Final = 50_000_000
_MAX_RATIO: Final = 100  # of unpacked to packed bytes
_FREE_BYTES: Final = 1_000_000  # of an entry, whatever its ratio
_PIECE_BYTES: Final = 64 * 1024
_ENCRYPTED_ENTRY: Final = 0x1  # a flag bit of an entry

_CONTENT_TYPES: Final = "[Content_Types].xml"
_RELATIONSHIPS: Final = ".rels"
_XML: Final = (".xml", _RELATIONSHIPS)
_MACROS: Final = "macroEnabled"
# The types of parts that python-docx parses, and of those that the reader itself has it parse.
_PARSED: Final = frozenset(
    {
        *PartFactory.part_type_for,
        CONTENT_TYPE.WML_FOOTNOTES,
        CONTENT_TYPE.WML_ENDNOTES,
        CONTENT_TYPE.WML_COMMENTS,
        CONTENT_TYPE.WML_NUMBERING,
    }
)

# How a "Strict Open XML Document" names its namespaces and relationships, in attributes of tags; and how all others do.
_STRICT_TAG: Final = re.compile(rb"<[^<>]*http://purl\.oclc\.org/ooxml/[^<>]*>")
_STRICT: Final = re.compile(rb"""(?<==["'])http://purl\.oclc\.org/ooxml/(\w+)/""")
_TRANSITIONAL: Final = rb"http://schemas.openxmlformats.org/\1/2006/"


def check(content: bytes) -> None:
    """See that a file is a Word document that is safe to unpack, and that none of its XML declares a document type.

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
        for entry in entries:
            _check_entry(entry)
            left = _check_content(archive, entry, left)
        if _CONTENT_TYPES not in archive.namelist():
            raise unsupported("docx")
        _check_content_types(archive.read(_CONTENT_TYPES))


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


def _check_content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, left: int) -> int:
    """Every entry is unpacked, so that none is a bomb for whoever unpacks it next. The bytes that are left then."""
    parser = _parser() if entry.filename.lower().endswith(_XML) else None
    for piece in _pieces(archive, entry, left):
        left -= len(piece)
        if parser is not None:
            parser.Parse(piece, False)
    if parser is not None:
        parser.Parse(b"", True)
    return left


def _pieces(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int) -> Iterator[bytes]:
    """Its bytes, counted as they come: the sizes in its header may lie."""
    unpacked = 0
    allowed = max(_FREE_BYTES, entry.compress_size * _MAX_RATIO)
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


def _check_content_types(xml: bytes) -> None:
    """They say what is parsed as XML, whatever its name: it must have a name whose XML was looked at."""
    kinds = [
        (element.get("ContentType") or "", element.get("PartName") or f".{element.get('Extension')}")
        for element in parse_xml(xml)
    ]
    if not any(kind == CONTENT_TYPE.WML_DOCUMENT_MAIN for kind, _ in kinds) or any(
        _MACROS in kind for kind, _ in kinds
    ):
        raise unsupported("docx")
    if any(kind in _PARSED and not name.lower().endswith(_XML) for kind, name in kinds):
        raise UnreadableDocumentError("unsafe")
