"""Files on their way in."""

from asyncio import Task
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

MEGABYTE: Final = 1024 * 1024  # of settings that count in MB


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that someone sends. It has arrived as a whole, lies outside of memory, and can be read more than once.

    Args:
        name: as the sender wrote it, not to be trusted.
        size: in bytes.
        read: begins to read it from its first byte, in pieces of at most 1 MiB.
    """

    name: str
    size: int
    read: Callable[[], AsyncIterator[bytes]]

    @classmethod
    def of_bytes(cls, name: str, content: bytes) -> "Upload":
        """A small file that is in memory anyway."""

        async def read() -> AsyncIterator[bytes]:
            yield content

        return cls(name, len(content), read)

    async def beginning(self, length: int) -> bytes:
        """Its first `length` bytes, or all where it has fewer; no more of it is read than that takes."""
        beginning = bytearray()
        pieces = self.read()
        async for piece in pieces:
            beginning += piece[: length - len(beginning)]
            if len(beginning) == length:
                break
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()
        return bytes(beginning)

    async def contains(self, mark: bytes, *, start: int = 0) -> bool:
        """Whether `mark` stands anywhere from byte `start` on; no more of it is read than that takes."""
        found, position, rest = False, 0, b""
        pieces = self.read()
        async for piece in pieces:
            seen = rest + piece
            found = seen.find(mark, max(0, start - position)) >= 0
            if found:
                break
            rest = seen[len(seen) - len(mark) + 1 :] if len(seen) >= len(mark) else seen
            position += len(seen) - len(rest)
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()
        return found


class HeldFiles(Protocol):
    """Where the files of one request wait: gone once everyone who holds them has let go."""

    async def keep(self, upload: Upload) -> Upload:
        """The same file, from there: one that was in memory.

        Raises:
            StorageUnavailableError: there is no room for it.
        """
        ...

    def hold(self) -> None:
        """Have them wait until `let_go`, once for each time."""
        ...

    def let_go(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Attached:
    """Files that a turn shows its model and nobody stores, by the keys that its message has for them."""

    uploads: Mapping[str, Upload]
    held: HeldFiles

    def wait_for(self, task: Task[None]) -> None:
        """Have them wait until the task has ended."""
        self.held.hold()
        task.add_done_callback(lambda _: self.held.let_go())


def in_bytes(size: int) -> str:
    """A size in words, such as `20971520 bytes (20 MiB)`."""
    mebibytes = size / 1024**2
    return f"{size} bytes" if mebibytes < 1 else f"{size} bytes ({f'{mebibytes:.1f}'.removesuffix('.0')} MiB)"
