"""A secret that all workers of one machine share: a file that the first of them makes."""

import os
import secrets
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final

from textllm_core.errors import ConfigurationError

_LENGTH: Final = 32


def shared_secret(path: Path) -> bytes:
    """The 32 bytes in `path`, for its owner's eyes alone; random where they are made now.

    Raises:
        ConfigurationError: the file cannot be made or read, or holds something else; the text names it.
    """
    try:
        if not path.exists():
            _make(path)
        secret = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"The secret in {path} cannot be read or made: {error.strerror}.") from error
    if len(secret) != _LENGTH:
        raise ConfigurationError(f"The secret in {path} is damaged; delete the file, and a new one is made.")
    return secret


def _make(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent) as file:  # its mode is 600
        file.write(secrets.token_bytes(_LENGTH))
        file.flush()
        os.fsync(file.fileno())
        with suppress(FileExistsError):  # another worker was faster; whole, or not there at all
            os.link(file.name, path)
