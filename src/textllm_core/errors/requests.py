"""What is wrong with a request, or with who sends it: nothing has happened, and the caller can mend it."""

from collections.abc import Mapping, Sequence

from textllm_core.errors.base import TextLLMError


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

    def rename(self, fields: Mapping[str, str]) -> None:
        """Name fields as the request has them; those that are not in `fields` keep their names."""
        if any(field in fields for field, _ in self.errors):
            self.errors = tuple((fields.get(field, field), message) for field, message in self.errors)
            self.args = ("; ".join(f"{field}: {message}" for field, message in self.errors),)

    def details(self) -> Mapping[str, object]:
        return {"errors": [{"field": field, "message": message} for field, message in self.errors]}


class InputTooLongError(TextLLMError):
    """The message has more characters than one turn may have."""

    code = "input_too_long"
    tells = ("limit",)

    def __init__(
        self, *, length: int, limit: int, what: str = "message", settings: str = "the setting max_input_length"
    ) -> None:
        super().__init__(f"The {what} has {length} characters; at most {limit} are allowed ({settings}).")
        self.length, self.limit = length, limit

    @classmethod
    def of_messages(cls, *, length: int, limit: int) -> "InputTooLongError":
        """All messages of a turn that brings its own history, taken together."""
        settings = "the setting max_input_length, times max_history_items"
        return cls(length=length, limit=limit, what="conversation", settings=settings)


class UnauthenticatedError(TextLLMError):
    """The call came with no key, with something that is none, or with one that is unknown or revoked.

    Of these last two nobody is told which. What is no key anybody can tell by its checksum, without asking here.
    """

    code = "unauthenticated"

    def __init__(
        self,
        message: str = "This call needs an API key, and none came with it: send one as Authorization: Bearer tllm_…; "
        "whoever runs the service gives you one.",
    ) -> None:
        super().__init__(message)

    @classmethod
    def of_malformed(cls) -> "UnauthenticatedError":
        """What came is no key of this service, whoever made it."""
        return cls(
            "What came as the API key cannot be one of this service: those begin with tllm_ and end with a checksum. "
            "Copy the whole key again, from where it was made, and send it as Authorization: Bearer tllm_…"
        )

    @classmethod
    def of_unknown(cls) -> "UnauthenticatedError":
        """It has the form of a key."""
        return cls(
            "This API key is not in force here: it is unknown to this service, or was revoked. Send another one; an "
            "admin makes keys with `textllm keys create` or POST /keys."
        )

    @classmethod
    def of_operator(cls) -> "UnauthenticatedError":
        """It is about the whole service, and keys are not required."""
        return cls(
            "This needs the operator's token: send what TEXTLLM_METRICS_TOKEN is set to as Authorization: Bearer …"
        )


class ForbiddenError(TextLLMError):
    """The caller is known, and may not do this: its role does not allow it, or it has all that it may have."""

    code = "forbidden"
    tells = ("limit",)

    def __init__(self, message: str, *, limit: int | None = None) -> None:
        super().__init__(message)
        self.limit = limit

    @classmethod
    def of_full_list(cls, limit: int) -> "ForbiddenError":
        """The user has as many conversations as a user may have."""
        return cls(
            f"A user may have {limit} conversations, deleted ones that can be restored among them (the setting "
            "max_conversations_per_user); erase some (DELETE with soft=false), then begin a new one.",
            limit=limit,
        )

    @classmethod
    def of_role(cls, needed: str) -> "ForbiddenError":
        """The key's role is a lesser one."""
        return cls(f"This needs a key of the role {needed}.")

    @classmethod
    def of_model(cls, model: str, allowed: Sequence[str]) -> "ForbiddenError":
        """The key is limited to other models."""
        return cls(f"This key may not use the model {model[:100]!r}; it may use {', '.join(allowed)}.")

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
