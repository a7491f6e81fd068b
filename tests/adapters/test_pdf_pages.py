"""Pages of a PDF as they look."""

import io

import pytest
from PIL import Image
from tests.documents import pdf_of_pages

from textllm_adapters.documents.pdf_pages import draw_pages
from textllm_core.errors import UnreadableDocumentError


def test_pages_are_drawn_as_a_reader_sees_them() -> None:
    words, blank = draw_pages(pdf_of_pages(["Hello", "", "x"]), most=2).pages
    assert (words.media_type, words.width, words.height) == ("image/jpeg", 1583, 2048)
    assert [Image.open(io.BytesIO(page.content)).convert("1").getextrema() for page in (words, blank)] == [
        (0, 255),
        (255, 255),
    ]


@pytest.mark.parametrize("content", [b"%PDF-1.7", pdf_of_pages([])])
def test_what_has_no_pages_is_refused(content: bytes) -> None:
    with pytest.raises(UnreadableDocumentError):
        draw_pages(content, most=2)
