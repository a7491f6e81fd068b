"""Every failure as problem details: RFC 9457, with a `code` that never changes."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from traceback import format_tb
from typing import Final

from litestar.exceptions import HTTPException
from msgspec import Struct

from textllm_core.errors import (
    Allowance,
    RateLimitedError,
    StorageUnavailableError,
    TextLLMError,
    UnauthenticatedError,
    UnknownKeysError,
)
from textllm_core.problem_details import problem_details, status_of
from textllm_core.wire import to_json
from textllm_http.admission import headers_of, rate_limit_headers

PROBLEM_JSON: Final = "application/problem+json"

# What the framework refuses; its own words may repeat the request's.
_FRAMEWORK: Final[Mapping[int, tuple[str, str]]] = {
    HTTPStatus.NOT_FOUND: ("not_found", "There is nothing at this address; /docs shows all that there are."),
    HTTPStatus.METHOD_NOT_ALLOWED: ("invalid_request", "This address does not take this method."),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: ("input_too_long", "The request's body is too large."),
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: (
        "unsupported_media_type",
        "The body must be of the type that this address takes, in UTF-8.",
    ),
    HTTPStatus.PRECONDITION_FAILED: ("invalid_request", "The file is not one that If-Match names."),
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: ("invalid_request", "The file has no bytes in this range."),
}
_OTHERWISE: Final = ("invalid_request", "The request is malformed.")

_logger: Final = logging.getLogger("textllm")


class Problem(Struct, frozen=True, kw_only=True):
    """A failure as it is told.

    Args:
        error: what failed.
        detail: what it means, for people; `details`: what a client acts on besides `code`.
        allowance: what is left of the caller's rate limit, where that is known.
    """

    error: Exception
    status: int
    code: str
    detail: str
    details: Mapping[str, object]
    headers: Mapping[str, str]
    request_id: str
    allowance: Allowance | None = None

    @property
    def document(self) -> bytes:
        """The body, one line of JSON."""
        told = problem_details(
            self.code, status=self.status, detail=self.detail, details=self.details, instance=self.request_id
        )
        return to_json(told)


def problem_of(error: Exception, request_id: str) -> Problem:
    """Tell a failure, and log what is ours. What nobody foresaw is logged without its text."""
    problem = described(error, request_id)
    if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        _logger.error("request %s failed unexpectedly\n%s", request_id, trace_of(error))
    elif isinstance(error, TextLLMError) and problem.status > HTTPStatus.INTERNAL_SERVER_ERROR:
        which = f" ({error.storage})" if isinstance(error, StorageUnavailableError) else ""
        _logger.warning("request %s failed: %s%s", request_id, error.code, which)
    return problem


def described(error: Exception, request_id: str) -> Problem:
    """A failure in words; what nobody foresaw tells nothing but the request id."""
    match error:
        case HTTPException(status_code=status) if status < HTTPStatus.INTERNAL_SERVER_ERROR:
            code, detail = _FRAMEWORK.get(status, _OTHERWISE)
            headers = error.headers or {}
            if status == HTTPStatus.METHOD_NOT_ALLOWED and (methods := _methods_in(headers)):
                detail = f"This address does not take this method; it takes {methods}."
            return Problem(
                error=error,
                status=status,
                code=code,
                detail=detail,
                details={},
                headers=headers,
                request_id=request_id,
            )
        case TextLLMError() if (status := status_of(error)) != HTTPStatus.INTERNAL_SERVER_ERROR:
            details = error.details()
            return Problem(
                error=error,
                status=int(status),
                code=error.code,
                detail=str(error),
                details=details,
                headers=_headers_of(error, details),
                request_id=request_id,
                allowance=_allowance_of(error),
            )
    return Problem(
        error=error,
        status=int(HTTPStatus.INTERNAL_SERVER_ERROR),
        code="internal_error",
        detail="Something went wrong on our side.",
        details={},
        headers={},
        request_id=request_id,
    )


def _methods_in(headers: Mapping[str, str]) -> str:
    allowed = next((value for name, value in headers.items() if name.lower() == "allow"), "")
    return ", ".join(sorted(set(filter(None, allowed.replace(" ", "").split(","))) - {"HEAD", "OPTIONS"}))


def _headers_of(error: TextLLMError, details: Mapping[str, object]) -> dict[str, str]:
    headers = headers_of(error)
    if "retry_after_s" in details:
        headers["Retry-After"] = str(details["retry_after_s"])
    if isinstance(error, UnauthenticatedError):
        headers["WWW-Authenticate"] = "Bearer"
    if (allowance := _allowance_of(error)) is not None:
        headers |= rate_limit_headers(allowance)
    return headers


def _allowance_of(error: TextLLMError) -> Allowance | None:
    if isinstance(error, RateLimitedError) and not isinstance(error, UnknownKeysError):  # the bucket is empty
        return Allowance(limit=error.limit, remaining=0, resets_in_s=error.retry_after_s)
    return error.allowance


def trace_of(error: BaseException) -> str:
    """Where it happened and what kind it was, cause first. The texts of exceptions stay out: they may quote input."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    before = "" if cause is None else f"{trace_of(cause)}\n"
    return f"{before}{''.join(format_tb(error.__traceback__))}{type(error).__module__}.{type(error).__qualname__}"
