"""Text of DOCX files, by python-docx. Runs in the child alone."""

from collections.abc import Iterator
from typing import Any, Final

from docx import Document
from docx.document import Document as WordDocument
from docx.opc.constants import CONTENT_TYPE
from docx.opc.part import XmlPart
from docx.oxml import parse_xml
from docx.oxml.ns import qn
from docx.oxml.table import CT_Row, CT_Tc
from docx.oxml.text.paragraph import CT_P
from docx.oxml.text.parfmt import CT_PPr
from docx.oxml.xmlchemy import BaseOxmlElement
from lxml.etree import XMLSyntaxError

from textllm_adapters.documents.docx_package import check, mended
from textllm_adapters.documents.lines import Lines
from textllm_adapters.documents.outcomes import Found, unsupported
from textllm_core.errors import UnreadableDocumentError

_COMPOUND_FILE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # what Word wraps an encrypted DOCX in; and all of old DOC
_ENCRYPTED_PACKAGE: Final = "EncryptedPackage".encode("utf-16-le")

_DEEPEST_LIST: Final = 8
# Said again, or no longer: for older readers, how to pronounce it, where text was moved from, and what was deleted.
_PASSED_OVER: Final = frozenset(
    {
        "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback",
        qn("w:rt"),
        qn("w:moveFrom"),
        qn("w:del"),
    }
)
_SAID: Final = frozenset(qn(tag) for tag in ("w:t", "w:tab", "w:ptab", "w:br", "w:cr", "w:noBreakHyphen"))
_EQUATION_TEXT: Final = qn("m:t")
# What opens a part of an equation that would else run into the part before it: one half is no twelve.
_EQUATION_PARTS: Final = {qn("m:num"): "(", qn("m:den"): "/(", qn("m:sup"): "^(", qn("m:sub"): "_("}
_LIST_STYLES: Final = "w:style[w:pPr/w:numPr][not(w:pPr/w:outlineLvl)]/@w:styleId"  # those with a level are headings


def read_docx(content: bytes, *, max_chars: int) -> Found:
    """Paragraphs, tables and lists in their order; headers before them, notes and footers behind."""
    if content.startswith(_COMPOUND_FILE):
        raise UnreadableDocumentError("encrypted") if _ENCRYPTED_PACKAGE in content else unsupported("docx")
    check(content)
    try:
        document = Document(mended(content))
        stories = list(_stories(document))
    except XMLSyntaxError as error:  # all is well formed, so this is a limit: of depth, length or memory
        raise UnreadableDocumentError("too_complex") from error
    list_styles = frozenset(document.styles.element.xpath(_LIST_STYLES))
    lines = Lines(max_chars)
    for story in stories:
        for line in _lines(story, list_styles):
            lines.add(line)
    return Found(lines.text())


def _stories(document: WordDocument) -> Iterator[BaseOxmlElement]:
    yield from _related(document, CONTENT_TYPE.WML_HEADER)
    yield document.element
    for content_type in (CONTENT_TYPE.WML_FOOTNOTES, CONTENT_TYPE.WML_ENDNOTES, CONTENT_TYPE.WML_FOOTER):
        yield from _related(document, content_type)


def _related(document: WordDocument, content_type: str) -> Iterator[BaseOxmlElement]:
    parts = {rel.target_part: None for rel in document.part.rels.values() if not rel.is_external}
    for part in parts:  # each once, however often it is referred to
        if part.content_type == content_type:
            yield part.element if isinstance(part, XmlPart) else parse_xml(part.blob)


def _lines(element: BaseOxmlElement, list_styles: frozenset[str]) -> Iterator[str]:
    """What paragraphs and rows inside of it say, each in a line that is not blank.

    python-docx's own walk passes over content controls, tracked changes and text boxes. Paragraphs in a paragraph, as
    text boxes have them, come before it; tables and paragraphs in a cell become part of the cell.
    """
    for child in element:
        if child.tag in _PASSED_OVER:
            continue
        if isinstance(child, CT_Row):
            cells = (" ".join(_lines(cell, list_styles)) for cell in _cells(child))
            line = "\t".join(cell.replace("\n", " ") for cell in cells)
        else:
            yield from _lines(child, list_styles)
            line = _paragraph(child, list_styles) if isinstance(child, CT_P) else ""
        if line.strip():
            yield line


def _cells(element: BaseOxmlElement) -> Iterator[CT_Tc]:
    for child in element:
        if isinstance(child, CT_Tc):
            yield child
        elif child.tag not in _PASSED_OVER:
            yield from _cells(child)


def _paragraph(paragraph: CT_P, list_styles: frozenset[str]) -> str:
    """Its text. An item of a list is marked; list 0 takes a paragraph off the list that its style has it on."""
    text = "".join(_texts(paragraph)).strip("\n")
    properties = paragraph.pPr
    numbering: Any = None if properties is None else properties.numPr  # python-docx has no type for it
    if numbering is None or numbering.numId is None:
        is_item = properties is not None and _value(properties.pStyle) in list_styles
    else:
        is_item = _number(numbering.numId) != 0
    if not is_item or not text.strip():
        return text
    level = 0 if numbering is None else min(_number(numbering.ilvl), _DEEPEST_LIST)
    return "  " * level + "- " + text


def _value(element: BaseOxmlElement | None) -> str:
    return "" if element is None else element.get(qn("w:val"), "")


def _number(element: BaseOxmlElement | None) -> int:
    """Its value, or 0 where it has none that is a number."""
    try:
        return int(_value(element))
    except ValueError:
        return 0


def _texts(element: BaseOxmlElement) -> Iterator[str]:
    """What is said inside of a paragraph, but for paragraphs in it; equations in a line, as people type them."""
    for child in element:
        if child.tag in _SAID:
            yield str(child)
        elif child.tag == _EQUATION_TEXT:
            yield child.text or ""
        elif child.tag in _EQUATION_PARTS:
            yield _EQUATION_PARTS[child.tag]
            yield from _texts(child)
            yield ")"
        elif child.tag not in _PASSED_OVER and not isinstance(child, CT_P | CT_PPr):
            yield from _texts(child)
