"""Every failure as problem details: RFC 9457, with a `code` that never changes."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from traceback import format_tb
from typing import Any, Final

from litestar import Request, Response
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
from textllm_http.middleware import request_id_of
from textllm_http.responses import WholeResponse

PROBLEM_JSON: Final = "application/problem+json"

# What the framework refuses; its own words may repeat the request's.
_FRAMEWORK: Final[Mapping[int, tuple[str, str]]] = {
    HTTPStatus.NOT_FOUND: ("not_found", "There is nothing at this address."),
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


class Problem(Struct, frozen=True):
    """A failure as it is told: `document` is the body, one line of JSON."""

    status: int
    code: str
    headers: Mapping[str, str]
    document: bytes


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
            return _problem(status, code, detail, request_id, headers=error.headers or {})
        case TextLLMError() if (status := status_of(error)) != HTTPStatus.INTERNAL_SERVER_ERROR:
            details = error.details()
            return _problem(status, error.code, str(error), request_id, details, headers=_headers_of(error, details))
    return _problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", "Something went wrong on our side.", request_id)


def response_of(problem: Problem) -> WholeResponse:
    """The response that tells it."""
    return WholeResponse(problem.document, status_code=problem.status, headers=problem.headers, media_type=PROBLEM_JSON)


def refused(request: Request[Any, Any, Any], error: Exception) -> WholeResponse:
    """The response to a request that failed."""
    return response_of(_noted(request, error))


def respond(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """The same in the framework's form, as its handlers of exceptions have to have it."""
    problem = _noted(request, error)
    return Response(problem.document, status_code=problem.status, headers=problem.headers, media_type=PROBLEM_JSON)


def _noted(request: Request[Any, Any, Any], error: Exception) -> Problem:
    problem = problem_of(error, request_id_of(request.scope))
    request.scope["state"]["problem_code"] = problem.code
    return problem


def _problem(
    status: int,
    code: str,
    detail: str,
    request_id: str,
    details: Mapping[str, object] | None = None,
    *,
    headers: Mapping[str, str] | None = None,
) -> Problem:
    document = problem_details(code, status=status, detail=detail, details=details or {}, instance=request_id)
    return Problem(int(status), code, headers or {}, to_json(document))


def _headers_of(error: TextLLMError, details: Mapping[str, object]) -> dict[str, str]:
    headers = headers_of(error)
    if "retry_after_s" in details:
        headers["Retry-After"] = str(details["retry_after_s"])
    if isinstance(error, UnauthenticatedError):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, RateLimitedError) and not isinstance(error, UnknownKeysError):  # the bucket is empty
        headers |= rate_limit_headers(Allowance(limit=error.limit, remaining=0, resets_in_s=error.retry_after_s))
    return headers


def trace_of(error: BaseException) -> str:
    """Where it happened and what kind it was, cause first. The texts of exceptions stay out: they may quote input."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    before = "" if cause is None else f"{trace_of(cause)}\n"
    return f"{before}{''.join(format_tb(error.__traceback__))}{type(error).__module__}.{type(error).__qualname__}"
