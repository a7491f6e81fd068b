"""Text of ODT, ODS and ODP files (OpenDocument 1.3, part 3). Runs in the child alone."""

from collections.abc import Iterator
from io import BytesIO
from typing import Any, Final
from zipfile import ZipFile

from docx.oxml import parse_xml

from textllm_adapters.documents.lines import Lines
from textllm_adapters.documents.outcomes import Found
from textllm_core.ports.document_reader import FileType

_NAMESPACE: Final = "{{urn:oasis:names:tc:opendocument:xmlns:{}:1.0}}{}".format
_PARAGRAPHS: Final = frozenset({_NAMESPACE("text", "p"), _NAMESPACE("text", "h")})
_PASSED_OVER: Final = frozenset({_NAMESPACE("text", "tracked-changes"), _NAMESPACE("office", "forms")})
_ITEM: Final = _NAMESPACE("text", "list-item")
_ROW, _TABLE = _NAMESPACE("table", "table-row"), _NAMESPACE("table", "table")
_CELLS: Final = (_NAMESPACE("table", "table-cell"), _NAMESPACE("table", "covered-table-cell"))
_TIMES: Final = _NAMESPACE("table", "number-columns-repeated")
_SLIDE: Final = _NAMESPACE("drawing", "page")
_NOTE, _NOTE_BODY = _NAMESPACE("text", "note"), _NAMESPACE("text", "note-body")
_COMMENT: Final = _NAMESPACE("office", "annotation")
_BREAKS: Final = {_NAMESPACE("text", "tab"): "\t", _NAMESPACE("text", "line-break"): "\n"}
_SPACES: Final = _NAMESPACE("text", "s")
_MOST_REPEATED: Final = 100  # cells or spaces; the rest of a sheet is one cell, said to be there a thousand times


def read_open_document(content: bytes, *, file_type: FileType, max_chars: int) -> Found:
    """Paragraphs, lists and tables in their order, notes behind; `[sheet Name]` and `[slide 3]` before their lines."""
    with ZipFile(BytesIO(content)) as archive:
        body = parse_xml(archive.read("content.xml")).find(_NAMESPACE("office", "body"))
    lines = Lines(max_chars)
    story = _Story(is_sheets=file_type == "ods")
    for line in story.lines(body):
        lines.add(line)
    for note in story.notes:
        lines.add(note)
    return Found(lines.text() if story.has_text else Lines(0).text(), file_type=file_type)


class _Story:
    def __init__(self, *, is_sheets: bool) -> None:
        self.notes: list[str] = []
        self.has_text = False
        self._is_sheets = is_sheets
        self._slides = self._noted = 0
        self._comments: list[str] = []

    def lines(self, element: Any) -> Iterator[str]:
        """What the paragraphs and rows in an element say, each in a line that is not blank."""
        for child in element.iterchildren("{*}*"):
            if child.tag in _PASSED_OVER:
                continue
            if child.tag == _SLIDE:
                self._slides += 1
                yield f"[slide {self._slides}]"
            elif child.tag == _TABLE and self._is_sheets:
                yield f"[sheet {child.get(_NAMESPACE('table', 'name'), '')}]"
            if child.tag in _PARAGRAPHS:
                yield from self._said("".join(self._texts(child)))
            elif child.tag == _ROW:
                yield from self._said("\t".join(self._cells(child)).rstrip("\t"))
            elif child.tag == _ITEM:
                first, *rest = [*self.lines(child), ""]
                yield from (f"- {first}" if first else first, *(f"  {line}" for line in rest if line))
            else:
                yield from self.lines(child)

    def _said(self, line: str) -> Iterator[str]:
        if line.strip():
            self.has_text = True
            yield line
        while self._comments:
            yield f"[comment: {self._comments.pop(0)}]"

    def _cells(self, row: Any) -> Iterator[str]:
        for cell in row.iterchildren(*_CELLS):
            times = _number(cell.get(_TIMES))
            yield from [" ".join(" ".join(self.lines(cell)).split())] * min(times, _MOST_REPEATED)

    def _texts(self, element: Any) -> Iterator[str]:
        yield element.text or ""
        for child in element.iterchildren("{*}*"):
            if child.tag in _BREAKS:
                yield _BREAKS[child.tag]
            elif child.tag == _SPACES:
                yield " " * min(_number(child.get(_NAMESPACE("text", "c"))), _MOST_REPEATED)
            elif child.tag == _NOTE:
                self._noted += 1
                number, body = self._noted, child.find(_NOTE_BODY)
                yield f"[{number}]"
                self.notes.append(f"[{number}] " + " ".join(self.lines(body) if body is not None else ()))
            elif child.tag == _COMMENT:
                comment = " ".join(self.lines(child))
                self._comments += [comment] if comment else []
            elif child.tag not in _PASSED_OVER:
                yield from self._texts(child)
            yield child.tail or ""


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() and len(text) < 10 else 1
