"""The XML inside of DOCX files, read as a stream of elements: no tree, no entities, no network."""

import posixpath
from functools import lru_cache
from typing import Final, Protocol
from xml.parsers import expat

from textllm_adapters.documents.lines import Lines
from textllm_core.errors import UnreadableDocumentError

# ECMA-376's own namespace, the one of its strict form, and that of alternatives for older readers.
_WORD: Final = (
    "http://schemas.openxmlformats.org/wordprocessingml/2006/main ",
    "http://purl.oclc.org/ooxml/wordprocessingml/main ",
    "http://schemas.openxmlformats.org/markup-compatibility/2006 ",
)
_DEEPEST_LIST: Final = 8
_CHARACTERS: Final = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
# Said again, or no longer: for older readers, where text was moved from, what was deleted, how it was formatted.
_PASSED_OVER: Final = frozenset({"Fallback", "moveFrom", "del", "pPrChange"})


class Handler(Protocol):
    """Takes the elements of a part. `name` is local for Word's own elements, with its namespace for others."""

    def start(self, name: str, attributes: dict[str, str]) -> None: ...
    def end(self, name: str) -> None: ...
    def data(self, text: str) -> None: ...


def check(part: bytes) -> None:
    """See that a part is well formed, and declares no document type.

    Raises:
        UnreadableDocumentError: it declares one, which is where entities come from. Word writes none.
    """
    _parser().Parse(part, True)


def parse(part: bytes, handler: Handler) -> None:
    """Read a whole part."""
    parser = _parser()
    parser.StartElementHandler = lambda name, attributes: handler.start(_local(name), attributes)
    parser.EndElementHandler = lambda name: handler.end(_local(name))
    parser.CharacterDataHandler = handler.data
    parser.Parse(part, True)


def _parser() -> expat.XMLParserType:
    def refuse(*_: object) -> None:
        raise UnreadableDocumentError("unsafe")

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartDoctypeDeclHandler = refuse
    parser.buffer_text = True
    return parser


@lru_cache(maxsize=512)
def _local(name: str) -> str:
    for namespace in _WORD:
        if name.startswith(namespace):
            return name[len(namespace) :]
    return name


def _attribute(attributes: dict[str, str], name: str) -> str:
    return next((value for key, value in attributes.items() if _local(key) == name), "")


class Relationships:
    """The parts that a part refers to, by the last word of their relation: "header", "styles"."""

    def __init__(self, folder: str) -> None:
        self.parts: dict[str, list[str]] = {}
        self._folder = folder

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """A relation; one that leads out of the file is none."""
        if name.endswith(" Relationship") and attributes.get("TargetMode") != "External":
            kind = attributes["Type"].rpartition("/")[2]
            target = posixpath.normpath(posixpath.join("/", self._folder, attributes["Target"])).lstrip("/")
            self.parts.setdefault(kind, []).append(target)

    def end(self, name: str) -> None:
        """Nothing is inside of a relation."""

    def data(self, text: str) -> None:
        """Nor any text."""


class ListStyles:
    """The styles whose paragraphs are items of lists."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self._style = ""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """A style, or a mark inside of one."""
        if name == "style":
            self._style = _attribute(attributes, "styleId")
        elif name == "numPr":
            self.ids.add(self._style)
        elif name == "outlineLvl":  # a numbered heading
            self.ids.discard(self._style)

    def end(self, name: str) -> None:
        """Styles stand side by side: the next one begins where this one ends."""

    def data(self, text: str) -> None:
        """Styles have no text."""


class Text:
    """The paragraphs, rows and list items of a part, as lines.

    Tables may stand in cells and paragraphs in paragraphs (as text boxes do): the inner ones become part of the outer
    cell, or lines before the outer paragraph.
    """

    def __init__(self, lines: Lines, list_styles: set[str]) -> None:
        self._lines = lines
        self._list_styles = list_styles
        self._tables: list[list[str]] = []  # of each open row and cell, from the outermost: what it holds so far
        self._paragraphs: list[_Paragraph] = []
        self._passed_over = 0  # open elements that are not read
        self._in_text = False

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """An element begins."""
        if self._passed_over or name in _PASSED_OVER:
            self._passed_over += 1
        elif name in {"tr", "tc"}:
            self._tables.append([])
        elif name == "p":
            self._paragraphs.append(_Paragraph())
        elif name == "t":
            self._in_text = True
        elif self._paragraphs:
            self._paragraphs[-1].take(name, attributes)

    def end(self, name: str) -> None:
        """An element ends."""
        if self._passed_over:
            self._passed_over -= 1
        elif name == "t":
            self._in_text = False
        elif name == "p":
            self._add(self._paragraphs.pop().line(self._list_styles))
        elif name == "tc":
            cell = self._tables.pop()
            self._tables[-1].append(" ".join(cell))
        elif name == "tr":
            self._add("\t".join(self._tables.pop()))

    def data(self, text: str) -> None:
        """Characters."""
        if self._in_text and not self._passed_over:
            self._paragraphs[-1].text.append(text)

    def _add(self, line: str) -> None:
        if not line.strip():
            return
        if self._tables:
            self._tables[-1].append(line.replace("\n", " "))
        else:
            self._lines.add(line)


class _Paragraph:
    def __init__(self) -> None:
        self.text: list[str] = []
        self._style = ""
        self._list = ""  # the number of the list it is in
        self._level = 0

    def take(self, name: str, attributes: dict[str, str]) -> None:
        """An element inside of it."""
        if name == "pStyle":
            self._style = _attribute(attributes, "val")
        elif name == "numId":
            self._list = _attribute(attributes, "val")
        elif name == "ilvl":
            self._level = min(int(_attribute(attributes, "val")), _DEEPEST_LIST)
        elif name in _CHARACTERS and not (name == "tab" and attributes):  # with attributes it is a stop on the ruler
            self.text.append(_CHARACTERS[name])

    def line(self, list_styles: set[str]) -> str:
        """Its text. An item of a list is marked; list 0 takes a paragraph off the list that its style has it on."""
        text = "".join(self.text).strip("\n")
        is_item = self._list != "0" if self._list else self._style in list_styles
        return "  " * self._level + "- " + text if is_item and text.strip() else text
