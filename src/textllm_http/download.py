"""A stored file as a response: whole, in part, or not at all where the client has it (RFC 9110, RFC 6266)."""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Final, NamedTuple

from litestar import Request
from litestar.exceptions import HTTPException
from litestar.types import Message, Receive, Scope, Send

from textllm_core.errors import TextLLMError
from textllm_core.file_names import as_attachment
from textllm_core.files import ReadFile
from textllm_core.records.files import StoredFile
from textllm_http.concurrency import ConcurrencyLimit
from textllm_http.middleware import header
from textllm_http.services import services_of

STALLED_AFTER_S: Final = 60.0  # a network that comes back does so within seconds; the place is another's then
MAX_DOWNLOADS: Final = 256  # in one process: half a megabyte waits for a client that does not read
_logger: Final = logging.getLogger("textllm")
_RANGE: Final = re.compile(r"bytes=(?P<first>[0-9]{0,18})-(?P<last>[0-9]{0,18})")


class Span(NamedTuple):
    """Bytes of a file, both counted from 0 and included."""

    first: int
    last: int


async def response_of(request: Request[Any, Any, Any], file: StoredFile, read: ReadFile) -> "FileResponse":
    """The file, or the part that the request asks for; always a download, and never something a browser would run.

    Raises:
        HTTPException: 412, `If-Match` names another file; 416, no byte of the file is in the range.
        StoredFileNotFoundError, StorageUnavailableError: as `read`, before anything is sent.
    """
    etag = f'"{file.sha256}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": as_attachment(file.name),
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "X-Content-Type-Options": "nosniff",
    }
    if_match = header(request.scope, b"if-match")
    if if_match is not None and not {etag, "*"} & {tag.strip() for tag in if_match.split(",")}:
        raise HTTPException(status_code=412)
    if _matches(header(request.scope, b"if-none-match"), etag):
        return FileResponse(304, headers)
    span = _asked_for(request.scope, file.size, etag)
    headers |= {"Content-Type": _content_type(file), "Content-Length": str(file.size)}
    status = 200
    if span is not None:
        status = 206
        headers |= {
            "Content-Range": f"bytes {span.first}-{span.last}/{file.size}",
            "Content-Length": str(span.last - span.first + 1),
        }
    if request.method == "HEAD" or file.size == 0:
        await read.check(file)
        return FileResponse(status, headers)
    pieces = read(file) if span is None else read(file, first=span.first, last=span.last)
    beginning = await anext(pieces)  # a refusal is raised here
    return FileResponse(status, headers, Content(pieces, beginning, services_of(request).downloads))


class Content(NamedTuple):
    """What is to be sent: pieces, the first of which has been read already; `limit`: how many are sent at a time."""

    pieces: AsyncGenerator[bytes, None]
    beginning: bytes
    limit: ConcurrencyLimit


class FileResponse:
    """An ASGI response of pieces. What fails once it has begun ends the connection, so that nobody takes it as whole.

    Raises:
        ServiceUnavailableError: too many others are being sent; nothing has been.
    """

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        content: Content | None = None,
        *,
        stalled_after_s: float = STALLED_AFTER_S,
    ) -> None:
        self._status, self._content, self._stalled_after_s = status, content, stalled_after_s
        self._headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's form
        start: Message = {"type": "http.response.start", "status": self._status, "headers": self._headers}
        if self._content is None:
            await send(start)
        else:
            async with aclosing(self._content.pieces) as pieces:
                with self._content.limit.taken():
                    await send(start)
                    try:
                        await self._send_piece(send, self._content.beginning)
                        async for piece in pieces:
                            await self._send_piece(send, piece)
                    except TimeoutError:  # the client does not read on
                        return
                    except TextLLMError as error:
                        _logger.warning("a download broke off: %s", error.code)
                        return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_piece(self, send: Send, piece: bytes) -> None:
        async with asyncio.timeout(self._stalled_after_s):
            await send({"type": "http.response.body", "body": piece, "more_body": True})


def _asked_for(scope: Scope, size: int, etag: str) -> Span | None:
    """The one range that the request asks for; None for the whole, also where it asks for what we need not know."""
    found = _RANGE.fullmatch((header(scope, b"range") or "").strip().lower())
    if found is None or header(scope, b"if-range") not in (None, etag) or not (found["first"] or found["last"]):
        return None
    if found["first"]:
        first, last = int(found["first"]), int(found["last"] or size - 1)
        if found["last"] and last < first:
            return None
    else:
        first, last = size - int(found["last"]), size - 1
    first, last = max(first, 0), min(last, size - 1)
    if first > last:
        raise HTTPException(status_code=416, headers={"Content-Range": f"bytes */{size}"})
    return Span(first, last)


def _matches(if_none_match: str | None, etag: str) -> bool:
    if if_none_match is None:
        return False
    return any(tag.strip().removeprefix("W/") in (etag, "*") for tag in if_none_match.split(","))


def _content_type(file: StoredFile) -> str:
    return f"{file.content_type}; charset=utf-8" if file.content_type == "text/plain" else file.content_type
