"""Why a turn is refused though its request is right: its conversation, its key, its limits, its length."""

from datetime import datetime
from decimal import Decimal
from typing import ClassVar

from textllm_core.errors.base import TextLLMError


class ConversationBusyError(TextLLMError):
    """Another turn is running in this conversation; this one cost nothing and never reached the provider."""

    code = "conversation_busy"
    tells = ("retry_after_s",)

    def __init__(self, *, retry_after_s: int = 1) -> None:
        super().__init__("Another turn is running in this conversation; send this one again when it has ended.")
        self.retry_after_s = retry_after_s


class ConversationLostError(TextLLMError):
    """The provider no longer has the conversation, or is not asked for it, and no copy of its messages is kept here."""

    code = "conversation_lost"

    def __init__(
        self,
        message: str = "The provider does not have this conversation (any more), and no copy is kept here; start a new "
        "one. If you run this service, and have changed its provider, address or key: put that back.",
    ) -> None:
        super().__init__(message)

    @classmethod
    def of_settings(cls, transcript_id: str) -> "ConversationLostError":
        """Nobody is asked for it any more who keeps this transcript: the settings have changed."""
        name, slash, _ = transcript_id.partition("/")
        setting = f"the provider {name} of the kind openai" if slash else "llm_api: conversations"
        return cls(
            "What was said here is kept at the provider alone (store_messages: false), which is not asked for "
            f"conversations any more. If you run this service: put {setting} back into the settings, with the address "
            "and the key as they were. Or start a new conversation."
        )


class IdempotencyMismatchError(TextLLMError):
    """The idempotency key was used before, for another request."""

    code = "idempotency_mismatch"

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key was used before with another request; use a new one.")


class IdempotencyInProgressError(TextLLMError):
    """The first request with this idempotency key is still running, or its outcome is not known yet.

    Args:
        response_id: of the first one, for our own use; None: not known.
    """

    code = "idempotency_in_progress"
    tells = ("retry_after_s",)

    def __init__(self, *, retry_after_s: int = 1, response_id: str | None = None) -> None:
        super().__init__("The first request with this Idempotency-Key is still running; ask again.")
        self.retry_after_s = retry_after_s
        self.response_id = response_id


class BudgetExceededError(TextLLMError):
    """The user has spent, or promised to turns still running, all that the UTC day's budget allows.

    Args:
        limit, spent: USD; `spent` holds no promises.
        resets_at: the next UTC midnight.
        reserved: True when only turns still running stand in the way, so that a retry may pass.
    """

    code = "budget_exceeded"
    tells = ("limit", "spent", "resets_at", "reserved")

    def __init__(self, *, limit: Decimal, spent: Decimal, resets_at: datetime, reserved: bool) -> None:
        why = " and the rest is promised to turns still running" if reserved else ""
        super().__init__(
            f"This turn may cost more than is left: {spent:f} of {limit:f} USD (the setting cost_limit_per_session) "
            f"are used today{why}; the budget resets at {resets_at:%H:%M} UTC."
        )
        self.limit, self.spent, self.resets_at, self.reserved = limit, spent, resets_at, reserved


class RateLimitedError(TextLLMError):
    """Too many turns in a minute; the same call passes after `retry_after_s` seconds."""

    code = "rate_limited"
    tells: ClassVar[tuple[str, ...]] = ("retry_after_s", "limit")

    def __init__(self, *, retry_after_s: int, limit: int) -> None:
        super().__init__(
            f"The limit is {limit} turns, uploads, new conversations and keys a minute (the setting "
            f"rate_limit_per_minute); try again in {retry_after_s} s."
        )
        self.retry_after_s, self.limit = retry_after_s, limit


class UnknownKeysError(RateLimitedError):
    """So many unknown API keys came from an address that no more of them are looked up for now."""

    tells = ("retry_after_s",)

    def __init__(self, *, retry_after_s: int) -> None:
        TextLLMError.__init__(
            self, f"Too many unknown API keys came from your address; try again in {retry_after_s} s, with a valid one."
        )
        self.retry_after_s = retry_after_s


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
