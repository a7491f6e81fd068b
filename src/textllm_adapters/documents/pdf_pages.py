"""Pages of PDF files as images, drawn by pdfium. Runs in the child alone."""

from contextlib import suppress
from io import BytesIO
from typing import Any, Final

import pypdfium2
from PIL import Image

from textllm_adapters.documents.crashes import CrashedPages
from textllm_adapters.documents.outcomes import Drawn, Pictured
from textllm_core.errors import UnreadableDocumentError

_LONGER_SIDE: Final = 2048  # pixels, into which models fit an image; 175 a inch of a page of A4
_QUALITY: Final = 80
_MOST_BYTES: Final = 1_500_000  # of a page: ten of them are a reply of the child
_HALF: Final = 2


def draw_pages(content: bytes, *, most: int, crashed: CrashedPages | None = None) -> Drawn:
    """The first pages, each an image that fits into 2048 x 2048 pixels; without those that pdfium cannot draw.

    Raises:
        UnreadableDocumentError: no page can be drawn.
    """
    crashed = crashed or CrashedPages()
    if crashed.is_hopeless:
        raise UnreadableDocumentError("damaged")
    try:
        document: Any = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as error:
        raise UnreadableDocumentError("damaged") from error
    first = range(min(len(document), most))
    pages = []
    for index in first:
        if index not in crashed.pages:
            crashed.begin(index)
            with suppress(pypdfium2.PdfiumError):
                pages.append(_drawn(document[index]))
    if not pages:
        raise UnreadableDocumentError("damaged" if first else "empty")
    return Drawn(tuple(pages))


def _drawn(page: Any) -> Pictured:
    scale = _LONGER_SIDE / max(*page.get_size(), 1)
    picture = _packed(page.render(scale=scale, may_draw_forms=True).to_pil().convert("RGB"))
    page.close()
    return picture


def _packed(image: Image.Image) -> Pictured:
    file = BytesIO()
    image.save(file, "JPEG", quality=_QUALITY)
    if len(file.getvalue()) > _MOST_BYTES and min(image.size) > _HALF:
        return _packed(image.resize((image.width // _HALF, image.height // _HALF)))
    return Pictured(file.getvalue(), "image/jpeg", *image.size)
