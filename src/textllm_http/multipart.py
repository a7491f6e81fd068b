"""Forms with files (RFC 7578), read as they come: texts into memory, files onto the disk, all within bounds."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from litestar import Request
from litestar.exceptions.http_exceptions import RequestEntityTooLarge
from multipart import MultipartError, MultipartSegment, PushMultipartParser

from textllm_core.errors import FileTooLargeError, InvalidRequestError, UnsupportedMediaTypeError
from textllm_core.uploads import Upload
from textllm_http.auth import caller_of
from textllm_http.requests import MAX_PIECES, content_length_of, content_type_of, refusal, unknown_field
from textllm_http.services import services_of
from textllm_http.spool import Spool, SpooledFile

MIN_BYTES_PER_S: Final = 4096  # on average, after the first minute: who is slower keeps others from sending
_FIRST_MINUTE_S: Final = 60.0  # in which a telephone may be between two networks
_OVERHEAD_BYTES: Final = 64 * 1024  # boundaries and headers
_MAX_HEADERS: Final = 8
_MAX_HEADER_BYTES: Final = 20 * 1024  # a name of 4,096 characters fits, whatever they are
_USUAL_PIECE_BYTES: Final = 512  # at least, beyond the first ones: each costs some work, however small it is
_PARSED_AT_ONCE: Final = 64 * 1024
_SPOOLED_AT_ONCE: Final = 256 * 1024

_BOUNDARY: Final = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_PARAMETER: Final = re.compile(
    r"[ \t]*;[ \t]*(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:\"(?P<quoted>(?:[^\"\\]|\\.)*)\"|(?P<plain>[^\s;\"]+))"
)
_ESCAPED: Final = re.compile(r"\\([\"\\])")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii"})
_ENCODINGS: Final = frozenset({"7bit", "8bit", "binary"})

_NAMELESS: Final = "must be a file with a name"


@dataclass(frozen=True, slots=True)
class Form:
    """A form that has arrived as a whole. Its files can be read until the request ends.

    Fields that were left empty are not in it: browsers send every field of a page, a file that nobody chose too.
    """

    texts: Mapping[str, str]
    files: Mapping[str, Sequence[Upload]]


class MultipartBody:
    """Bodies of one shape.

    Args:
        texts: the fields that may be there, each at most once; an empty one is as if left out.
        files: the fields that hold files, each with how many it may hold; it must hold one at least.
        optional: those of them that may hold none.
        ignores_others: fields that nobody knows are read, and forgotten.
    """

    def __init__(
        self,
        *,
        texts: Sequence[str],
        files: Mapping[str, int],
        optional: Sequence[str] = (),
        ignores_others: bool = False,
    ) -> None:
        self.texts, self.files, self.optional = tuple(texts), dict(files), frozenset(optional)
        self.ignores_others = ignores_others

    @asynccontextmanager
    async def read(
        self, request: Request[Any, Any, Any], spool: Spool, *, max_file_bytes: int, max_text_bytes: int
    ) -> AsyncIterator[Form]:
        """The form. What is left of it in the spool is gone when the block ends, however it ends.

        Args:
            max_file_bytes: of one file.
            max_text_bytes: of all texts together.
        Raises:
            InvalidRequestError: malformed, of another shape, or not complete in time.
            FileTooLargeError: a file is, or the whole body must be; as soon as that is known.
            RequestEntityTooLarge: the texts are too long.
            UnsupportedMediaTypeError: the body is no form.
            StorageUnavailableError: there is no room for the files.
        """
        boundary = _boundary_of(content_type_of(request))
        max_bytes = sum(self.files.values()) * max_file_bytes + max_text_bytes + _OVERHEAD_BYTES
        if content_length_of(request) > max_bytes:
            raise FileTooLargeError(limit=max_file_bytes)
        with spool.place(caller_of(request)):
            async with AsyncExitStack() as opened:
                parts = _Parts(self, boundary, max_file_bytes=max_file_bytes, max_text_bytes=max_text_bytes)
                received = 0
                async for piece in pieces_of(request):
                    received += len(piece)
                    if received > max_bytes:
                        raise FileTooLargeError(limit=max_file_bytes)
                    for start in range(0, len(piece), _PARSED_AT_ONCE):
                        parts.parse(piece[start : start + _PARSED_AT_ONCE])
                        await _spool(parts, spool, opened)
                        await asyncio.sleep(0)  # others have their turn, however much comes at once
                yield parts.form()


@dataclass(slots=True)
class _File:
    """A file on its way: `waiting` are the bytes that are not in the spool yet."""

    of_field: str
    name: str
    size: int = 0
    waiting: bytearray = field(default_factory=bytearray)
    spooled: SpooledFile | None = None
    is_whole: bool = False


class _Parts:
    """What is in the body, part by part."""

    def __init__(self, shape: MultipartBody, boundary: str, *, max_file_bytes: int, max_text_bytes: int) -> None:
        self._shape, self._max_file_bytes, self._max_text_bytes = shape, max_file_bytes, max_text_bytes
        self._parser = PushMultipartParser(boundary, max_header_size=_MAX_HEADER_BYTES, max_header_count=_MAX_HEADERS)
        self._current: _File | bytearray = bytearray()
        self._texts: dict[str, bytearray] = {}
        self._text_bytes = 0
        self.files: list[_File] = []

    def parse(self, piece: bytes) -> None:
        """Read on, in the next bytes of the body."""
        try:
            for event in self._parser.parse(piece):
                if isinstance(event, MultipartSegment):
                    self._begin(_headers_of(event))
                elif event is not None:
                    self._content(event)
                elif isinstance(self._current, _File):
                    self._current.is_whole = True
        except MultipartError as error:
            raise InvalidRequestError("The body is not valid multipart/form-data.") from error

    def _begin(self, headers: Mapping[str, str]) -> None:
        name, filename = _names_of(headers)
        if name in self._shape.files:
            if filename is None:
                raise refusal(name, _NAMELESS)
            most = self._shape.files[name]
            if sum(file.of_field == name for file in self.files) == most:
                once = "once; send one file" if most == 1 else f"{most} times; send 1 to {most} files"
                raise refusal(name, f"is there more than {once}")
            self._current = _File(name, filename)
            self.files.append(self._current)
            return
        if name not in self._shape.texts:
            if not self._shape.ignores_others:
                raise unknown_field(name, (*self._shape.files, *self._shape.texts))
            self._current = bytearray()
            return
        if filename is not None:
            raise refusal(name, "must be a text, not a file")
        if name in self._texts:
            raise refusal(name, "is there more than once")
        self._current = self._texts[name] = bytearray()

    def _content(self, piece: bytes) -> None:
        match self._current:
            case _File() as file:
                if not file.name:
                    raise refusal(file.of_field, _NAMELESS)
                file.size += len(piece)
                if file.size > self._max_file_bytes:
                    raise self._too_large(file)
                file.waiting += piece
            case text:
                text += piece
                self._text_bytes += len(piece)
                if self._text_bytes > self._max_text_bytes:
                    raise RequestEntityTooLarge

    def _too_large(self, file: _File) -> FileTooLargeError:
        refusal = FileTooLargeError(limit=self._max_file_bytes)
        if self._shape.files[file.of_field] > 1:
            number = sum(other.of_field == file.of_field for other in self.files)
            refusal.tell_of(f"File {number} in {file.of_field}")
        return refusal

    def form(self) -> Form:
        """The form, now that the body has ended; unless something is missing."""
        try:
            self._parser.close()
        except MultipartError as error:
            raise InvalidRequestError("The body ended before its last boundary.") from error
        texts = {name: _text(name, content) for name, content in self._texts.items() if content}
        files = {
            name: [_upload(file) for file in self.files if file.of_field == name and file.name]
            for name in self._shape.files
        }
        for name, found in files.items():
            if not found and name not in self._shape.optional:
                raise refusal(name, "is required")
        return Form(texts, files)


async def _spool(parts: _Parts, spool: Spool, opened: AsyncExitStack) -> None:
    """Bring onto the disk what has waited long enough."""
    for file in parts.files:
        if len(file.waiting) < (1 if file.is_whole else _SPOOLED_AT_ONCE):
            continue
        if file.spooled is None:
            file.spooled = await spool.open()
            opened.push_async_callback(file.spooled.close)
        waiting, file.waiting = bytes(file.waiting), bytearray()
        await file.spooled.append(waiting)


def _upload(file: _File) -> Upload:
    if file.spooled is None:
        return Upload.of_bytes(file.name, b"")
    return Upload(file.name, file.size, file.spooled.read)


async def pieces_of(request: Request[Any, Any, Any]) -> AsyncIterator[bytes]:
    """A body as it comes, which may take as long as its size is worth.

    Raises:
        InvalidRequestError: it came too slowly, in too many pieces, or not to its end.
    """
    loop, silence_s = asyncio.get_running_loop(), services_of(request).body_timeout_s
    started, received, pieces = loop.time(), 0, 0
    has_more = True
    while has_more:
        deadline = min(loop.time() + silence_s, started + _FIRST_MINUTE_S + received / MIN_BYTES_PER_S)
        try:
            async with asyncio.timeout_at(deadline):
                event = await request.receive()
        except TimeoutError as error:
            raise InvalidRequestError("The body came too slowly, or stopped.") from error
        if event["type"] != "http.request":
            raise InvalidRequestError("The request ended before its body did.")
        piece, has_more = event.get("body", b""), event.get("more_body", False)
        received, pieces = received + len(piece), pieces + 1
        if pieces > MAX_PIECES + received // _USUAL_PIECE_BYTES:
            raise InvalidRequestError("The body came in too many small pieces.")
        yield piece


def _boundary_of(content_type: str) -> str:
    media_type, parameters = _parsed(content_type)
    if media_type != "multipart/form-data" or parameters.get("charset", "utf-8").lower() not in _CHARSETS:
        raise UnsupportedMediaTypeError("The body must be multipart/form-data in UTF-8.")
    boundary = parameters.get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise InvalidRequestError("The Content-Type must name the boundary, 1 to 70 characters as RFC 2046 has them.")
    return boundary


def _headers_of(part: MultipartSegment) -> Mapping[str, str]:
    headers: dict[str, str] = {}
    for name, value in part.headerlist:
        if name.lower() in headers:
            raise InvalidRequestError(f"A part of the body has more than one {_sane(name.lower())}.")
        headers[name.lower()] = value
    return headers


def _names_of(headers: Mapping[str, str]) -> tuple[str, str | None]:
    """The field that a part belongs to, and the name of its file if it is one."""
    kind, parameters = _parsed(headers.get("content-disposition", ""))
    if kind != "form-data" or "name" not in parameters:
        raise InvalidRequestError("Each part of the body must have a Content-Disposition: form-data; name=…")
    if any("*" in parameter for parameter in parameters):
        raise InvalidRequestError("Names of fields and files must be plain UTF-8, not name*= or filename*=.")
    media_type, of_type = _parsed(headers.get("content-type", "text/plain"))
    if media_type.startswith("multipart/"):
        _refuse_encoding("parts within parts")
    if of_type.get("charset", "utf-8").lower() not in _CHARSETS and "filename" not in parameters:
        _refuse_encoding("texts in another charset than UTF-8")
    if headers.get("content-transfer-encoding", "binary").lower() not in _ENCODINGS:
        _refuse_encoding("a Content-Transfer-Encoding")
    filename = parameters.get("filename")
    return parameters["name"], filename and filename.replace("%22", '"')  # as browsers and curl write a quote


def _refuse_encoding(what: str) -> NoReturn:
    raise InvalidRequestError(f"The body must not have {what}.")


def _parsed(value: str) -> tuple[str, Mapping[str, str]]:
    """A header's first word and its parameters, in lower case but for the values."""
    first = value.partition(";")[0]
    parameters: dict[str, str] = {}
    position = len(first)
    while position < len(value):
        found = _PARAMETER.match(value, position)
        if found is None or _CONTROL.search(found[0]) or found["name"].lower() in parameters:
            raise InvalidRequestError("The parameters of a header are malformed, or given twice.")
        quoted = found["quoted"]
        parameters[found["name"].lower()] = found["plain"] if quoted is None else _ESCAPED.sub(r"\1", quoted)
        position = found.end()
    return first.strip(" \t").lower(), parameters


def _text(name: str, content: bytearray) -> str:
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise refusal(name, "must be text in UTF-8") from error
    if "\0" in text:
        raise refusal(name, "must not contain the character NUL")
    return text


def _sane(name: str) -> str:
    return name if re.fullmatch(r"[a-z-]{1,64}", name) else "header of one name"
