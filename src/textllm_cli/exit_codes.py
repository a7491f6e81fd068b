"""The table from our errors to exit codes: what a script can do about a failure."""

from collections.abc import Mapping
from typing import Final

from textllm_core import errors

UNEXPECTED: Final = 1

EXIT_CODES: Final[Mapping[type[errors.TextLLMError], int]] = {
    errors.ConfigurationError: 2,
    errors.NotFoundError: 3,
    errors.ConversationNotFoundError: 3,
    errors.SessionNotFoundError: 3,
    errors.StoredFileNotFoundError: 3,
    errors.ConversationLostError: 3,  # as good as never there: start a new one
    errors.InvalidRequestError: 4,
    errors.InputTooLongError: 4,
    errors.FileTooLargeError: 4,
    errors.DocumentTooLargeError: 4,
    errors.UnsupportedMediaTypeError: 4,
    errors.UnreadableDocumentError: 4,
    errors.StorageQuotaExceededError: 4,
    errors.ImageTooLargeError: 4,
    errors.ContextTooLongError: 4,
    errors.ContentRefusedError: 4,
    errors.RateLimitedError: 5,
    errors.UnknownKeysError: 5,
    errors.IdempotencyMismatchError: 4,
    errors.IdempotencyInProgressError: 5,
    errors.ConversationBusyError: 5,  # nothing is wrong with the turn: wait, and send it again
    errors.ServiceUnavailableError: 5,
    errors.BudgetExceededError: 6,
    errors.ModelError: 7,
    errors.ProviderError: 7,
    errors.ProviderUnavailableError: 7,
    errors.ProviderTimeoutError: 7,
    errors.StorageUnavailableError: 8,
    errors.UnauthenticatedError: 9,
    errors.ForbiddenError: 9,
}


def exit_code(error: errors.TextLLMError) -> int:
    """The exit code of a failure; that of its nearest ancestor where it has no row of its own."""
    return next((EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES), UNEXPECTED)
