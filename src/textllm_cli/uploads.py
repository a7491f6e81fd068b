"""Files of this machine, on their way to where TextLLM keeps them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from textllm_core.errors import InvalidRequestError, TextLLMError
from textllm_core.uploads import Upload

_PIECE_BYTES: Final = 1024 * 1024


def upload_of(path: Path) -> Upload:
    """The file, to be read piece by piece when it is needed.

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
        if not path.exists():
            raise InvalidRequestError(f"There is no file {path}.")
        if path.is_dir():
            raise InvalidRequestError(f"{path} is a directory.")
        if not path.is_file():
            raise InvalidRequestError(f"{path} is no regular file; save what comes from it in one, and give that.")
        return Upload(path.name, path.stat().st_size, read)
    except OSError as error:
        raise _unreadable(path, error) from error


def name_file(error: TextLLMError, path: Path, *, untried: Sequence[Path] = ()) -> None:
    """Have the error say which of several files it is about, and which were not tried because of it."""
    rest = f"; not tried: {', '.join(map(str, untried))}" if untried else ""
    error.add_note(f"This is about {path}{rest}.")


def _unreadable(path: Path, error: OSError) -> InvalidRequestError:
    return InvalidRequestError(f"{path} cannot be read: {error.strerror}.")
