"""What the routes that send files have in common, in the OpenAPI document."""

from collections.abc import Mapping
from typing import Final

from textllm_http.openapi_shapes import FILE, Answer, Content

_BYTES: Final[Mapping[str, Content]] = {"*/*": Content(FILE)}
_HEADERS: Final = ("ETag", "Content-Disposition", "Accept-Ranges", "Cache-Control")
DOWNLOAD_ANSWERS: Final[Mapping[int, Answer]] = {
    200: Answer(says="The bytes of the file.", content=_BYTES, headers=_HEADERS),
    206: Answer(says="The bytes of `Range`.", content=_BYTES, headers=(*_HEADERS, "Content-Range")),
    304: Answer(says="You have it already.", headers=_HEADERS),
}
