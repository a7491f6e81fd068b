"""Server-sent events out of raw bytes, without decoding what nobody reads."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from textllm_core.errors import ProviderError

MAX_EVENT_BYTES: Final = 16 * 1024 * 1024
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"  # the standard lets a stream begin with it


class ServerSentEvent(NamedTuple):
    """One event; `name` is empty where the server sent none, `data` has its lines joined by line feeds."""

    name: bytes
    data: bytes


class EventSplitter:
    """Takes the bytes of a stream in chunks cut anywhere, gives the events that became complete.

    Source: the event stream format of the HTML standard; ids and reconnection times are passed over.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._size = 0  # bytes of the event that is not complete
        self._line: list[bytes] = []  # pieces of a line that has no end yet
        self._ended_with_cr = False
        self._name = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[ServerSentEvent]:
        """The events that end in `chunk`.

        Raises:
            ProviderError: an event is longer than `max_event_bytes`.
        """
        if not chunk:
            return
        if self._ended_with_cr and chunk[0] == 0x0A:  # the second half of a line break that was cut in two
            chunk = chunk[1:]
            self._ended_with_cr = False
            if not chunk:
                return
        self._ended_with_cr = chunk[-1] == 0x0D
        lines = chunk.splitlines()
        unfinished = b"" if chunk[-1] in b"\r\n" else lines.pop()
        for line in lines:
            self._grow(len(line))
            if self._line:
                line = b"".join((*self._line, line))
                self._line.clear()
            if line:
                self._take(line)
            else:
                if self._data:
                    yield ServerSentEvent(self._name, b"\n".join(self._data))
                self._name, self._data, self._size = b"", [], 0
        if unfinished:
            self._line.append(unfinished)
            self._grow(len(unfinished))

    def _take(self, line: bytes) -> None:
        field, _, value = line.partition(b":")
        if field == b"data":
            self._data.append(value.removeprefix(b" "))
        elif field == b"event":
            self._name = value.removeprefix(b" ")
        elif field.startswith(_BYTE_ORDER_MARK):
            self._take(line.lstrip(_BYTE_ORDER_MARK))

    def _grow(self, count: int) -> None:
        self._size += count
        if self._size > self._max_event_bytes:
            raise ProviderError("The provider sent an event of more than 16 MB.")
