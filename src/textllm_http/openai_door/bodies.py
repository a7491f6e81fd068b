"""JSON bodies with files in them: these are cut out while the body comes in, and wait on the disk."""

import asyncio
import re
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import AsyncIterator
from contextlib import ExitStack
from functools import partial
from hashlib import sha256
from secrets import token_hex
from typing import Any, Final, NamedTuple, Self

from litestar import Request
from litestar.exceptions.http_exceptions import RequestEntityTooLarge

from textllm_core.chat.attachments import MOST_BYTES
from textllm_core.chat.given_parts import MAX_FILES
from textllm_core.errors import FileTooLargeError, InvalidRequestError
from textllm_core.uploads import Upload
from textllm_http.auth import caller_of
from textllm_http.multipart import pieces_of
from textllm_http.requests import check_json_type, content_length_of, json_of
from textllm_http.services import services_of
from textllm_http.spool import Spool, SpooledFile

_SCANNED_AT_ONCE: Final = 64 * 1024
_SPOOLED_AT_ONCE: Final = 256 * 1024
# Where a file begins: a string that is a data URL in base64, or the value of `file_data`, which some send without one.
# A quote that is not escaped, with `data:` behind it, begins a string in all JSON.
_BEGINS: Final = re.compile(
    rb'"file_data"\s{0,16}:\s{0,16}"(?:data:(?P<of_file>[^",]{0,200});base64,)?|"data:(?P<of_url>[^",]{0,200});base64,'
)
_LONGEST_BEGINNING: Final = 300  # bytes that the pattern may take
_ESCAPED: Final = re.compile(rb"\\(?:u00([0-9a-fA-F]{2})|([/nrt]))")
_LONGEST_ESCAPE: Final = 6
_BLANK: Final = re.compile(rb"[\r\n\t ]+")
_SUBTYPE: Final = re.compile(r"[a-z0-9]{1,10}")
_SUFFIXES: Final = {"jpeg": "jpg", "plain": "txt", "markdown": "md"}
_NO_BASE64: Final = "is not valid base64; send the bytes of the file in base64, or its id as file_id"


class LiftedFile(NamedTuple):
    """A file that stood in a body: where it lies in the spool, and what it was said to be."""

    first: int
    size: int
    sha256: str
    subtype: str


class HeldSpool:
    """Keeps `HeldFiles`, in one file of the spool, which is made when it is needed."""

    def __init__(self, spool: Spool) -> None:
        self._spool, self._size, self._holders = spool, 0, 1
        self._file: SpooledFile | None = None

    async def append(self, content: bytes) -> int:
        """Where it lies.

        Raises:
            StorageUnavailableError: there is no room for it.
        """
        if self._file is None:
            self._file = await self._spool.open()
        await self._file.append(content)
        self._size += len(content)
        return self._size - len(content)

    async def keep(self, upload: Upload) -> Upload:
        first, size = self._size, 0
        async for piece in upload.read():
            size += len(piece)
            await self.append(piece)
        return self.upload(upload.name, first, size)

    def upload(self, name: str, first: int, size: int) -> Upload:
        """Some of what lies there."""
        if self._file is None:
            return Upload.of_bytes(name, b"")
        return Upload(name, size, partial(self._file.span, first, size))

    def hold(self) -> None:
        self._holders += 1

    def let_go(self) -> None:
        self._holders -= 1
        if self._holders == 0 and self._file is not None:
            self._file.close_aside()


class DoorBody:
    """A body without its files, in whose places it has something short that nobody else can write.

    It is there for a block. Who needs its files beyond that, holds them.

    Attributes:
        content: the JSON.
        held: where its files wait, until the block ends and nobody holds them any more; None: it has none.
        place: of the request in the spool, until the block ends; None: it needs none.
    """

    def __init__(self, content: bytes, token: str = "", files: list[LiftedFile] | None = None) -> None:
        self.content = content
        self._token, self._files = token, files or []
        self.held: HeldSpool | None = None
        self.place: ExitStack | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.held is not None:
            self.held.let_go()
        if self.place is not None:
            self.place.close()

    @property
    def canonical(self) -> bytes:
        """The same for two bodies that have the same files in the same places."""
        if not self._files:
            return self.content
        places = re.compile(re.escape(self._token.encode()) + rb"([0-9]{1,6})")
        return places.sub(lambda place: self._files[int(place[1])].sha256.encode(), self.content)

    def held_in(self, spool: Spool) -> HeldSpool:
        """`held`; what is made of files that are stored, or of none, has a place there, too."""
        if self.held is None:
            self.held = HeldSpool(spool)
        return self.held

    def upload(self, text: str, name: str | None) -> Upload | None:
        """The file that stood where the text is; None where the text is one that was sent.

        Args:
            name: what its sender calls it.
        """
        if not self._token or not text.startswith(self._token):
            return None
        file = self._files[int(text.removeprefix(self._token))]
        assert self.held is not None
        return self.held.upload(name or _name_of(file), file.first, file.size)


async def door_body(request: Request[Any, Any, Any], *, max_text_bytes: int) -> DoorBody:
    """The body of a request that may have files in it: as data URLs in base64, or as `file_data`.

    Only pieces of the files are ever in memory.

    Args:
        max_text_bytes: of all that is no file.
    Raises:
        InvalidRequestError: it is not complete in time, or a file is not in base64.
        RequestEntityTooLarge: it has too much beside the files.
        FileTooLargeError: a file is too large, or all of them together.
        UnsupportedMediaTypeError: it is not declared as JSON in UTF-8.
        StorageUnavailableError: there is no room for the files, or too much is coming in.
    """
    services, content, length = services_of(request), b"", content_length_of(request)
    if 0 < length <= max_text_bytes:
        content = await _text_of(request, length, max_bytes=max_text_bytes)
        if b";base64," not in content and b'"file_data"' not in content:
            return DoorBody(content)
    else:
        check_json_type(request)
    if length > max_text_bytes + MOST_BYTES * 4 // 3 + max_text_bytes:
        raise FileTooLargeError.of_all(limit=MOST_BYTES)
    with ExitStack() as place:
        place.enter_context(services.spool.place(caller_of(request)))
        held = HeldSpool(services.spool)
        try:
            lifting = Lifting(held, max_text_bytes=max_text_bytes, max_file_bytes=services.max_file_bytes)
            async for piece in _once(content) if content else pieces_of(request):
                for start in range(0, len(piece), _SCANNED_AT_ONCE):
                    await lifting.take(piece[start : start + _SCANNED_AT_ONCE])
                    await asyncio.sleep(0)  # others have their turn, however much comes at once
            body = await lifting.ended()
        except BaseException:
            held.let_go()
            raise
        body.held, body.place = held, place.pop_all()
        return body


async def _text_of(request: Request[Any, Any, Any], length: int, *, max_bytes: int) -> bytes:
    """A body whole. One that is larger than those of `/chat` takes room, so that many slow ones do not fill the memory.

    Raises:
        StorageUnavailableError: too much is coming in.
    """
    services = services_of(request)
    if length <= services.max_body_bytes:
        return await json_of(request, max_bytes=max_bytes)
    with services.spool.place(caller_of(request)):
        return await json_of(request, max_bytes=max_bytes)


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


class Lifting:
    """Takes a body in pieces, and puts what is a file elsewhere."""

    def __init__(self, held: HeldSpool, *, max_text_bytes: int, max_file_bytes: int) -> None:
        self._held, self._max_text_bytes, self._max_file_bytes = held, max_text_bytes, max_file_bytes
        self._token = f"held:{token_hex(16)}:"
        self._text, self._searched = bytearray(), 0
        self._files: list[LiftedFile] = []
        self._current: _Decoding | None = None
        self._bytes = 0

    async def take(self, piece: bytes) -> None:
        """Read on."""
        while piece:
            if self._current is None:
                self._text += piece
                piece = self._begun(is_last=False)
            else:
                piece = await self._go_on(self._current, piece)
        if len(self._text) > self._max_text_bytes:
            raise RequestEntityTooLarge

    async def ended(self) -> DoorBody:
        """The body, now that it is all there."""
        rest = self._begun(is_last=True) if self._current is None else b""
        while rest:  # what was too short to be told before
            rest = await self._go_on(self._current, rest) if self._current else self._appended(rest)
        if self._current is not None:
            raise InvalidRequestError("The body is not valid JSON in UTF-8.")
        return DoorBody(bytes(self._text), self._token, self._files)

    def _appended(self, rest: bytes) -> bytes:
        self._text += rest
        return self._begun(is_last=True)

    def _begun(self, *, is_last: bool) -> bytes:
        """Begin a file where one begins in the text; what follows it."""
        found = _BEGINS.search(self._text, self._searched)
        while found is not None and _is_escaped(self._text, found.start()):
            self._searched = found.start() + 1
            found = _BEGINS.search(self._text, self._searched)
        if found is None:
            self._searched = max(self._searched, len(self._text) - _LONGEST_BEGINNING)
            return b""
        if not is_last and found.end() + _LONGEST_BEGINNING > len(self._text):
            self._searched = found.start()  # a longer one may begin there
            return b""
        if len(self._files) == MAX_FILES:
            raise InvalidRequestError(f"The body has more than {MAX_FILES} files; send fewer.")
        rest = bytes(self._text[found.end() :])
        declared = (found["of_file"] or found["of_url"] or b"").decode("latin-1").lower()
        # A data URL is replaced as a whole, `data:` included; of `file_data` the name stays.
        del self._text[_value_start(self._text, found) :]
        self._current = _Decoding(
            declared.partition(";")[0].rpartition("/")[2],
            field="file_data" if found.group().startswith(b'"file_data') else "image_url",
        )
        return rest

    async def _go_on(self, current: "_Decoding", piece: bytes) -> bytes:
        end = piece.find(b'"')
        current.take(piece if end < 0 else piece[:end])
        if current.size > self._max_file_bytes:
            raise FileTooLargeError(limit=self._max_file_bytes)
        if self._bytes + current.size > MOST_BYTES:
            raise FileTooLargeError.of_all(limit=MOST_BYTES)
        if end < 0:
            if len(current.waiting) >= _SPOOLED_AT_ONCE:
                await current.spool(self._held)
            return b""
        current.end()
        await current.spool(self._held)
        self._bytes += current.size
        self._text += f"{self._token}{len(self._files)}".encode()
        self._searched = len(self._text)
        self._files.append(LiftedFile(current.first, current.size, current.digest.hexdigest(), current.subtype))
        self._current = None
        return piece[end:]


class _Decoding:
    """A file that comes in base64, inside of a JSON string.

    Args:
        subtype: of its media type, as it is declared; `field`: where such files stand, for what is refused.
    """

    def __init__(self, subtype: str, *, field: str) -> None:
        self._field = field
        self.subtype, self.size, self.first, self.digest = subtype, 0, 0, sha256()
        self.waiting = bytearray()
        self._rest, self._is_padded, self._is_spooled = b"", False, False

    def take(self, text: bytes, *, is_last: bool = False) -> None:
        """Decode on.

        Raises:
            InvalidRequestError: it is no base64.
        """
        text, kept = self._rest + text, b""
        if not is_last and (cut := text.rfind(b"\\", -_LONGEST_ESCAPE)) >= 0:  # perhaps the middle of an escape
            text, kept = text[:cut], text[cut:]
        if b"\\" in text:
            text = _ESCAPED.sub(_unescaped, text)
        text = _BLANK.sub(b"", text)
        whole = len(text) if is_last else len(text) // 4 * 4
        encoded, self._rest = text[:whole], text[whole:] + kept
        if not encoded:
            return
        if self._is_padded:
            raise InvalidRequestError.of(self._field, _NO_BASE64)
        try:
            decoded = a2b_base64(encoded + b"=" * (-len(encoded) % 4), strict_mode=True)
        except Base64Error as error:
            raise InvalidRequestError.of(self._field, _NO_BASE64) from error
        self._is_padded = encoded.endswith(b"=")
        self.size += len(decoded)
        self.digest.update(decoded)
        self.waiting += decoded

    def end(self) -> None:
        """See that it is whole. Raises as `take`."""
        self.take(b"", is_last=True)

    async def spool(self, held: HeldSpool) -> None:
        """Bring onto the disk what waits."""
        first = await held.append(bytes(self.waiting))
        self.waiting.clear()
        if not self._is_spooled:
            self.first, self._is_spooled = first, True


def _unescaped(escape: re.Match[bytes]) -> bytes:
    code, short = escape.groups()
    if code is not None:
        return bytes([int(code, 16)])
    return b"/" if short == b"/" else b""


def _is_escaped(text: bytearray, quote: int) -> bool:
    """Whether the quote is inside of a string: an odd number of backslashes is before it."""
    first = quote
    while first > 0 and text[first - 1] == 0x5C:
        first -= 1
    return (quote - first) % 2 == 1


def _value_start(text: bytearray, found: re.Match[bytes]) -> int:
    """Where the string begins that the file is in, behind its quote."""
    start = text.find(b'"data:', found.start(), found.end())
    return found.end() if start < 0 else start + 1


def _name_of(file: LiftedFile) -> str:
    suffix = file.subtype if _SUBTYPE.fullmatch(file.subtype) else ""
    return f"file.{_SUFFIXES.get(suffix, suffix)}" if suffix else "file"
