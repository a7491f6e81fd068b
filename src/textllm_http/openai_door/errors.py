"""Failures in the shape of OpenAI's API, with our codes, and what its SDKs read of whether to try again."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from http import HTTPStatus
from math import ceil
from typing import Annotated, Any, Final

from litestar.exceptions import NotFoundException
from msgspec import UNSET, Meta, Struct, UnsetType

from textllm_core.errors import (
    Allowance,
    BudgetExceededError,
    Charge,
    ConversationLostError,
    IdempotencyMismatchError,
    InvalidRequestError,
    ModelError,
    TextLLMError,
    UnknownKeysError,
)
from textllm_core.records.messages import ReplyStarted
from textllm_core.wire import to_json
from textllm_http.admission import headers_of, rate_limit_headers
from textllm_http.problems import Problem

_TYPES: Final[Mapping[int, str]] = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.PAYMENT_REQUIRED: "insufficient_quota",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}
_NOTHING: Final[Mapping[str, Sequence[object]]] = {}
_NEVER_AGAIN: Final = (ConversationLostError, IdempotencyMismatchError, UnknownKeysError)
_PASS_LATER: Final = (HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
_NO_ADDRESS: Final = (
    "There is nothing of OpenAI's API at this address. A client's base URL ends in /v1 here; /docs shows what there is."
)
_WAIT_FOR_RUNNING_S: Final = 2  # most turns that promises were made to have ended by then


class DoorError(Struct, frozen=True, kw_only=True):
    """What went wrong, as OpenAI's API tells it."""

    message: Annotated[str, Meta(description="What went wrong, for people.")]
    type: Annotated[str, Meta(description="What kind of failure it is, in OpenAI's words.")]
    param: Annotated[str | None, Meta(description="The field that is wrong, where it is one.")] = None
    code: Annotated[str | None, Meta(description="What went wrong, for programs; it never changes.")] = None
    cost: Annotated[Decimal | UnsetType, Meta(description="USD that a turn costs which failed.")] = UNSET
    estimated: Annotated[bool | UnsetType, Meta(description="Whether `cost` is an estimate; left out if not.")] = UNSET


class DoorErrorDocument(Struct, frozen=True):
    """A failure below `/v1`."""

    error: Annotated[DoorError, Meta(description="What went wrong.")]


def error_of(problem: Problem) -> DoorError:
    """A failure in OpenAI's shape."""
    error, param, message = problem.error, None, problem.detail
    if isinstance(error, InvalidRequestError) and error.errors:
        param = error.errors[0][0]
    if isinstance(error, NotFoundException):
        message = _NO_ADDRESS
    if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        message = f"{message} Tell your operator the request id {problem.request_id}."
    charge = charge_of(problem)
    return DoorError(
        message=message,
        type=_type_of(problem.status),
        param=param,
        code=problem.code,
        cost=UNSET if charge is None else charge.cost,
        estimated=True if charge is not None and charge.estimated else UNSET,
    )


def charge_of(problem: Problem) -> Charge | None:
    """What the turn is charged for that ended in it; None: nothing, or nobody knows yet."""
    return problem.error.charge if isinstance(problem.error, TextLLMError) else None


def document(problem: Problem) -> bytes:
    """The body that tells it."""
    return to_json(DoorErrorDocument(error_of(problem)))


def headers(problem: Problem) -> dict[str, str]:
    """Those of the problem, and what OpenAI's SDKs heed: whether the request may be sent again, and when."""
    error, told = problem.error, dict(problem.headers)
    if isinstance(error, BudgetExceededError):
        wait = (error.resets_at - datetime.now(UTC)).total_seconds()
        told["Retry-After"] = str(_WAIT_FOR_RUNNING_S if error.reserved else max(1, ceil(wait)))
    told["x-should-retry"] = "true" if _may_pass(problem) else "false"
    if problem.allowance is not None:
        told |= _ratelimit(problem.allowance)
    return told


def admitted_headers(started: ReplyStarted) -> dict[str, str]:
    """The headers of a turn that was admitted: `admission.headers_of`, and those that OpenAI's SDKs read."""
    told = headers_of(started)
    return told if started.allowance is None else told | _ratelimit(started.allowance)


def limited_headers(allowance: Allowance) -> dict[str, str]:
    """What is left of the rate limit, in both ways of telling it."""
    return rate_limit_headers(allowance) | _ratelimit(allowance)


def unserved(
    fields: Mapping[str, Any], reasons: Mapping[str, str], says_nothing: Mapping[str, Sequence[object]] = _NOTHING
) -> None:
    """Refuse, by its name, each field that OpenAI's API has and that is not served here.

    Args:
        fields: what was sent; what is null was not.
        reasons: of each such field why, or what to do instead: a sentence that the field's name begins.
        says_nothing: of some, values that say what is the case without them.
    Raises:
        InvalidRequestError
    """
    wrong = [
        (name, why)
        for name, why in reasons.items()
        if (value := fields.get(name)) is not None and value not in says_nothing.get(name, ())
    ]
    if wrong:
        raise InvalidRequestError("; ".join(f"{name}: {why}" for name, why in wrong), wrong)


def _type_of(status: int) -> str:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "server_error"
    return _TYPES.get(status, "invalid_request_error")


def _may_pass(problem: Problem) -> bool:
    """Whether the same request may pass in a moment, and is not paid for twice if it does."""
    error = problem.error
    if isinstance(error, BudgetExceededError):
        return error.reserved
    if isinstance(error, _NEVER_AGAIN) or (isinstance(error, ModelError) and error.may_have_run):
        return False
    return problem.status in _PASS_LATER


def _ratelimit(allowance: Allowance) -> dict[str, str]:
    return {
        "x-ratelimit-limit-requests": str(allowance.limit),
        "x-ratelimit-remaining-requests": str(allowance.remaining),
        "x-ratelimit-reset-requests": f"{allowance.resets_in_s}s",
    }
