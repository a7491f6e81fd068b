"""Pages of PDF files as pdfium, the reader in Chrome, has them. Runs in the child alone."""

import ctypes
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final, NamedTuple

import pypdfium2
import pypdfium2.raw as api

from textllm_core.errors import UnreadableDocumentError

# How it writes a hyphen at the end of a line, and one where a word may be parted.
_HYPHENS: Final = str.maketrans({"\ufffe": "-", "\x02": "-"})
_WITHOUT_WORDS: Final = frozenset({api.FPDF_ANNOT_LINK, api.FPDF_ANNOT_POPUP})
_MOST_MISSING: Final = 10  # pages, before a file is given up
_LONGEST_WORDS: Final = 100_000  # bytes of a comment or a value; more is no person's
_MOST_ANNOTATIONS: Final = 1_000  # of a page
_LOOKED_AT: Final = 200  # characters of a page
_CONTROLS: Final = frozenset([*range(1, 32), *range(127, 160)]) - frozenset(b"\x02\t\n\r")
_MOST_CONTROLS: Final = 0.05  # of its characters, as in other texts (`doubt`)


class PageText(NamedTuple):
    """What a page says; `is_raw`: by the codes of its characters, since a font does not say which ones they are."""

    text: str
    is_raw: bool


class PdfiumDocument:
    """A PDF file that pdfium could open.

    Raises:
        UnreadableDocumentError: it needs a password.
        PdfiumError: it cannot be opened.
    """

    def __init__(self, content: bytes) -> None:
        try:
            self._document: Any = pypdfium2.PdfDocument(content)
        except pypdfium2.PdfiumError as error:
            if api.FPDF_GetLastError() in {api.FPDF_ERR_PASSWORD, api.FPDF_ERR_SECURITY}:
                raise UnreadableDocumentError("encrypted") from error
            raise
        self._document.init_forms()

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
        text, is_raw = _text(page)
        texts = [text, self._text_of_annotations(page, index)]
        page.close()
        shown = "".join("".join(texts).split())
        texts += [line for words, line in said if "".join(words.split()) not in shown]
        return PageText("\n".join(text for text in texts if text), is_raw)

    def _text_of_annotations(self, page: Any, index: int) -> str:
        """What fields of forms and other annotations show: made a part of the page, and all else taken off it."""
        contents = api.FPDFPage_CountObjects(page)
        if not api.FPDFPage_GetAnnotCount(page):
            return ""
        if api.FPDFPage_Flatten(page, api.FLAT_NORMALDISPLAY) != api.FLATTEN_SUCCESS:
            return ""
        flat = self._document[index]
        for _ in range(min(contents, api.FPDFPage_CountObjects(flat))):
            page_object = api.FPDFPage_GetObject(flat, 0)
            api.FPDFPage_RemoveObject(flat, page_object)
            api.FPDFPageObj_Destroy(page_object)
        text, _ = _text(flat)
        flat.close()
        return text


def _text(page: Any) -> PageText:
    textpage = page.get_textpage()
    text: str = textpage.get_text_range(errors="replace").translate(_HYPHENS).strip()
    count = textpage.count_chars()
    codes = [api.FPDFText_GetUnicode(textpage, place) for place in range(0, count, count // _LOOKED_AT + 1)]
    textpage.close()
    return PageText(text, sum(code in _CONTROLS for code in codes) > len(codes) * _MOST_CONTROLS)


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
