"""Pages of PDF files as images, drawn by pdfium. Runs in the child alone."""

from io import BytesIO
from typing import Any, Final

import pypdfium2
from PIL import Image

from textllm_adapters.documents.outcomes import Drawn, Pictured
from textllm_core.errors import UnreadableDocumentError

_LONGER_SIDE: Final = 2048  # pixels, into which models fit an image; 175 a inch of a page of A4
_QUALITY: Final = 80
_MOST_BYTES: Final = 1_500_000  # of a page: ten of them are a reply of the child
_HALF: Final = 2


def draw_pages(content: bytes, *, most: int) -> Drawn:
    """The first pages, each an image that fits into 2048 x 2048 pixels.

    Raises:
        UnreadableDocumentError: no page can be drawn.
    """
    pages = []
    try:
        document: Any = pypdfium2.PdfDocument(content)
        for index in range(min(len(document), most)):
            page = document[index]
            scale = _LONGER_SIDE / max(*page.get_size(), 1)
            pages.append(_packed(page.render(scale=scale, may_draw_forms=True).to_pil().convert("RGB")))
            page.close()
    except pypdfium2.PdfiumError as error:
        if not pages:
            raise UnreadableDocumentError("damaged") from error
    if not pages:
        raise UnreadableDocumentError("empty")
    return Drawn(tuple(pages))


def _packed(image: Image.Image) -> Pictured:
    file = BytesIO()
    image.save(file, "JPEG", quality=_QUALITY)
    if len(file.getvalue()) > _MOST_BYTES and min(image.size) > _HALF:
        return _packed(image.resize((image.width // _HALF, image.height // _HALF)))
    return Pictured(file.getvalue(), "image/jpeg", *image.size)
