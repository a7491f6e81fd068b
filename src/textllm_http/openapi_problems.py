"""Every problem that the service can tell, as it tells it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec
from litestar.exceptions import HTTPException
from msgspec import Struct

from textllm_core.errors import (
    BudgetExceededError,
    ContentRefusedError,
    ContextTooLongError,
    ConversationBusyError,
    ConversationLostError,
    ConversationNotFoundError,
    DocumentTooLargeError,
    FileTooLargeError,
    ForbiddenError,
    IdempotencyInProgressError,
    IdempotencyMismatchError,
    InputTooLongError,
    InvalidRequestError,
    NotFoundError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitedError,
    ServiceUnavailableError,
    SessionNotFoundError,
    StorageUnavailableError,
    StoredFileNotFoundError,
    UnauthenticatedError,
    UnreadableDocumentError,
    UnsupportedMediaTypeError,
)
from textllm_http.openai_door import errors as door
from textllm_http.openapi_words import RESPONSE_HEADERS
from textllm_http.problems import described

_WRITTEN: Final = {name.lower(): name for name in RESPONSE_HEADERS}


class DescribedProblem(Struct, frozen=True):
    """A problem: when it is told, and one of its kind. `headers` are the names of those that come with it.

    `door_document` and `door_headers` are what it is below `/v1`.
    """

    says: str
    status: int
    code: str
    headers: Sequence[str]
    document: Mapping[str, Any]
    door_document: Mapping[str, Any]
    door_headers: Sequence[str]


def _like(error: Exception, says: str) -> DescribedProblem:
    problem = described(error, "req_3c5d7e9f0a1b2c3d4e5f6071")
    document = msgspec.json.decode(problem.document)
    of_door = msgspec.json.decode(door.document(problem))
    return DescribedProblem(
        says,
        problem.status,
        document["code"],
        tuple(problem.headers),
        document,
        of_door,
        tuple(_WRITTEN.get(name, name) for name in door.headers(problem)),
    )


_EXAMPLES: Final = (
    _like(InvalidRequestError.of("message", "must not be blank"), "Malformed, of another shape, or a bad value."),
    _like(UnauthenticatedError(), "No key, or one that is malformed, unknown or revoked."),
    _like(ForbiddenError.of_role("admin"), "The key has another role."),
    _like(
        BudgetExceededError(
            limit=Decimal(5), spent=Decimal("5.0012"), resets_at=datetime(2026, 3, 15, tzinfo=UTC), reserved=False
        ),
        "The user has spent the day's budget, or promised the rest of it to turns that are still running.",
    ),
    _like(NotFoundError("No such user."), "It does not exist for this caller."),
    _like(ConversationNotFoundError(), "No such conversation for this caller."),
    _like(SessionNotFoundError(), "No such session for this caller."),
    _like(StoredFileNotFoundError(), "No such file for this caller; or the link has expired."),
    _like(ConversationBusyError(), "Another turn is running in this conversation; this one cost nothing."),
    _like(ConversationLostError(), "The provider has lost the conversation, and no copy is kept here."),
    _like(IdempotencyInProgressError(), "The first request with this key is still running."),
    _like(InputTooLongError(length=12_000, limit=10_000), "The message has too many characters, or the body bytes."),
    _like(FileTooLargeError(limit=20_971_520), "A file has too many bytes, or all files of the tenant together have."),
    _like(DocumentTooLargeError(limit=1000, counts="pages"), "The document is too long."),
    _like(UnsupportedMediaTypeError("This is no image."), "The body, or a file in it, is of a type that is not taken."),
    _like(UnreadableDocumentError("encrypted"), "The text of the document cannot be had."),
    _like(ContextTooLongError(), "The conversation and the turn do not fit into the model's context."),
    _like(ContentRefusedError(), "The provider's content filter refused the turn."),
    _like(IdempotencyMismatchError(), "The key was used before, for another request."),
    _like(RateLimitedError(retry_after_s=6, limit=10), "Too many requests of this user in a minute."),
    _like(RuntimeError(), "Nobody foresaw it: tell your operator the request id."),
    _like(ProviderError("The model's answer made no sense."), "The provider answered badly, or refuses the service."),
    _like(ProviderUnavailableError("The provider is overloaded."), "The provider is overloaded, or out of reach."),
    _like(
        StorageUnavailableError.of_database(), "The database or the file storage does not answer; nothing was started."
    ),
    _like(ServiceUnavailableError("The service is stopping."), "The service is stopping, or has too much to do."),
    _like(ProviderTimeoutError("The model took too long to begin."), "The provider was silent for too long."),
)

# By their codes; one code has more than one status.
PROBLEMS: Final[Mapping[str, DescribedProblem]] = {problem.code: problem for problem in _EXAMPLES} | {
    "range_not_satisfiable": _like(
        HTTPException(status_code=416, headers={"Content-Range": "bytes */48213"}),
        "The file has no bytes in this range.",
    ),
    "precondition_failed": _like(HTTPException(status_code=412), "The file is not one that `If-Match` names."),
}
