"""Pages of PDF files as pdfium, the reader in Chrome, has them. Runs in the child alone."""

import ctypes
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import pypdfium2
import pypdfium2.raw as api

from textllm_adapters.documents.fonts import stand_in
from textllm_core.errors import UnreadableDocumentError

# How it writes a hyphen at the end of a line, and one where a word may be parted. No search looks at a character twice,
# however long what it is in.
_HYPHEN: Final = re.compile(r"[\ufffe\x02](\w?)")
_HYPHENED: Final = re.compile(r"\b\w{1,40}-\w{1,40}")
_PART: Final = re.compile(r"\w{1,40}")  # of a word
_LAST: Final = re.compile(r"\w{1,40}$")
_BEFORE: Final = 80  # characters, in which an address would show
_NO_WORD: Final = re.compile(r"[-./@_]")  # in what stands before the hyphen of an address, or of `state-of-the-art`
_GAP: Final = re.compile(r"\n(?:[ \t]*\r?\n)+")  # where what is left out was
_HANGUL: Final = re.compile(r"[\uac00-\ud7a3]")
_FEWEST_BY_BYTES: Final = 8  # letters: so many of Korean words are all two bytes of UTF-8 once in 65,536 times
# A column of a page that is written from top to bottom, read as lines of a character each, and the marks behind it.
_UPRIGHT: Final = r"[\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]{1,3}"
_COLUMN: Final = re.compile(rf"^{_UPRIGHT}(?:\r?\n{_UPRIGHT}(?=\r?$)){{4,}}", re.MULTILINE)
_WITHOUT_WORDS: Final = frozenset({api.FPDF_ANNOT_LINK, api.FPDF_ANNOT_POPUP})
_MOST_MISSING: Final = 10  # pages, before a file is given up
_LONGEST_WORDS: Final = 100_000  # bytes of a comment or a value; more is no person's
_MOST_ANNOTATIONS: Final = 1_000  # of a page
_LOOKED_AT: Final = 200  # characters of a page
_CONTROLS: Final = frozenset([*range(1, 32), *range(127, 160)]) - frozenset(b"\x02\t\n\r")
_MOST_CONTROLS: Final = 0.05  # of its characters, as in other texts (`doubt`)


class PageText(NamedTuple):
    """What a page says.

    Args:
        is_raw: by the codes of its characters, since a font does not say which ones they are.
        outside: so many characters are left out, since nobody sees them: they stand beside the page.
    """

    text: str
    is_raw: bool
    outside: int


_NOTHING: Final = PageText("", is_raw=False, outside=0)


class PdfiumDocument:
    """A PDF file that pdfium could open.

    Raises:
        UnreadableDocumentError: it needs a password.
        PdfiumError: it cannot be opened.
    """

    def __init__(self, content: bytes) -> None:
        stand_in()
        try:
            self._document: Any = pypdfium2.PdfDocument(content)
        except pypdfium2.PdfiumError as error:
            if api.FPDF_GetLastError() in {api.FPDF_ERR_PASSWORD, api.FPDF_ERR_SECURITY}:
                raise UnreadableDocumentError("encrypted") from error
            raise
        self._document.init_forms()
        self._hyphened: set[str] = set()

    def __len__(self) -> int:
        return len(self._document)

    def has_pages(self) -> bool:
        """Whether one of the first pages that it names is there."""
        for index in range(min(len(self), _MOST_MISSING)):
            with suppress(pypdfium2.PdfiumError):
                self._document[index]
                return True
        return False

    def text(self, index: int) -> PageText:
        """What a page says, the values of its form and the comments on it.

        Raises:
            PdfiumError: the page is not there, or broken.
        """
        page = self._document[index]
        said = list(dict.fromkeys(_said_beside(page)))
        text, is_raw, outside = self._text(page)
        beside = self._text_of_annotations(page, index)
        page.close()
        texts = [text, beside.text]
        shown = "".join("".join(texts).split())
        texts += [line for words, line in said if "".join(words.split()) not in shown]
        return PageText("\n".join(text for text in texts if text), is_raw, outside + beside.outside)

    def _text_of_annotations(self, page: Any, index: int) -> PageText:
        """What fields of forms and other annotations show: made a part of the page, and all else taken off it."""
        contents = api.FPDFPage_CountObjects(page)
        if not api.FPDFPage_GetAnnotCount(page):
            return _NOTHING
        if api.FPDFPage_Flatten(page, api.FLAT_NORMALDISPLAY) != api.FLATTEN_SUCCESS:
            return _NOTHING
        flat = self._document[index]
        for _ in range(min(contents, api.FPDFPage_CountObjects(flat))):
            page_object = api.FPDFPage_GetObject(flat, 0)
            api.FPDFPage_RemoveObject(flat, page_object)
            api.FPDFPageObj_Destroy(page_object)
        text = self._text(flat)
        flat.close()
        return text

    def _text(self, page: Any) -> PageText:
        textpage = page.get_textpage()
        count = textpage.count_chars()
        shown = _on_page(page, textpage, count)
        text = "".join(textpage.get_text_range(start, end - start, errors="replace") for start, end in shown)
        codes = [api.FPDFText_GetUnicode(textpage, place) for place in range(0, count, count // _LOOKED_AT + 1)]
        textpage.close()
        is_raw = sum(code in _CONTROLS for code in codes) > len(codes) * _MOST_CONTROLS
        outside = count - sum(end - start for start, end in shown)
        if outside:
            text = _GAP.sub("\n", text)
        return PageText(self._in_words(_COLUMN.sub(_joined, _of_bytes(text))).strip(), is_raw, outside)

    def _in_words(self, text: str) -> str:
        """The text with words whole that the end of a line parts, but for those that have a hyphen elsewhere."""
        self._hyphened.update(_HYPHENED.findall(text))

        def whole(found: re.Match[str]) -> str:
            before, second = text[max(0, found.start() - _BEFORE) : found.start()], found[1]
            if not (before[-1:].islower() and second.islower()) or _NO_WORD.search(before.split()[-1]):
                return f"-{second}"
            first, after = _LAST.search(before), _PART.match(text, found.start(1))
            is_compound = first and after and f"{first[0]}-{after[0]}" in self._hyphened
            return f"-{second}" if is_compound else second

        return _HYPHEN.sub(whole, text)


def _of_bytes(text: str) -> str:
    """The text where a font says UTF-8 for what should be UTF-16: `킟톀킾킲` is `Пров` then, byte by byte."""
    letters = [ord(letter) for letter in _HANGUL.findall(text)]
    if len(letters) < _FEWEST_BY_BYTES or any(
        not (code >> 8 >= 0xC2 and 0x80 <= code & 0xFF <= 0xBF) for code in letters
    ):
        return text
    return _HANGUL.sub(lambda found: ord(found[0]).to_bytes(2, "big").decode(), text)


def _joined(column: re.Match[str]) -> str:
    return "".join(column[0].split())


def _on_page(page: Any, textpage: Any, count: int) -> Sequence[tuple[int, int]]:
    """Where the characters are, from one to another, that stand on the page at least in part."""
    left, bottom, right, top = page.get_bbox()
    text, seen = textpage.get_text_range(errors="replace"), textpage.get_text_bounded(errors="replace")
    if len("".join(seen.split())) == len("".join(text.split())) or left >= right or bottom >= top:
        return ((0, count),)
    runs: list[tuple[int, int]] = []
    box = api.FS_RECTF()
    for index in range(count):
        # What has no room, such as the end of a line, is kept with what has.
        has_room = api.FPDFText_GetLooseCharBox(textpage, index, box) and box.right > box.left and box.top > box.bottom
        if has_room and (box.right <= left or box.left >= right or box.top <= bottom or box.bottom >= top):
            continue
        if runs and runs[-1][1] == index:
            runs[-1] = (runs[-1][0], index + 1)
        else:
            runs.append((index, index + 1))
    return runs


def _said_beside(page: Any) -> Iterator[tuple[str, str]]:
    """Words of its annotations and fields, and the line that tells of them."""
    for index in range(min(api.FPDFPage_GetAnnotCount(page), _MOST_ANNOTATIONS)):
        annotation = api.FPDFPage_GetAnnot(page, index)
        if not annotation:
            continue
        try:
            kind = api.FPDFAnnot_GetSubtype(annotation)
            if api.FPDFAnnot_GetFlags(annotation) & api.FPDF_ANNOT_FLAG_HIDDEN or kind in _WITHOUT_WORDS:
                continue
            if kind == api.FPDF_ANNOT_WIDGET:
                if api.FPDFAnnot_GetFormFieldType(page.formenv, annotation) in _FIELDS_OF_TEXT:
                    value = _words(api.FPDFAnnot_GetFormFieldValue, page.formenv, annotation)
                    name = _words(api.FPDFAnnot_GetFormFieldName, page.formenv, annotation)
                    yield value, f"[field {name}: {value}]"
            else:
                words = _words(api.FPDFAnnot_GetStringValue, annotation, b"Contents")
                yield words, words if kind == api.FPDF_ANNOT_FREETEXT else f"[comment: {words}]"
        finally:
            api.FPDFPage_CloseAnnot(annotation)


_FIELDS_OF_TEXT: Final = frozenset(
    {api.FPDF_FORMFIELD_TEXTFIELD, api.FPDF_FORMFIELD_COMBOBOX, api.FPDF_FORMFIELD_LISTBOX}
)


def _words(ask: Any, *arguments: object) -> str:
    """What a function of pdfium says in UTF-16, the length of which it is asked for first."""
    size = min(ask(*arguments, None, 0), _LONGEST_WORDS)
    buffer = ctypes.create_string_buffer(size + 2)
    ask(*arguments, ctypes.cast(buffer, ctypes.POINTER(api.FPDF_WCHAR)), size)
    return buffer.raw[:size].decode("utf-16-le", "replace").split("\0")[0].strip()
