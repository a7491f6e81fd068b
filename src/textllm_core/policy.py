"""What an operator decides, as the core needs to know it."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final

from msgspec import Struct

from textllm_core.errors import InputTooLongError, InvalidRequestError
from textllm_core.texts import refuse_half_characters

SUMMARY_PROMPT: Final = (
    "Summarize our conversation so far for someone who was not here: what was asked, what came of it, and what is "
    "still open. At most five sentences, in the language that we spoke. Keep names, numbers and dates exactly as they "
    "stand. Write nothing but the summary."
)


class Retention(Struct, frozen=True, kw_only=True):
    """For how long what nobody needs for ever is kept; None: for ever.

    Args:
        conversations: conversations with all that was said in them, after the last turn.
        deleted: conversations that were deleted, and can be restored until then.
        journals: what resumable replies said, after their end.
        repeats: idempotency keys, and what their turns came to.
        revoked_keys: API keys, after they were revoked.
        responses: what was said in responses that belong to no conversation, after the last of them; not for ever.
        ledger_months: ledger entries and sessions of calendar months, after these ended; at least 1.
    """

    conversations: timedelta | None = None
    deleted: timedelta | None = None
    journals: timedelta = timedelta(hours=1)
    repeats: timedelta = timedelta(hours=24)
    revoked_keys: timedelta | None = timedelta(days=90)
    responses: timedelta = timedelta(days=30)
    ledger_months: int | None = None

    def ledger_since(self, at: datetime) -> date | None:
        """The first day whose entries and sessions are kept at that moment; None: those of all days are."""
        if self.ledger_months is None:
            return None
        years, month = divmod(at.year * 12 + at.month - 1 - self.ledger_months, 12)
        return date(years, month + 1, 1)


class ChatPolicy(Struct, frozen=True, kw_only=True):
    """Rules of every turn.

    Args:
        model: what answers unless a turn names another.
        prompts: system prompts by name; `default` is used unless a turn names another or brings its own. `summary` is
            what asks for the summary of a conversation.
        max_input_chars: the longest message, and the longest system prompt that a turn may bring.
        max_history_items: how many earlier messages are sent where the history is ours to send.
        max_output_tokens: ceiling of one reply.
        daily_limit, warn_at: USD a user may spend in a UTC day, and from when on replies warn.
        keep_messages: keep our own copy of what is said.
        max_file_bytes: of an image or a document.
        max_document_chars, max_document_pages: of a document.
        max_conversations: of one user.
        max_tool_calls: in one reply, of tools that run on the provider's servers.
        retention: for how long what nobody needs for ever is kept.
        first_token_timeout_s, silence_timeout_s: how long the model may take to begin, and to be silent later.
        begin_within_s: how long the caller of a stream waits for the model to begin; then it is told what is known, and
            a later refusal is an event. The headers go out with that, before a proxy takes the silence for a failure.
        outcome_pauses_s: before each time that the provider is asked what a broken reply came to: at once, and then
            when a reply that it goes on with may have ended. Nobody waits for the answer but the entry.
        storage_pauses_s: after each time that the storage did not take a settlement; less than the minute in which a
            database comes back. What it still misses then, recovery settles.
    """

    model: str
    prompts: Mapping[str, str]
    max_input_chars: int
    max_history_items: int
    max_output_tokens: int
    rate_per_minute: int
    daily_limit: Decimal
    warn_at: Decimal
    keep_messages: bool
    first_token_timeout_s: float
    silence_timeout_s: float
    max_file_bytes: int = 20 * 1024 * 1024
    max_document_chars: int = 400_000
    max_document_pages: int = 1000
    begin_within_s: float = 10.0
    outcome_pauses_s: Sequence[float] = (0.0, 0.5, 2.0, 5.0)
    storage_pauses_s: Sequence[float] = (0.1, 0.3, 1.0, *[2.0] * 20)
    max_conversations: int = 10_000
    max_tool_calls: int = 5
    retention: Retention = Retention()

    def check_message(self, text: str) -> None:
        """
        Raises:
            InvalidRequestError: it is blank, or has half of a surrogate pair.
            InputTooLongError: it is too long.
        """
        refuse_half_characters(message=text)
        if not text.strip():
            raise InvalidRequestError.of("message", "must not be blank")
        if len(text) > self.max_input_chars:
            raise InputTooLongError(length=len(text), limit=self.max_input_chars)

    def instructions(self, *, prompt: str | None, instructions: str | None) -> str | None:
        """The system prompt of a turn.

        Raises:
            InvalidRequestError: no prompt of that name, or both were given.
        """
        if instructions is not None:
            if prompt is not None:
                raise InvalidRequestError.of("instructions", "give either prompt or instructions, not both")
            return instructions
        if prompt is not None and prompt not in self.prompts:
            names = ", ".join(sorted(self.prompts)) or "none is configured"
            raise InvalidRequestError.of("prompt", f"no prompt has this name; there are: {names}")
        return self.prompts.get(prompt or "default")

    @property
    def summary_prompt(self) -> str:
        """What the model is told that shall sum up a conversation."""
        return self.prompts.get("summary", SUMMARY_PROMPT)

    def warnings(self, spent: Decimal) -> Sequence[str]:
        """Sentences for a user who has spent so much of the day's budget, in USD."""
        return [f"{spent:f} of {self.daily_limit:f} USD of today's budget are used."] if spent >= self.warn_at else []
