"""Server-sent events out of raw bytes, without decoding what nobody reads."""

from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from textllm_core.errors import ProviderError

MAX_EVENT_BYTES: Final = 16 * 1024 * 1024
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"  # the standard lets a stream begin with it


class ServerSentEvent(Struct, frozen=True, gc=False):  # thousands a second, of bytes alone
    """One event; `name` is empty where the server sent none, `data` has its lines joined by line feeds."""

    name: bytes
    data: bytes


class EventSplitter:
    """Takes the bytes of a stream in chunks cut anywhere, gives the events that became complete.

    Source: the event stream format of the HTML standard; ids and reconnection times are passed over.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._unfinished: list[bytes] = []  # pieces of an event that has no end yet, its lines ended by line feeds
        self._size = 0  # of them, in bytes
        self._ended_with_cr = False

    def feed(self, chunk: bytes) -> Iterator[ServerSentEvent]:
        """The events that end in `chunk`.

        Raises:
            ProviderError: an event is longer than `max_event_bytes`.
        """
        if self._ended_with_cr and chunk[:1] == b"\n":  # the second half of a line break that was cut in two
            chunk = chunk[1:]
            self._ended_with_cr = False
        if not chunk:
            return
        if b"\r" in chunk:
            self._ended_with_cr = chunk[-1:] == b"\r"
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        else:
            self._ended_with_cr = False
        if self._unfinished:
            if chunk[:1] == b"\n" and self._unfinished[-1][-1:] == b"\n":  # an end that was cut in two
                chunk = b"\n" + chunk
                self._unfinished[-1] = self._unfinished[-1][:-1]
            first, end, rest = chunk.partition(b"\n\n")
            self._keep(first)
            if not end:
                return
            whole, self._unfinished, self._size = b"".join(self._unfinished), [], 0
            if (event := _event(whole)) is not None:
                yield event
            chunk = rest
        *blocks, unfinished = chunk.split(b"\n\n")
        for block in blocks:
            if len(block) > self._max_event_bytes:
                raise _too_long()
            if (event := _event(block)) is not None:
                yield event
        if unfinished:
            self._keep(unfinished)

    def rest(self) -> ServerSentEvent | None:
        """What the stream ended in: an event whose server leaves out the last blank line; None where it is cut."""
        event, self._unfinished, self._size = _event(b"".join(self._unfinished).rstrip(b"\n")), [], 0
        return event if event is not None and event.data.rstrip()[-1:] in (b"}", b"]") else None

    def _keep(self, piece: bytes) -> None:
        self._unfinished.append(piece)
        self._size += len(piece)
        if self._size > self._max_event_bytes:
            raise _too_long()


def _event(block: bytes) -> ServerSentEvent | None:
    """What the lines of an event say; None where they are comments, or have no data."""
    if block.startswith(b"event: "):
        name, _, data = block[7:].partition(b"\ndata: ")
        if data and b"\n" not in data and b"\n" not in name:  # as nearly all are
            return ServerSentEvent(name, data)
    name, lines = b"", []
    for line in block.split(b"\n"):
        field, _, value = line.removeprefix(_BYTE_ORDER_MARK).partition(b":")
        if field == b"data":
            lines.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    if len(lines) > 1 and all(line[:1] == b"{" and line.rstrip()[-1:] == b"}" for line in lines):
        return ServerSentEvent(name, b"[%b]" % b",".join(lines))  # whose server leaves out the blank lines
    return ServerSentEvent(name, b"\n".join(lines)) if lines else None


def _too_long() -> ProviderError:
    return ProviderError("The provider sent an event of more than 16 MB.")
