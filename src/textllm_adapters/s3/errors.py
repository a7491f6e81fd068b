"""The table from botocore's and aiohttp's exceptions to ours. Their texts may hold keys and URLs; ours hold neither."""

import logging
import re
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from textllm_adapters.translation import ErrorTable
from textllm_core.errors import StorageUnavailableError, StoredFileNotFoundError

_OF_NO_OBJECT: Final = {"GetObject": {"NoSuchKey"}, "HeadObject": {"NoSuchKey", "404"}}  # HEAD has no body to say more
_OF_PUTS: Final = {"PutObject", "CompleteMultipartUpload"}
_CODE: Final = re.compile(r"[A-Za-z]{1,64}")
_logger: Final = logging.getLogger("textllm")


def status_of(error: ClientError) -> int:
    """The HTTP status of the answer."""
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


def code_of(error: ClientError) -> str:
    """S3's name for the error; the status, where the answer had no body to name it in."""
    return str(error.response["Error"]["Code"])


def told(answer: Mapping[str, Any], name: str) -> Any:
    """What an answer has under `name`.

    Raises:
        StorageUnavailableError: nothing: whatever answers is no S3.
    """
    if name not in answer:
        _logger.warning("what answers for S3 is none: %s is missing", name)
        raise StorageUnavailableError.of_files()
    return answer[name]


def _of_answer(error: ClientError) -> Exception:
    status, code = status_of(error), code_of(error)
    if status == 404 and code in _OF_NO_OBJECT.get(error.operation_name, ()):
        return StoredFileNotFoundError()
    if status in {409, 412} and error.operation_name in _OF_PUTS:  # 409: another put of this key is about to end
        return ValueError("the key is taken")
    # What an operator changes or time heals: a bucket that is gone or elsewhere, credentials that expired, rights
    # withdrawn, an outage. It is told to the operator alone.
    named = code if _CODE.fullmatch(code) else "no code"
    _logger.warning("S3 answers %d (%s) to %s", status, named, error.operation_name)
    return StorageUnavailableError.of_files()


def _unavailable(_: Exception) -> StorageUnavailableError:
    return StorageUnavailableError.of_files()


S3_ERRORS: Final[ErrorTable] = {
    ClientError: _of_answer,
    ParamValidationError: lambda _: None,
    BotoCoreError: _unavailable,  # no connection, a broken one, no credentials to be had, an answer without an end
    aiohttp.ClientError: _unavailable,  # it broke while a body was read
    OSError: _unavailable,  # and TimeoutError: no answer
}
