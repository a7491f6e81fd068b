"""A turn that brings all that was said before it."""

from collections.abc import Sequence
from typing import Literal

from textllm_core.errors import Allowance
from textllm_core.file_tokens import FileTokens
from textllm_core.records.messages import Idempotency, Message, TurnOptions
from textllm_core.uploads import Attached
from textllm_core.wire import Record


class MessagesTurn(Record, frozen=True, kw_only=True):
    """A conversation that its caller keeps, and whose next message it asks for. Nothing of what is said is kept here.

    Args:
        messages: oldest first, of any role; their ids and times are the caller's, and are not sent.
        kind, files, attached: where messages have images or documents, as `TakenParts` has them; none of it is stored.
        allowance: what is left of the user's rate limit, where the turn has been counted already.
        is_streamed: somebody waits for its first event, which comes in time, if need be before the model begins.
        idempotency: a repeat is told what the first one came to for `Retention.repeats`; for so long its reply is kept.
    """

    messages: Sequence[Message]
    user_id: str | None = None
    options: TurnOptions = TurnOptions()
    idempotency: Idempotency | None = None
    kind: Literal["text", "image", "document"] = "text"
    files: FileTokens = FileTokens(0, 0)
    attached: Attached | None = None
    allowance: Allowance | None = None
    is_streamed: bool = False
