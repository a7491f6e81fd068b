"""A failure as every shell tells it to programs: problem details (RFC 9457), with a `code` that never changes."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from textllm_core.errors import (
    BudgetExceededError,
    ConfigurationError,
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
    ImageTooLargeError,
    InputTooLongError,
    InvalidRequestError,
    NotFoundError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitedError,
    ServiceUnavailableError,
    SessionNotFoundError,
    StorageQuotaExceededError,
    StorageUnavailableError,
    StoredFileNotFoundError,
    TextLLMError,
    UnauthenticatedError,
    UnknownKeysError,
    UnreadableDocumentError,
    UnsupportedMediaTypeError,
)

STATUS: Final[Mapping[type[TextLLMError], HTTPStatus]] = {
    InvalidRequestError: HTTPStatus.BAD_REQUEST,
    UnauthenticatedError: HTTPStatus.UNAUTHORIZED,
    BudgetExceededError: HTTPStatus.PAYMENT_REQUIRED,
    ForbiddenError: HTTPStatus.FORBIDDEN,
    NotFoundError: HTTPStatus.NOT_FOUND,
    ConversationNotFoundError: HTTPStatus.NOT_FOUND,
    SessionNotFoundError: HTTPStatus.NOT_FOUND,
    StoredFileNotFoundError: HTTPStatus.NOT_FOUND,
    ConversationBusyError: HTTPStatus.CONFLICT,
    ConversationLostError: HTTPStatus.CONFLICT,
    IdempotencyInProgressError: HTTPStatus.CONFLICT,
    IdempotencyMismatchError: HTTPStatus.UNPROCESSABLE_ENTITY,
    InputTooLongError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    FileTooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    DocumentTooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    UnsupportedMediaTypeError: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    UnreadableDocumentError: HTTPStatus.UNPROCESSABLE_ENTITY,
    StorageQuotaExceededError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    ImageTooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    ContextTooLongError: HTTPStatus.UNPROCESSABLE_ENTITY,
    ContentRefusedError: HTTPStatus.UNPROCESSABLE_ENTITY,
    RateLimitedError: HTTPStatus.TOO_MANY_REQUESTS,
    UnknownKeysError: HTTPStatus.TOO_MANY_REQUESTS,
    ConfigurationError: HTTPStatus.INTERNAL_SERVER_ERROR,
    ProviderError: HTTPStatus.BAD_GATEWAY,
    ProviderUnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
    StorageUnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
    ServiceUnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
    ProviderTimeoutError: HTTPStatus.GATEWAY_TIMEOUT,
}


def status_of(error: TextLLMError) -> HTTPStatus:
    """The status of a failure; that of its nearest ancestor where it has no row of its own."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), HTTPStatus.INTERNAL_SERVER_ERROR)


def problem_of_error(error: TextLLMError) -> dict[str, object]:
    """The document of a failure that no request of HTTP's ended in."""
    detail = " ".join([str(error), *getattr(error, "__notes__", ())])
    detail = detail.encode(errors="replace").decode()  # it may name a file whose name is no text
    return problem_details(error.code, status=status_of(error), detail=detail, details=error.details())


def problem_details(
    code: str, *, status: int, detail: str, details: Mapping[str, object], instance: str | None = None
) -> dict[str, object]:
    """The document.

    Args:
        details: what a client acts on besides the code, by its wire name.
        instance: the id of the request, where there was one.
    """
    return {
        "type": f"/problems/{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": int(status),
        "detail": detail,
        **({} if instance is None else {"instance": instance}),
        "code": code,
        **details,
    }
