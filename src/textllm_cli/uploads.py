"""Files of this machine, on their way to where TextLLM keeps them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from textllm_core.errors import InvalidRequestError
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


def _unreadable(path: Path, error: OSError) -> InvalidRequestError:
    return InvalidRequestError(f"{path} cannot be read: {error.strerror}.")
