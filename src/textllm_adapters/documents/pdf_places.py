"""What a page of a PDF says, by where its characters stand. Runs in the child alone.

pdfium knows where each character is, and what it makes of them is at times not what is seen: a word is lost in another
where the space between is small, a line that is not quite level falls into letters, and what is printed twice to look
bold, or shown by forms within forms, is told as often as it is printed.
"""

import ctypes
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from statistics import median_low
from struct import Struct
from typing import Any, Final, NamedTuple

import pypdfium2.raw as api

# Shares of the height of a line, which is a little more than the size of its font.
_SPACE: Final = 0.1  # is between words, where the letters of a line are that much nearer to each other
_CLOSE: Final = -0.03  # letters of a line are set at most; what seems closer has boxes that are too wide
_TOUCHING: Final = 0.1
_OVERLAP: Final = 0.3  # of letters that lean, or are set closely
_SAME_LINE: Final = 0.5  # of the lower of two characters is beside the other
_SAME_PLACE: Final = 0.1
_SAME_WIDTH: Final = 0.4  # of the letter itself: two of them stand a whole one apart
_LOWEST: Final = 1 / 4000  # of the longer side of the page: 0.07 mm on A4
_CELL: Final = 4.0  # points

_UNSPACED: Final = "\u2e80"  # and what is behind it: scripts of East Asia
_HYPHEN: Final = "\x02"
_LINE_END: Final = "\r\n"
_LAST: Final = 0x10FFFF
_NO_CHARACTER: Final = "\ufffd"
_FIRST_HALF: Final = range(0xD800, 0xDC00)  # of a character that takes two places, as in UTF-16
_LATER_HALF: Final = range(0xDC00, 0xE000)
_SIDES: Final = Struct("4f")  # of FS_RECTF: left, top, right, bottom
_NOWHERE: Final = (0.0, 0.0, 0.0, 0.0)


class Placed(NamedTuple):
    """A character and its box on the page, in points.

    One that has no room is made up by pdfium, such as a line end; `is_seen` has room and ink.
    """

    letter: str
    left: float
    bottom: float
    right: float
    top: float
    is_seen: bool


def placed(textpage: Any, count: int) -> list[Placed]:
    """All characters of a page."""
    box = api.FS_RECTF()
    reference, box_of, sides = ctypes.byref(box), api.FPDFText_GetLooseCharBox, _SIDES.unpack_from
    characters: list[Placed] = []
    for index, letter in enumerate(_letters(textpage, count)):
        if letter:
            left, top, right, bottom = sides(box) if box_of(textpage, index, reference) else _NOWHERE
            is_seen = right > left and top > bottom and not letter.isspace()
            characters.append(Placed(letter, left, bottom, right, top, is_seen))
    return characters


def _letters(textpage: Any, count: int) -> Sequence[str]:
    """The character at each place; none where two places are one character, or a place is empty."""
    text = textpage.get_text_range(errors="replace")
    if len(text) == count:
        return str(text).replace("\ufffe", _HYPHEN)
    units = [api.FPDFText_GetUnicode(textpage, index) for index in range(count)]
    letters = [chr(unit) if unit <= _LAST else _NO_CHARACTER for unit in units]
    for index, unit in enumerate(units):
        if not unit:
            letters[index] = ""
        elif unit in _LATER_HALF and index and units[index - 1] in _FIRST_HALF:
            pair = letters[index - 1] + letters[index]
            letters[index - 1 : index + 1] = pair.encode("utf-16-le", "surrogatepass").decode("utf-16-le"), ""
    return letters


def on_page(characters: Sequence[Placed], page: tuple[float, float, float, float]) -> list[Placed]:
    """Those of words that stand on the page at least in part, and are not too small to be seen."""
    left, bottom, right, top = page
    if left >= right or bottom >= top:
        return list(characters)
    lowest = _LOWEST * max(right - left, top - bottom)

    def is_seen(word: Sequence[Placed]) -> bool:
        boxes = [one for one in word if one.top - one.bottom > lowest]
        return any(one.right > left and one.left < right and one.top > bottom and one.bottom < top for one in boxes)

    return [one for word in _words(characters) if word[0].letter.isspace() or is_seen(word) for one in word]


def _words(characters: Sequence[Placed]) -> Iterator[list[Placed]]:
    """Words, and the spaces between, one by one."""
    word: list[Placed] = []
    for character in characters:
        if character.letter.isspace():
            if word:
                yield word
            yield [character]
            word = []
        else:
            word.append(character)
    if word:
        yield word


def once(characters: Sequence[Placed]) -> list[Placed]:
    """Without those that stand where the same one stands already; not the two of a ligature, which have one box."""
    kept: list[Placed] = []
    cells: dict[tuple[str, int, int], list[tuple[float, float]]] = {}
    last_box, is_new = None, False
    for character in characters:
        letter, left, bottom, right, top, is_seen = character
        if not is_seen:
            kept.append(character)
            continue
        box = left, bottom, right, top
        if box != last_box:
            last_box = box
            x, y = (left + right) / 2, (bottom + top) / 2
            near = min(_SAME_PLACE * (top - bottom), _SAME_WIDTH * (right - left), _CELL / 2)
            is_new = not any(
                abs(x - other_x) <= near and abs(y - other_y) <= near
                for column in _nearest(x)
                for row in _nearest(y)
                for other_x, other_y in cells.get((letter, column, row), ())
            )
            cells.setdefault((letter, int(x // _CELL), int(y // _CELL)), []).append((x, y))
        if is_new:
            kept.append(character)
    return kept


def _nearest(place: float) -> tuple[int, int]:
    """The cells in which all is that is half a cell away at most."""
    cell = int(place // _CELL)
    return cell, cell - 1 if place % _CELL < _CELL / 2 else cell + 1


def text_of(characters: Iterable[Placed]) -> str:
    """What they say, in lines and with spaces as they are seen."""
    return "\n".join("".join(_spaced(line)) for line in _lines(characters))


def _lines(characters: Iterable[Placed]) -> Iterator[list[Placed]]:
    """As pdfium ends them, but not between letters that touch each other, and also where it leaps."""
    line: list[Placed] = []
    before: Placed | None = None
    is_ended = False
    for character in characters:
        if character.letter in _LINE_END:
            is_ended = True
            continue
        if before is not None:
            are_seen = before.is_seen and character.is_seen
            if is_ended:
                is_over = not (are_seen and _is_next(before, character))
            else:
                is_over = are_seen and before.letter != _HYPHEN and _is_far(before, character)
            if is_over:
                yield line
                line = []
        is_ended = False
        line.append(character)
        before = character
    yield line


def _spaced(line: Sequence[Placed]) -> Iterator[str]:
    """Its letters, with the spaces that are seen."""
    gaps: dict[int, float] = {}
    for index, (before, after) in enumerate(pairwise(line), 1):
        if before.is_seen and after.is_seen and before.letter != _HYPHEN and _are_beside(before, after):
            gaps[index] = max(after.left - before.right, before.left - after.right) / _height(before, after)
    if not gaps:
        yield from (character.letter for character in line)
        return
    # Who writes spaces means no other ones, but for those between columns.
    has_spaces = any(not character.is_seen and character.right > character.left for character in line)
    least = 1.0 if has_spaces else min(max(median_low(gaps.values()), _CLOSE) + _SPACE, 1.0)
    for index, character in enumerate(line):
        if gaps.get(index, 0) > least and max(character.letter, line[index - 1].letter) < _UNSPACED:
            yield " "
        yield character.letter


def _is_next(before: Placed, after: Placed) -> bool:
    """Whether it touches the end of the other, beside it."""
    height = _height(before, after)
    return -_OVERLAP * height <= after.left - before.right <= _TOUCHING * height and _are_beside(before, after)


def _is_far(one: Placed, other: Placed) -> bool:
    """Whether they are in different lines, also where these go up or down."""
    return max(one.bottom - other.top, other.bottom - one.top) > _height(one, other)


def _height(one: Placed, other: Placed) -> float:
    return min(one.top - one.bottom, other.top - other.bottom)


def _are_beside(one: Placed, other: Placed) -> bool:
    return min(one.top, other.top) - max(one.bottom, other.bottom) > _SAME_LINE * _height(one, other)
