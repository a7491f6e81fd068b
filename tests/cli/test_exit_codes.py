"""Scripts can tell what happened by the exit code alone."""

import pytest

from textllm_cli.exit_codes import exit_code
from textllm_core import errors


def test_an_error_without_a_row_has_the_code_of_its_nearest_ancestor() -> None:
    class SettingsError(errors.ConfigurationError):
        pass

    assert exit_code(SettingsError("two settings are wrong")) == 2


def test_an_error_that_nobody_classified_is_unexpected() -> None:
    assert exit_code(errors.TextLLMError("odd")) == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConversationNotFoundError(), 3),
        (errors.InputTooLongError(length=2, limit=1), 4),
        (errors.ContentRefusedError(), 4),
        (errors.RateLimitedError(retry_after_s=1, limit=1), 5),
        (errors.ConversationBusyError(), 5),
        (errors.ProviderTimeoutError("slow"), 7),
        (errors.StorageUnavailableError(), 8),
    ],
)
def test_the_exit_code_says_what_to_do_next(error: errors.TextLLMError, code: int) -> None:
    assert exit_code(error) == code
