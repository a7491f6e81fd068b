"""Every failure TextLLM states, on one page. Shells map the classes; clients read the codes, which never change."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import ClassVar, Final, Literal, TypeAlias

from msgspec import Struct

from textllm_core.uploads import in_bytes


class TextLLMError(Exception):
    """Something TextLLM can say about what went wrong. Its text may be shown to the caller: it holds no secret.

    Args:
        is_replayed: it is what an earlier call with the same idempotency key ended in.
        allowance: what is left of the caller's rate limit, where the call has used some of it.
        report: the provider's own account of it, where it gave one; for the operator's log.
    """

    code: ClassVar[str] = "internal_error"
    is_replayed: bool = False
    allowance: "Allowance | None" = None
    report: "ProviderReport | None" = None

    def details(self) -> Mapping[str, object]:
        """What a client acts on besides the code, by its wire name."""
        return {}

    def tell_of(self, what: str) -> None:
        """Let its text begin with what it is about."""
        self.args = (f"{what}: {self}",)


class Allowance(Struct, frozen=True):
    """A caller's rate limit of turns and of what else counts as one; what is left, and seconds until it is full."""

    limit: int
    remaining: int
    resets_in_s: int


class ProviderReport(Struct, frozen=True, kw_only=True):
    """What a provider says of a failure, without any text: names and numbers alone, None where it gives none.

    Args:
        status: of HTTP; `code`, `type`, `param`: the provider's words; `request_id`: by which its support finds it.
    """

    status: int | None = None
    code: str | None = None
    type: str | None = None
    param: str | None = None
    request_id: str | None = None


class ConfigurationError(TextLLMError):
    """The operator's settings, files or database do not allow the service to start; the text says what to do."""

    code = "invalid_configuration"


class InvalidRequestError(TextLLMError):
    """The request itself is wrong; `errors` names each field and what it should have been."""

    code = "invalid_request"

    def __init__(self, message: str, errors: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.errors = tuple(errors)

    @classmethod
    def of(cls, field: str, message: str) -> "InvalidRequestError":
        """One wrong field."""
        return cls(f"{field}: {message}", [(field, message)])

    def details(self) -> Mapping[str, object]:
        return {"errors": [{"field": field, "message": message} for field, message in self.errors]}


class InputTooLongError(TextLLMError):
    """The message has more characters than one turn may have."""

    code = "input_too_long"

    def __init__(self, *, length: int, limit: int) -> None:
        super().__init__(f"The message has {length} characters; at most {limit} are allowed.")
        self.length, self.limit = length, limit

    def details(self) -> Mapping[str, object]:
        return {"limit": self.limit}


class UnauthenticatedError(TextLLMError):
    """The call came with no key, or with one that is malformed, unknown or revoked: which, is not said."""

    code = "unauthenticated"

    def __init__(self) -> None:
        super().__init__("A valid API key is needed: Authorization: Bearer tllm_…")


class ForbiddenError(TextLLMError):
    """The caller is known, and may not do this: its role does not allow it, or it has all that it may have."""

    code = "forbidden"

    def __init__(self, message: str, *, limit: int | None = None) -> None:
        super().__init__(message)
        self.limit = limit

    def details(self) -> Mapping[str, object]:
        return {} if self.limit is None else {"limit": self.limit}

    @classmethod
    def of_full_list(cls, limit: int) -> "ForbiddenError":
        """The user has as many conversations as a user may have."""
        return cls(
            f"A user may have {limit} conversations, deleted ones that can be restored among them; erase some "
            "(DELETE with soft=false), then begin a new one.",
            limit=limit,
        )

    @classmethod
    def of_role(cls, needed: str) -> "ForbiddenError":
        """The key's role is a lesser one."""
        return cls(f"This needs a key of the role {needed}.")

    @classmethod
    def of_operator(cls) -> "ForbiddenError":
        """It is about the whole service, of which a tenant's key shows nothing."""
        return cls(
            "This is about the whole service, not about one tenant, and needs the operator's token: whoever runs the "
            "service sets TEXTLLM_METRICS_TOKEN, and sends it as Authorization: Bearer …"
        )


class NotFoundError(TextLLMError):
    """It does not exist for this caller; what belongs to others is no different from what never was."""

    code = "not_found"


class ConversationNotFoundError(NotFoundError):
    """No conversation of this id exists for this caller."""

    code = "conversation_not_found"

    def __init__(self) -> None:
        super().__init__("No such conversation.")


class SessionNotFoundError(NotFoundError):
    """No session of this id, user or day exists for this caller."""

    code = "session_not_found"

    def __init__(self) -> None:
        super().__init__("No such session.")


class StoredFileNotFoundError(NotFoundError):
    """No file of this key exists for this caller."""

    code = "file_not_found"

    def __init__(self, message: str = "No such file.") -> None:
        super().__init__(message)


class FileTooLargeError(TextLLMError):
    """The file has more bytes than the operator allows; `limit` is the most of what `counts` names."""

    code = "file_too_large"
    counts: Literal["bytes", "pixels", "stored_bytes"] = "bytes"

    def __init__(self, *, limit: int) -> None:
        super().__init__(f"The file is larger than {in_bytes(limit)}, the most that is allowed.")
        self.limit = limit

    def details(self) -> Mapping[str, object]:
        return {"limit": self.limit, "counts": self.counts}


class ImageTooLargeError(FileTooLargeError):
    """An image has more pixels than allowed, or the images of a turn more bytes."""

    def __init__(self, message: str, *, limit: int, counts: Literal["bytes", "pixels"]) -> None:
        TextLLMError.__init__(self, message)
        self.limit, self.counts = limit, counts


class UnsupportedMediaTypeError(TextLLMError):
    """The content is of a type that is not taken, or not of the type that its name says."""

    code = "unsupported_media_type"


UnreadableReason: TypeAlias = Literal["damaged", "encrypted", "empty", "unsafe", "timed_out", "too_complex"]

_UNREADABLE: Final[Mapping[UnreadableReason, str]] = {
    "damaged": "The document is damaged; open it, save it again, and send that.",
    "encrypted": "The document is encrypted; remove its password first, and send that.",
    "empty": "The document has no text; images of text must be turned into text first.",
    "unsafe": "The document is built in a way that no word processor builds one, and is not opened.",
    "timed_out": "The document takes too long to read; send a simpler one, or its text.",
    "too_complex": "The document takes too much memory to read; send a simpler one, or its text.",
}


class UnreadableDocumentError(TextLLMError):
    """The document's text cannot be had; `reason` says why."""

    code = "unreadable_document"

    def __init__(self, reason: UnreadableReason, message: str | None = None) -> None:
        super().__init__(message or _UNREADABLE[reason])
        self.reason = reason

    @classmethod
    def of_empty_file(cls) -> "UnreadableDocumentError":
        """A file without any bytes, or with nothing but white space."""
        return cls("empty", "The file is empty; send one that has text.")

    def details(self) -> Mapping[str, object]:
        return {"reason": self.reason}


class DocumentTooLargeError(TextLLMError):
    """The document is longer than allowed; `limit` is the most of what `counts` names."""

    code = "document_too_large"

    def __init__(self, *, limit: int, counts: Literal["pages", "characters", "unpacked_bytes"]) -> None:
        most = f"{in_bytes(limit)} unpacked" if counts == "unpacked_bytes" else f"{limit} {counts}"
        super().__init__(f"The document has more than {most}, the most that is allowed.")
        self.limit, self.counts = limit, counts

    def details(self) -> Mapping[str, object]:
        return {"limit": self.limit, "counts": self.counts}


class StorageQuotaExceededError(FileTooLargeError):
    """The file would make all files of the tenant together larger than the operator allows."""

    counts = "stored_bytes"

    def __init__(self, *, limit: int) -> None:
        TextLLMError.__init__(self, f"All files together may have {in_bytes(limit)}; delete some to store this one.")
        self.limit = limit


class ConversationBusyError(TextLLMError):
    """Another turn is running in this conversation; this one cost nothing and never reached the provider."""

    code = "conversation_busy"

    def __init__(self, *, retry_after_s: int = 1) -> None:
        super().__init__("Another turn is running in this conversation; send this one again when it has ended.")
        self.retry_after_s = retry_after_s

    def details(self) -> Mapping[str, object]:
        return {"retry_after_s": self.retry_after_s}


class ConversationLostError(TextLLMError):
    """The provider no longer has the conversation, and no copy of its messages is kept here."""

    code = "conversation_lost"

    def __init__(self) -> None:
        super().__init__("The provider has lost this conversation, and no copy is kept here; start a new one.")


class IdempotencyMismatchError(TextLLMError):
    """The idempotency key was used before, for another request."""

    code = "idempotency_mismatch"

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key was used before with another request; use a new one.")


class IdempotencyInProgressError(TextLLMError):
    """The first request with this idempotency key is still running, or its outcome is not known yet."""

    code = "idempotency_in_progress"

    def __init__(self, *, retry_after_s: int = 1) -> None:
        super().__init__("The first request with this Idempotency-Key is still running; ask again.")
        self.retry_after_s = retry_after_s

    def details(self) -> Mapping[str, object]:
        return {"retry_after_s": self.retry_after_s}


class BudgetExceededError(TextLLMError):
    """The user has spent, or promised to turns still running, all that the UTC day's budget allows.

    Args:
        limit, spent: USD; `spent` holds no promises.
        resets_at: the next UTC midnight.
        reserved: True when only turns still running stand in the way, so that a retry may pass.
    """

    code = "budget_exceeded"

    def __init__(self, *, limit: Decimal, spent: Decimal, resets_at: datetime, reserved: bool) -> None:
        why = " and the rest is promised to turns still running" if reserved else ""
        super().__init__(
            f"This turn may cost more than is left: {spent:f} of {limit:f} USD are used today{why}; "
            f"the budget resets at {resets_at:%H:%M} UTC."
        )
        self.limit, self.spent, self.resets_at, self.reserved = limit, spent, resets_at, reserved

    def details(self) -> Mapping[str, object]:
        return {"limit": self.limit, "spent": self.spent, "resets_at": self.resets_at, "reserved": self.reserved}


class RateLimitedError(TextLLMError):
    """Too many turns in a minute; the same call passes after `retry_after_s` seconds."""

    code = "rate_limited"

    def __init__(self, *, retry_after_s: int, limit: int) -> None:
        super().__init__(
            f"The limit is {limit} turns, uploads, new conversations and keys a minute; try again in {retry_after_s} s."
        )
        self.retry_after_s, self.limit = retry_after_s, limit

    def details(self) -> Mapping[str, object]:
        return {"retry_after_s": self.retry_after_s, "limit": self.limit}


class UnknownKeysError(RateLimitedError):
    """So many unknown API keys came from an address that no more of them are looked up for now."""

    def __init__(self, *, retry_after_s: int) -> None:
        TextLLMError.__init__(
            self, f"Too many unknown API keys came from your address; try again in {retry_after_s} s, with a valid one."
        )
        self.retry_after_s = retry_after_s

    def details(self) -> Mapping[str, object]:
        return {"retry_after_s": self.retry_after_s}


class ContextTooLongError(TextLLMError):
    """The conversation and the new turn do not fit into the model's context.

    Args:
        is_of_turn: the turn alone does not, whatever was said before.
    """

    code = "context_too_long"

    def __init__(
        self,
        message: str = "The conversation is too long for the model; start a new one or send less.",
        *,
        is_of_turn: bool = False,
    ) -> None:
        super().__init__(message)
        self.is_of_turn = is_of_turn

    @classmethod
    def of_turn(cls, *, tokens: int | None = None, limit: int | None = None) -> "ContextTooLongError":
        """What was sent is too long by itself; `tokens` it makes, at most `limit` are allowed, where both are known."""
        counted = "" if tokens is None or limit is None else f": it makes {tokens} tokens, and {limit} are allowed"
        return cls(f"What was sent is too long for the model{counted}; send less.", is_of_turn=True)


class ContentRefusedError(TextLLMError):
    """The provider's content filter refused the turn or its reply."""

    code = "content_refused"

    def __init__(self) -> None:
        super().__init__("The provider's content filter refused this turn.")


class ModelError(TextLLMError):
    """The model did not answer as it should have.

    Args:
        may_have_run: False only when the provider surely did no work for this call, so that nothing can be billed.
    """

    def __init__(self, message: str, *, may_have_run: bool = True) -> None:
        super().__init__(message)
        self.may_have_run = may_have_run


class ProviderError(ModelError):
    """A bad answer, or one that our side caused: a wrong key, an unknown model."""

    code = "provider_error"


class ProviderUnavailableError(ModelError):
    """The provider is overloaded, limits us, or cannot be reached."""

    code = "provider_unavailable"

    def __init__(self, message: str, *, may_have_run: bool = True, retry_after_s: int = 5) -> None:
        super().__init__(message, may_have_run=may_have_run)
        self.retry_after_s = retry_after_s

    def details(self) -> Mapping[str, object]:
        return {"retry_after_s": self.retry_after_s}


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
        """The database does not answer, or takes no writes."""
        return cls(
            "The database does not answer, or takes no writes; send this again in a moment. If you run this service: "
            "see whether the server in DATABASE_URL is up and no standby, or whether the disk of SQLite's file is full."
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

    def details(self) -> Mapping[str, object]:
        return {"retry_after_s": self.retry_after_s}


class ServiceUnavailableError(TextLLMError):
    """The process is stopping, or has as much to do as it can. Unless a reply had begun, nothing was started."""

    code = "service_unavailable"

    def __init__(self, message: str, *, retry_after_s: int = 2) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def details(self) -> Mapping[str, object]:
        return {"retry_after_s": self.retry_after_s}
