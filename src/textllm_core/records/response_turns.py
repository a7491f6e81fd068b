"""What a response is asked for, and what comes of one that is asked for again."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Final, Literal

from textllm_core.errors import Allowance, ContentRefusedError
from textllm_core.file_tokens import FileTokens
from textllm_core.records.edits import SaidMessage
from textllm_core.records.messages import Idempotency, Message, TurnOptions
from textllm_core.records.parts import ContentPart, InputText
from textllm_core.records.stored_responses import StoredResponse
from textllm_core.usage import LedgerEntry
from textllm_core.wire import Record

ResponseStatus = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
"""How far a response is, in the words of OpenAI's API."""
CANCELLED = "cancelled"  # the code of a failure that its user wanted
# What a failure makes of a response, by its code; the provider's filter leaves it incomplete, as at OpenAI.
_ENDS: Final[Mapping[str, ResponseStatus]] = {CANCELLED: "cancelled", ContentRefusedError.code: "incomplete"}


class ResponseTurn(Record, frozen=True, kw_only=True):
    """A turn whose response can be asked for again: in a conversation, behind another response, or behind nothing.

    Args:
        content: what is said; `before`: what is said right before it, by whomever, and is kept with it.
        conversation_id, previous_response_id: one of them at most. Behind the last response of a conversation it is
            said there; behind any other one a conversation begins that has what was said until then.
        user_id: whom the caller names.
        is_stored: False: it goes on in its conversation, and cannot be asked for again.
        is_background: nobody waits for its end.
        is_resumable: as `Turn` has it.
        asked: as `StoredResponse` has it.
        kind, files, show_files, discard_files: where it has images or documents, as `TakenParts` has them.
        allowance: what is left of the user's rate limit, where the turn has been counted already.
    """

    content: tuple[ContentPart, ...]
    before: tuple[SaidMessage, ...] = ()
    conversation_id: str | None = None
    previous_response_id: str | None = None
    user_id: str | None = None
    options: TurnOptions = TurnOptions()
    idempotency: Idempotency | None = None
    is_stored: bool = True
    is_background: bool = False
    is_resumable: bool = False
    asked: str = "{}"
    kind: Literal["text", "image", "document"] = "text"
    files: FileTokens = FileTokens(0, 0)
    show_files: Callable[[], Coroutine[None, None, None]] | None = None
    discard_files: Callable[[], Coroutine[None, None, None]] | None = None
    allowance: Allowance | None = None

    @property
    def is_text(self) -> bool:
        """It is a text and nothing else, as most are: nothing in it answers what was said before."""
        return not self.before and len(self.content) == 1 and isinstance(self.content[0], InputText)


class KeptResponse(Record, frozen=True, kw_only=True):
    """A response that was asked for again.

    Args:
        entry: of its exchange; None before the model has begun, and where it never did.
        reply: what it said; None where nothing was kept of it.
    """

    stored: StoredResponse
    entry: LedgerEntry | None
    reply: Message | None

    @property
    def status(self) -> ResponseStatus:
        """How far it is."""
        failure, entry = self.stored.failure, self.entry
        if failure is not None:
            return _ENDS.get(failure.code, "failed")
        if entry is None:
            return "queued" if self.stored.is_background else "in_progress"
        if entry.status == "incomplete" and self.reply is not None and self.reply.finish_reason == "error":
            return "failed"  # it broke off, and whoever read it could not say why
        return "in_progress" if entry.status == "pending" else entry.status

    @property
    def is_over(self) -> bool:
        """Whether it does not change any more."""
        return self.status not in ("queued", "in_progress")
