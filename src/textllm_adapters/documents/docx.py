"""Text of DOCX files, by python-docx. Runs in the child alone."""

from collections.abc import Iterator
from typing import Final

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

from textllm_adapters.documents.docx_numbering import Numbering
from textllm_adapters.documents.lines import Lines
from textllm_adapters.documents.outcomes import Found
from textllm_adapters.documents.packages import mended
from textllm_core.errors import UnreadableDocumentError

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
_NOTES: Final = {qn("w:footnoteReference"): "footnote", qn("w:endnoteReference"): "endnote"}
_COMMENT: Final = qn("w:commentReference")
_PICTURE: Final = qn("wp:docPr")
_DRAWN: Final = "{urn:schemas-microsoft-com:vml}shape"
_ID: Final = qn("w:id")
_VALUE: Final = qn("w:val")
_TICK_BOX: Final = qn("w:checkBox")  # of Word's older forms, as is the next; those of newer ones are text as well
_CHOICE: Final = qn("w:ddList")
_UNSET: Final = frozenset({"0", "false", "off"})
_NOTE_PARTS: Final = {CONTENT_TYPE.WML_FOOTNOTES: "footnote", CONTENT_TYPE.WML_ENDNOTES: "endnote"}


def read_docx(content: bytes, *, max_chars: int) -> Found:
    """Paragraphs, tables and lists in their order; headers before them, notes and footers behind.

    The file must have been checked. Tracked changes are read as if they were accepted.
    """
    try:
        document = Document(mended(content))
        _parse(document)
    except XMLSyntaxError as error:  # all is well formed, so this is a limit: of depth, length or memory
        raise UnreadableDocumentError("too_complex") from error
    lines = Lines(max_chars)
    for line in _Story(document).lines():
        lines.add(line)
    return Found(lines.text(), file_type="docx")


def _related(document: WordDocument, content_type: str) -> Iterator[BaseOxmlElement]:
    parts = {rel.target_part: None for rel in document.part.rels.values() if not rel.is_external}
    for part in parts:  # each once, however often it is referred to
        if part.content_type == content_type:
            yield part.element if isinstance(part, XmlPart) else parse_xml(part.blob)


def _parse(document: WordDocument) -> None:
    """Find out at once what is not well formed."""
    for content_type in (*_NOTE_PARTS, CONTENT_TYPE.WML_HEADER, CONTENT_TYPE.WML_FOOTER, CONTENT_TYPE.WML_COMMENTS):
        for _ in _related(document, content_type):
            pass


class _Story:
    """All that a document says: its headers, its body, its notes, its footers, each once.

    python-docx's own walk passes over content controls, tracked changes and text boxes.
    """

    def __init__(self, document: WordDocument) -> None:
        self._document = document
        numbering = next(_related(document, CONTENT_TYPE.WML_NUMBERING), None)
        self._numbering = Numbering(numbering, document.styles.element)
        self._notes = {
            (kind, note.get(_ID, "")): note
            for content_type, kind in _NOTE_PARTS.items()
            for part in _related(document, content_type)
            for note in part.iterchildren(qn(f"w:{kind}"))
            if note.get(qn("w:type"), "normal") == "normal"
        }
        self._comments = {
            comment.get(_ID, ""): comment
            for part in _related(document, CONTENT_TYPE.WML_COMMENTS)
            for comment in part.iterchildren(qn("w:comment"))
        }
        self._noted: dict[tuple[str, str], int] = {}  # in the order in which they are referred to
        self._commented: list[str] = []

    def lines(self) -> Iterator[str]:
        yield from self._at_the_edge("header", CONTENT_TYPE.WML_HEADER)
        yield from self._lines(self._document.element)
        for key in [*self._noted, *(key for key in self._notes if key not in self._noted)]:
            if key in self._notes:
                text = "\n".join(self._lines(self._notes[key]))
                yield f"[{self._noted[key]}] {text}" if key in self._noted else text
        yield from self._at_the_edge("footer", CONTENT_TYPE.WML_FOOTER)

    def _at_the_edge(self, kind: str, content_type: str) -> Iterator[str]:
        """Headers or footers, in brackets: those of first, odd and even pages may say the same."""
        texts = ("\n".join(self._lines(part)) for part in _related(self._document, content_type))
        yield from (f"[{kind}: {text}]" for text in dict.fromkeys(texts) if text)

    def _lines(self, element: BaseOxmlElement) -> Iterator[str]:
        """What paragraphs and rows inside of it say, each in a line that is not blank.

        Paragraphs in a paragraph, as text boxes have them, come before it; tables and paragraphs in a cell become part
        of the cell. A comment stands behind the paragraph that it is on.
        """
        for child in element:
            if child.tag in _PASSED_OVER:
                continue
            if isinstance(child, CT_Row):
                cells = (" ".join(self._lines(cell)) for cell in _cells(child))
                line = "\t".join(cell.replace("\n", " ") for cell in cells)
            else:
                yield from self._lines(child)
                line = self._paragraph(child) if isinstance(child, CT_P) else ""
            if line.strip():
                yield line
            while self._commented:
                comment = self._comment(self._commented.pop(0))
                if comment:
                    yield f"[comment: {comment}]"

    def _comment(self, name: str) -> str:
        """Each once, also where comments are said to be on each other."""
        comment = self._comments.pop(name, None)
        return "" if comment is None else " ".join(self._lines(comment))

    def _paragraph(self, paragraph: CT_P) -> str:
        """Its text. An item of a list is marked."""
        text = "".join(self._texts(paragraph)).strip("\n")
        label = self._numbering.label(paragraph.pPr)
        if label is None or not text.strip():
            return text
        level, mark = label
        return "  " * level + f"{mark} {text}".lstrip()

    def _texts(self, element: BaseOxmlElement) -> Iterator[str]:
        """What is said inside of a paragraph, but for paragraphs in it; equations in a line, as people type them."""
        for child in element:
            if child.tag in _SAID:
                yield str(child)
            elif child.tag == _EQUATION_TEXT:
                yield child.text or ""
            elif child.tag in _EQUATION_PARTS:
                yield _EQUATION_PARTS[child.tag]
                yield from self._texts(child)
                yield ")"
            elif child.tag in _NOTES:
                yield f"[{self._noted.setdefault((_NOTES[child.tag], child.get(_ID, '')), len(self._noted) + 1)}]"
            elif child.tag == _TICK_BOX:
                yield "☒" if _is_ticked(child) else "☐"
            elif child.tag == _CHOICE:
                yield _chosen(child)
            elif child.tag == _COMMENT:
                self._commented.append(child.get(_ID, ""))
            elif child.tag not in _PASSED_OVER and not isinstance(child, CT_P | CT_PPr):
                if (words := _alternative(child)) != "":
                    yield f"[image: {words}]"
                yield from self._texts(child)


def _alternative(element: BaseOxmlElement) -> str:
    """What is written of an image for those who do not see it."""
    if element.tag == _PICTURE:
        return " ".join((element.get("descr") or element.get("title") or "").split())
    if element.tag == _DRAWN:
        return " ".join(element.get("alt", "").split())
    return ""


def _is_ticked(box: BaseOxmlElement) -> bool:
    """As somebody has left it, or else as it began."""
    for state in (*box.iterchildren(qn("w:checked")), *box.iterchildren(qn("w:default"))):
        return state.get(_VALUE, "1") not in _UNSET
    return False


def _chosen(choice: BaseOxmlElement) -> str:
    """The entry of a list that somebody has chosen, or else that it began with; the first where neither is said."""
    entries = [entry.get(_VALUE, "") for entry in choice.iterchildren(qn("w:listEntry"))]
    numbers = [*choice.iterchildren(qn("w:result")), *choice.iterchildren(qn("w:default"))]
    number = numbers[0].get(_VALUE, "") if numbers else "0"
    return entries[int(number)] if number.isdecimal() and int(number) < len(entries) else ""


def _cells(element: BaseOxmlElement) -> Iterator[CT_Tc]:
    for child in element:
        if isinstance(child, CT_Tc):
            yield child
        elif child.tag not in _PASSED_OVER:
            yield from _cells(child)
