"""What the provider's failures mean to us: SDK and transport exceptions in, ours out. No text of theirs passes."""

import json
import re
from email.utils import parsedate_to_datetime
from math import ceil
from time import time
from typing import Any, Final

import aiohttp
import anyio
import httpx2
import msgspec
import openai

from textllm_adapters.translation import ErrorTable
from textllm_core.errors import (
    ContentRefusedError,
    ContextTooLongError,
    ConversationBusyError,
    ConversationLostError,
    InvalidRequestError,
    ModelError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    TextLLMError,
    UnsupportedMediaTypeError,
)
from textllm_core.ports.llm import ModelRequest

_CODE: Final = re.compile(r"[a-z0-9_]{1,64}")
_TOO_LONG: Final = frozenset({"context_length_exceeded", "exceed_context_size_error"})
_FILTERED: Final = frozenset({"content_filter", "invalid_prompt", "image_content_policy_violation"})
_FILE: Final = re.compile(r"image_url|file_data|filename")
_TEMPORARY: Final = frozenset({"rate_limit_exceeded", "server_error", "server_is_overloaded", "slow_down"})
_NO_QUOTA: Final = "The provider account has no quota left; the operator must check its plan and billing."

# The provider's names of what our caller may set.
_OPTIONS: Final = {
    "temperature": "temperature",
    "metadata": "metadata",
    "max_output_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "max_tokens": "max_output_tokens",
}


def named(code: object) -> str | None:
    """A code of the provider that is safe to repeat, else None."""
    return code if isinstance(code, str) and _CODE.fullmatch(code) else None


def refusal(failure: openai.APIStatusError, request: ModelRequest | None) -> TextLLMError:
    """What an answer of 4xx or 5xx means; `request` is the turn it refused, if it was about one."""
    status, code = failure.status_code, named(failure.code)
    if code == "conversation_locked":
        return ConversationBusyError(retry_after_s=_whole_seconds(failure) or 1)
    if code == "insufficient_quota":
        return ProviderError(_NO_QUOTA, may_have_run=False)
    if status >= 500 or status in (408, 409, 429):
        return ProviderUnavailableError(
            f"The provider cannot answer now ({status}).",
            may_have_run=status >= 500 and status != 503,
            retry_after_s=_whole_seconds(failure) or 5,
        )
    if status in (401, 403):
        return ProviderError(
            f"The provider refused our API key ({status}); the operator must check it.", may_have_run=False
        )
    if request is not None and (specific := _refused_turn(failure, code, request)) is not None:
        return specific
    return ProviderError(f"The provider refused the call ({status}{f', {code}' if code else ''}).", may_have_run=False)


def _refused_turn(failure: openai.APIStatusError, code: str | None, request: ModelRequest) -> TextLLMError | None:
    # Their message is read to tell cases apart that have no code; it goes no further.
    body = failure.body if isinstance(failure.body, dict) else {}
    message = str(body.get("message", "")).lower()
    if code == "model_not_found":
        return ProviderError(f"The provider has no model {request.model!r} for us.", may_have_run=False)
    if failure.status_code == 404:
        return ConversationLostError() if request.transcript_id and "conversation" in message else None
    if code in _TOO_LONG or failure.type in _TOO_LONG or "maximum context length" in message:
        return ContextTooLongError()
    if code in _FILTERED:
        return ContentRefusedError()
    if any(message.stored_parts for message in request.messages) and (
        "image" in (code or "") or _FILE.search(str(failure.param))
    ):
        return UnsupportedMediaTypeError("The provider cannot read an image or a file of this turn; save it again.")
    option = _OPTIONS.get(re.split(r"[.\[]", str(failure.param), maxsplit=1)[0])
    if option is not None and getattr(request, option) is not None:
        return InvalidRequestError.of(option, "the model does not take it, or not this value")
    return None


def unanswered(failure: Exception) -> ModelError:
    """What it means that no answer came, or none that can be read: was the request sent at all?"""
    causes = _causes(failure)
    if any(isinstance(cause, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError) for cause in causes):
        connected = False
    elif any(isinstance(cause, aiohttp.ClientError) for cause in causes):
        connected = True  # the SDK calls a lost connection a connect timeout too
    else:
        connected = not any(
            isinstance(c, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout) for c in causes
        )
    if not connected:
        return ProviderUnavailableError("The provider cannot be reached.", may_have_run=False)
    if any(isinstance(cause, httpx2.ReadTimeout | httpx2.WriteTimeout) for cause in causes):
        return _silent(failure)
    return _cut(failure)


def reported(code: object) -> TextLLMError:
    """What an `error` event in a stream means."""
    code = named(code)
    if code in _TOO_LONG:
        return ContextTooLongError()
    if code == "insufficient_quota":
        return ProviderError(_NO_QUOTA)
    if code in _TEMPORARY:
        return ProviderUnavailableError(f"The provider broke the reply off ({code}).")
    return ProviderError(f"The provider broke the reply off{f' ({code})' if code else ''}.")


def retry_after(failure: openai.APIStatusError) -> float | None:
    """Seconds that the provider asks us to wait, None where it does not say."""
    headers = failure.response.headers
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    stated = headers.get("retry-after")
    if stated is None:
        return None
    if (seconds := _number(stated)) is not None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(stated).timestamp() - time())
    except ValueError:
        return None


def _number(text: str | None) -> float | None:
    return float(text) if text is not None and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) else None


def _whole_seconds(failure: openai.APIStatusError) -> int | None:
    wait = retry_after(failure)
    return None if wait is None else max(1, ceil(wait))


def _causes(failure: BaseException) -> list[BaseException]:
    causes = []
    cause: BaseException | None = failure
    while cause is not None:
        causes.append(cause)
        cause = cause.__cause__
    return causes


def _silent(_: Any) -> ModelError:
    return ProviderTimeoutError("The provider was silent for too long.")


def _cut(_: Any) -> ModelError:
    return ProviderError("The connection to the provider broke.")


def _garbled(_: Any) -> ModelError:
    return ProviderError("The provider sent something that is not JSON of the expected shape.")


# What can happen while an answer is read; whatever it is, the call may have run.
BROKEN_ANSWER: Final[ErrorTable] = {
    httpx2.HTTPError: _cut,
    httpx2.ReadTimeout: _silent,
    aiohttp.ClientError: _cut,
    anyio.EndOfStream: _cut,
    OSError: _cut,
    msgspec.DecodeError: _garbled,
    json.JSONDecodeError: _garbled,
    UnicodeDecodeError: _garbled,
}

# What the SDK raises where no answer came. It lets some failures of its transport pass as they are: among them one
# whose repr shows the request's headers, and so the key.
UNANSWERED: Final[tuple[type[Exception], ...]] = (openai.APIConnectionError, *BROKEN_ANSWER)
