"""The numbers and bullets of lists, which a DOCX file does not hold as text (ECMA-376, part 1, 17.9)."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from docx.oxml.ns import qn
from docx.oxml.xmlchemy import BaseOxmlElement

_LEVELS: Final = 9  # that a list has
_VALUE: Final = qn("w:val")
_MOST: Final = 10**9
_ROMAN: Final = (
    (1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl"), (10, "x"),
    (9, "ix"), (5, "v"), (4, "iv"), (1, "i"),
)  # fmt: skip
_MOST_ROMAN: Final = 3999
_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz"
_MOST_LETTERS: Final = 10 * len(_ALPHABET)  # behind `z` comes `aa`, then `bb`
BULLET: Final = "-"


class _Level(NamedTuple):
    start: int
    kind: str
    text: str
    style: str


class _List(NamedTuple):
    """Lists of one abstract number go on counting from each other."""

    abstract: str
    levels: Mapping[int, _Level]
    starts: Mapping[int, int]


class Numbering:
    """Counts the items of all lists of a document, in their order.

    Args:
        numbering: the numbering part; None where there is none, and its lists have bullets alone.
        styles: the part of styles.
    """

    def __init__(self, numbering: BaseOxmlElement | None, styles: BaseOxmlElement) -> None:
        self._styles = {style.get(qn("w:styleId"), ""): style for style in styles.iterchildren(qn("w:style"))}
        self._lists: dict[str, _List] = {}
        self._of_styles: dict[str, tuple[str, int | None]] = {}
        self._counts: dict[str, list[int | None]] = {}
        self._begun: set[str] = set()
        if numbering is not None:
            self._read(numbering)

    def label(self, properties: BaseOxmlElement | None) -> tuple[int, str] | None:
        """Level and mark of the paragraph with these properties, such as `(1, "a)")`; None: it is no item of a list."""
        if properties is None:
            return None
        own = properties.find(qn("w:numPr"))
        style = _text(properties.find(qn("w:pStyle")))
        number = None if own is None else own.find(qn("w:numId"))
        level = None if own is None or own.find(qn("w:ilvl")) is None else _value_of(own.find(qn("w:ilvl")))
        name = _text(number)
        if number is None:
            name, of_style = self._of_style(style)
            level = of_style if level is None else level
        if _to_int(name) == 0:  # which takes a paragraph off the list that its style has it on
            return None
        return self._next(name, min(max(level or 0, 0), _LEVELS - 1))

    def _next(self, name: str, level: int) -> tuple[int, str]:
        found = self._lists.get(name)
        if found is None or level not in found.levels:
            return level, BULLET
        counts = self._counts.setdefault(found.abstract, [None] * _LEVELS)
        if name not in self._begun:
            self._begun.add(name)
            for overridden, start in found.starts.items():
                counts[overridden] = start - 1
        before = counts[level]
        counts[level] = (found.levels[level].start - 1 if before is None else before) + 1
        for deeper in range(level + 1, _LEVELS):
            counts[deeper] = None
        return level, _mark(found.levels, counts, level)

    def _of_style(self, style: str) -> tuple[str, int | None]:
        """The list that a style, or one that it is based on, puts its paragraphs on; and the level."""
        if style not in self._of_styles:
            self._of_styles[style] = "", None  # also where styles are based on each other
            found = self._styles.get(style)
            properties = None if found is None else found.find(qn("w:pPr"))
            numbers = None if properties is None else properties.find(qn("w:numPr"))
            if found is None:
                pass
            elif numbers is None or numbers.find(qn("w:numId")) is None:
                self._of_styles[style] = self._of_style(_text(found.find(qn("w:basedOn"))))
            else:
                name, level = _text(numbers.find(qn("w:numId"))), numbers.find(qn("w:ilvl"))
                self._of_styles[style] = name, self._level_of(name, style) if level is None else _value_of(level)
        return self._of_styles[style]

    def _level_of(self, name: str, style: str) -> int:
        levels = self._lists[name].levels if name in self._lists else {}
        return next((number for number, level in levels.items() if level.style == style), 0)

    def _read(self, numbering: BaseOxmlElement) -> None:
        abstracts = {
            element.get(qn("w:abstractNumId"), ""): element for element in numbering.iterchildren(qn("w:abstractNum"))
        }
        for number in numbering.iterchildren(qn("w:num")):
            abstract = _text(number.find(qn("w:abstractNumId")))
            levels = _levels(abstracts.get(abstract))
            starts = {}
            for override in number.iterchildren(qn("w:lvlOverride")):
                level = _to_int(override.get(qn("w:ilvl"), ""))
                if (start := override.find(qn("w:startOverride"))) is not None:
                    starts[level] = _value_of(start)
                levels |= _levels(override)
            starts = {level: start for level, start in starts.items() if 0 <= level < _LEVELS}
            self._lists[number.get(qn("w:numId"), "")] = _List(abstract, levels, starts)
        for number in numbering.iterchildren(qn("w:num")):  # a list that is that of a style
            abstract_element = abstracts.get(_text(number.find(qn("w:abstractNumId"))))
            link = None if abstract_element is None else abstract_element.find(qn("w:numStyleLink"))
            linked = self._lists.get(self._of_style(_text(link))[0]) if link is not None else None
            if linked is not None:
                name = number.get(qn("w:numId"), "")
                self._lists[name] = linked._replace(starts=self._lists[name].starts)


def _value_of(element: BaseOxmlElement | None) -> int:
    """The number of an element; 0 where it has none."""
    return _to_int(_text(element))


def _text(element: BaseOxmlElement | None) -> str:
    return "" if element is None else str(element.get(_VALUE, ""))


def _to_int(text: str) -> int:
    try:
        return max(-_MOST, min(int(text), _MOST))
    except ValueError:
        return 0


def _levels(holder: BaseOxmlElement | None) -> dict[int, _Level]:
    levels = {}
    for element in () if holder is None else holder.iterchildren(qn("w:lvl")):
        start = element.find(qn("w:start"))
        levels[_to_int(element.get(qn("w:ilvl"), ""))] = _Level(
            start=1 if start is None else _value_of(start),
            kind=_text(element.find(qn("w:numFmt"))),
            text=_text(element.find(qn("w:lvlText"))),
            style=_text(element.find(qn("w:pStyle"))),
        )
    return levels


def _mark(levels: Mapping[int, _Level], counts: list[int | None], level: int) -> str:
    """`%1.%2` with the numbers of its levels."""
    here = levels[level]
    if here.kind in {"bullet", "none", ""}:
        return BULLET if here.kind == "bullet" else ""
    mark = here.text
    for number in range(level + 1):
        shown = levels.get(number)
        if shown is not None:
            count = counts[number]
            mark = mark.replace(f"%{number + 1}", _number(shown.start if count is None else count, shown.kind))
    return mark.strip()


def _number(count: int, kind: str) -> str:
    match kind:
        case "lowerLetter" | "upperLetter" if 1 <= count <= _MOST_LETTERS:
            times, letter = divmod(count - 1, len(_ALPHABET))
            text = _ALPHABET[letter] * (times + 1)
        case "lowerRoman" | "upperRoman" if 1 <= count <= _MOST_ROMAN:
            text = ""
            for value, letters in _ROMAN:
                text += letters * (count // value)
                count %= value
        case "decimalZero":
            text = f"{count:02}"
        case _:
            text = str(count)
    return text.upper() if kind.startswith("upper") else text
