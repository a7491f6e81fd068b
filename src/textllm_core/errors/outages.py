"""What does not work on the service's side: its settings, the model's provider, the storage, the process itself."""

from typing import Literal

from textllm_core.errors.base import TextLLMError


class ConfigurationError(TextLLMError):
    """The operator's settings, files or database do not allow the service to start; the text says what to do."""

    code = "invalid_configuration"


class ModelError(TextLLMError):
    """The model did not answer as it should have.

    Args:
        may_have_run: False only when the provider surely did no work for this call, so that nothing can be billed.
    """

    may_have_run: bool = True

    def __init__(self, message: str, *, may_have_run: bool = True) -> None:
        super().__init__(message)
        self.may_have_run = may_have_run


class ProviderError(ModelError):
    """A bad answer, or one that our side caused: a wrong key, an unknown model."""

    code = "provider_error"


class ProviderUnavailableError(ModelError):
    """The provider is overloaded, limits us, or cannot be reached."""

    code = "provider_unavailable"
    tells = ("retry_after_s",)

    def __init__(self, message: str, *, may_have_run: bool = True, retry_after_s: int = 5) -> None:
        super().__init__(message, may_have_run=may_have_run)
        self.retry_after_s = retry_after_s


class ProviderTimeoutError(ModelError):
    """The provider was silent for longer than the operator allows."""

    code = "provider_timeout"


class StorageUnavailableError(TextLLMError):
    """The database or the file storage does not answer; nothing was lost, and nothing was started.

    Args:
        storage: which of the two, for logs.
        is_in_doubt: it may yet do what it was asked, though nobody waits for it any more.
    """

    code = "storage_unavailable"
    tells = ("retry_after_s",)

    def __init__(
        self,
        message: str = "The storage does not answer.",
        *,
        storage: Literal["database", "file storage"] = "database",
        retry_after_s: int = 2,
        is_in_doubt: bool = False,
    ) -> None:
        super().__init__(message)
        self.storage, self.retry_after_s, self.is_in_doubt = storage, retry_after_s, is_in_doubt

    @classmethod
    def of_database(cls) -> "StorageUnavailableError":
        """The database does not answer, or does not do what it is asked."""
        return cls(
            "The database does not answer, or does not do what it is asked; send this again in a moment. If you run "
            "this service: its log says what is wrong, and what to do."
        )

    @classmethod
    def of_files(cls, *, is_in_doubt: bool = False) -> "StorageUnavailableError":
        """The storage of files does not answer, or takes no writes."""
        return cls(
            "The file storage does not answer, or takes no writes; send this again in a moment. If you run this "
            "service: see S3_ENDPOINT, S3_BUCKET and the credentials, or the disk of the data directory without S3.",
            storage="file storage",
            is_in_doubt=is_in_doubt,
        )


class ServiceUnavailableError(TextLLMError):
    """The process is stopping, or has as much to do as it can. Unless a reply had begun, nothing was started.

    Args:
        is_in_doubt: it is a server that was asked, and nobody knows what it has started.
    """

    code = "service_unavailable"
    tells = ("retry_after_s",)
    is_in_doubt: bool = False

    def __init__(self, message: str, *, retry_after_s: int = 2, is_in_doubt: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s, self.is_in_doubt = retry_after_s, is_in_doubt

    @classmethod
    def of_closed(cls) -> "ServiceUnavailableError":
        """A call of the library that comes too late."""
        return cls("TextLLM is closed. Make your calls before you close it or leave its block, or open it again.")
