"""The table from botocore's and aiohttp's exceptions to ours. Their texts may hold keys and URLs; ours hold neither."""

from typing import Final

import aiohttp
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from textllm_adapters.translation import ErrorTable
from textllm_core.errors import StorageUnavailableError, StoredFileNotFoundError

_OF_OBJECTS: Final = {"GetObject", "HeadObject"}


def status_of(error: ClientError) -> int:
    """The HTTP status of the answer."""
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


def code_of(error: ClientError) -> str:
    """S3's name for the error; the status, where the answer had no body to name it in."""
    return str(error.response["Error"]["Code"])


def _of_answer(error: ClientError) -> Exception | None:
    status = status_of(error)
    if status == 404 and error.operation_name in _OF_OBJECTS and code_of(error) in {"NoSuchKey", "404"}:
        return StoredFileNotFoundError()
    if status in {409, 412}:  # 409: another put of this key is about to end
        return ValueError("the key is taken")
    # What an operator changes or time heals: a bucket that is gone or elsewhere, rights withdrawn, an outage.
    if status in {301, 307, 401, 403, 404, 408, 429} or status >= 500:
        return StorageUnavailableError()
    return None


def _unavailable(_: Exception) -> StorageUnavailableError:
    return StorageUnavailableError()


S3_ERRORS: Final[ErrorTable] = {
    ClientError: _of_answer,
    ParamValidationError: lambda _: None,
    BotoCoreError: _unavailable,  # no connection, a broken one, no credentials to be had
    aiohttp.ClientError: _unavailable,  # it broke while a body was read
    OSError: _unavailable,  # and TimeoutError: no answer
}
