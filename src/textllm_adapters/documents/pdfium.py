"""Pages of PDF files as pdfium, the reader in Chrome, has them. Runs in the child alone."""

import ctypes
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from time import process_time
from typing import Any, Final, NamedTuple

import pypdfium2
import pypdfium2.raw as api

from textllm_adapters.documents.fonts import stand_in
from textllm_adapters.documents.misread import letters_of_bytes, letters_of_windows, without_codes
from textllm_adapters.documents.pdf_places import on_page, once, placed, text_of
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
_SPACES: Final = re.compile(r" {2,}")
# A column of a page that is written from top to bottom, read as lines of a character each, and the marks behind it.
_UPRIGHT: Final = r"[\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]{1,3}"
_COLUMN: Final = re.compile(rf"^{_UPRIGHT}(?:\r?\n{_UPRIGHT}(?=\r?$)){{4,}}", re.MULTILINE)
# How its pages follow each other; pdfium takes it for the way of each line, Latin ones too.
_RIGHT_TO_LEFT: Final = re.compile(rb"(/Direction\s*)/R2L\b")
_WITHOUT_WORDS: Final = frozenset({api.FPDF_ANNOT_LINK, api.FPDF_ANNOT_POPUP})
_NOT_SEEN: Final = api.FPDF_ANNOT_FLAG_HIDDEN | api.FPDF_ANNOT_FLAG_NOVIEW
_MOST_MISSING: Final = 10  # pages, before a file is given up
_LONGEST_WORDS: Final = 100_000  # bytes of a comment or a value; more is no person's
_LONGEST_COMB: Final = 64  # characters
_MOST_ANNOTATIONS: Final = 1_000  # of a page
_LOOKED_AT: Final = 200  # characters of a page
_CONTROLS: Final = frozenset([*range(1, 32), *range(127, 160)]) - frozenset(b"\x02\t\n\r")
_MOST_CONTROLS: Final = 0.05  # of its characters, as in other texts (`doubt`)
_PLACES_S: Final = 3.0  # of the child's processor time; a page of 3,000 characters takes 20 ms of it


class PageText(NamedTuple):
    """What a page says.

    Args:
        is_raw: by the codes of its characters, since a font does not say which ones they are.
        outside: so many characters are left out, since nobody sees them: they stand beside the page, or where the same
            ones stand already.
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
            self._document: Any = pypdfium2.PdfDocument(_RIGHT_TO_LEFT.sub(rb"\1/L2R", content))
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
        beside = beside._replace(text=_of_combs(beside.text, said))
        texts = [text, beside.text]
        shown = "".join("".join(texts).split())
        texts += [line for words, line in said if "".join(words.split()) not in shown]
        return PageText("\n".join(text for text in texts if text), is_raw, outside + beside.outside)

    def _text_of_annotations(self, page: Any, index: int) -> PageText:
        """What fields of forms and other annotations show: made a part of the page, and all else taken off it."""
        contents = api.FPDFPage_CountObjects(page)
        for place in reversed(range(min(api.FPDFPage_GetAnnotCount(page), _MOST_ANNOTATIONS))):
            annotation = api.FPDFPage_GetAnnot(page, place)
            is_hidden = annotation and api.FPDFAnnot_GetFlags(annotation) & _NOT_SEEN
            api.FPDFPage_CloseAnnot(annotation)
            if is_hidden:  # which pdfium would draw all the same
                api.FPDFPage_RemoveAnnot(page, place)
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
        count, outside = textpage.count_chars(), 0
        has_time = process_time() < _PLACES_S
        if has_time or _is_partly_outside(textpage):
            characters = placed(textpage, count)
            shown = on_page(characters, page.get_bbox())
            if has_time:
                shown = once(shown)
            outside = len(characters) - len(shown)
            text = text_of(shown) if has_time else "".join(character.letter for character in shown)
        else:
            text = textpage.get_text_range(errors="replace")
        codes = [api.FPDFText_GetUnicode(textpage, place) for place in range(0, count, count // _LOOKED_AT + 1)]
        textpage.close()
        is_raw = sum(code in _CONTROLS for code in codes) > len(codes) * _MOST_CONTROLS
        if is_raw:
            text = without_codes(text)
        if outside:
            text = _SPACES.sub(" ", _GAP.sub("\n", text))
        return PageText(
            self._in_words(_COLUMN.sub(_joined, letters_of_windows(letters_of_bytes(text)))).strip(), is_raw, outside
        )

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


def _of_combs(text: str, said: Sequence[tuple[str, str]]) -> str:
    """The text with values whole whose characters stand each in a box of its own."""
    for value, _ in said:
        if 1 < len(value) <= _LONGEST_COMB and value.isalnum():
            apart = r"\s+".join(map(re.escape, value))
            text = re.sub(rf"(?<!\S){apart}(?!\S)", value, text)
    return text


def _joined(column: re.Match[str]) -> str:
    return "".join(column[0].split())


def _is_partly_outside(textpage: Any) -> bool:
    text, seen = textpage.get_text_range(errors="replace"), textpage.get_text_bounded(errors="replace")
    return len("".join(seen.split())) != len("".join(text.split()))


def _said_beside(page: Any) -> Iterator[tuple[str, str]]:
    """Words of its annotations and fields, and the line that tells of them."""
    for index in range(min(api.FPDFPage_GetAnnotCount(page), _MOST_ANNOTATIONS)):
        annotation = api.FPDFPage_GetAnnot(page, index)
        if not annotation:
            continue
        try:
            kind = api.FPDFAnnot_GetSubtype(annotation)
            if api.FPDFAnnot_GetFlags(annotation) & _NOT_SEEN or kind in _WITHOUT_WORDS:
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
