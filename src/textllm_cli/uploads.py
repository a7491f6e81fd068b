"""Files of this machine, on their way to where TextLLM keeps them."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from textllm_core.errors import InvalidRequestError, TextLLMError
from textllm_core.uploads import Upload, in_bytes

STDIN: Final = Path("-")
_PIECE_BYTES: Final = 1024 * 1024
_MAX_PIPED_BYTES: Final = 256 * 1024 * 1024  # it is kept in memory: a pipe can be read but once


def upload_of(path: Path, *, may_be_pipe: bool = False) -> Upload:
    """The file, to be read piece by piece when it is needed.

    Args:
        may_be_pipe: it may be stdin (`-`), or something that can be read but once: then it is read now.
    Raises:
        InvalidRequestError: there is no such file, it is no regular one, or it cannot be read; the last also while it
            is being read.
    """

    async def read() -> AsyncIterator[bytes]:
        try:
            with path.open("rb") as file:
                while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
                    yield piece
        except OSError as error:
            raise _unreadable(path, error) from error

    try:
        if may_be_pipe and path == STDIN:
            return _piped(path, sys.stdin.buffer)
        if not path.exists():
            raise InvalidRequestError(f"There is no file {path}.")
        if path.is_dir():
            raise InvalidRequestError(f"{path} is a directory.")
        if not path.is_file() and not may_be_pipe:
            raise InvalidRequestError(f"{path} is no regular file; save what comes from it in one, and give that.")
        if not path.is_file():
            with path.open("rb") as pipe:
                return _piped(path, pipe)
        return Upload(path.name, path.stat().st_size, read)
    except OSError as error:
        raise _unreadable(path, error) from error


def _piped(path: Path, pipe: BinaryIO) -> Upload:
    content = pipe.read(_MAX_PIPED_BYTES + 1)
    if len(content) > _MAX_PIPED_BYTES:
        raise InvalidRequestError(f"What comes from {path} has more than {in_bytes(_MAX_PIPED_BYTES)}.")
    # A pipe has no name that says what it holds: without an ending it is taken for text, unless its content tells.
    return Upload.of_bytes("stdin.txt" if path == STDIN else f"{path.stem}{path.suffix or '.txt'}", content)


def name_file(error: TextLLMError, path: Path, *, untried: Sequence[Path] = ()) -> None:
    """Have the error say which of several files it is about, and which were not tried because of it."""
    rest = f"; not tried: {', '.join(map(str, untried))}" if untried else ""
    error.add_note(f"This is about {path}{rest}.")


def _unreadable(path: Path, error: OSError) -> InvalidRequestError:
    return InvalidRequestError(f"{path} cannot be read: {error.strerror}.")
