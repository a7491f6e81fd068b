"""What is left of a reply that broke off: what it costs, and what its conversation keeps of it."""

from typing import Final

from msgspec import Struct

from textllm_core.errors import (
    ContentRefusedError,
    ContextTooLongError,
    InvalidRequestError,
    TextLLMError,
    UnsupportedMediaTypeError,
)
from textllm_core.records.model import ModelEnded
from textllm_core.usage import EntryStatus, Usage

OF_THE_TURN: Final = (ContentRefusedError, ContextTooLongError, InvalidRequestError, UnsupportedMediaTypeError)


# A provider that has an account of a reply gives it in one round trip. What it says later corrects an estimate; who
# waits for its conversation, or for the last event of a stream, waits no longer than this.
OUTCOME_WITHIN_S: Final = 2.0


class Remains(Struct, frozen=True, kw_only=True):
    """What is left of one reply.

    Args:
        status: of its ledger entry; the reply is whole where it is `completed`.
        usage: what is charged; `estimated`: by what was sent and heard, since the provider has not stated it.
        text: all that is known of the reply.
        is_kept: the turn and the text stay in the conversation.
        is_open: the provider may yet say what it came to.
    """

    status: EntryStatus
    usage: Usage
    estimated: bool
    text: str
    is_kept: bool
    is_open: bool


def remains(ended: ModelEnded | None, heard: str, estimate: Usage, *, error: TextLLMError | None = None) -> Remains:
    """What is left of a reply that was asked for, and of which `heard` was read.

    Where the provider has said that there is no reply, its conversation stays as it was, unless somebody has read some
    of one; else the turn is kept, since nobody knows what became of it.

    Args:
        ended: the provider's own account; None where it has none.
        estimate: tokens of what was certainly sent and received.
        error: why it broke off, where that is known.
    """
    if ended is not None and ended.content_filtered:
        text, has_no_reply = "", True
    else:
        told = ended.text if ended is not None and ended.status in ("completed", "incomplete") else ""
        text = max(told, heard, key=len)
        has_no_reply = ended.status == "failed" if ended else _is_refusal(error)
    is_kept = bool(text) or not has_no_reply
    if ended is not None:
        usage, estimated = ended.charged(estimate)
    else:
        is_free = _is_answer(error) and not estimate.output_tokens  # but for the calls of tools that it has told of
        usage, estimated = Usage(tool_calls=estimate.tool_calls) if is_free else estimate, True
    status: EntryStatus = "failed"
    is_whole = ended is not None and ended.status == "completed" and not ended.content_filtered
    if ended is not None and is_whole and _tells(ended.text, heard):
        status = "completed"
    elif is_kept or (ended is not None and ended.content_filtered):
        status = "incomplete"
    return Remains(
        status=status,
        usage=usage,
        estimated=estimated,
        text=text,
        is_kept=is_kept,
        is_open=ended is None or not ended.is_over,
    )


def tells_reply(left: Remains, ended: ModelEnded) -> bool:
    """Whether the provider's account is one of a reply, which it tells as far as it went."""
    return ended.status == "incomplete" or ended.status == left.status == "completed"


def _tells(told: str, heard: str) -> bool:
    """Whether an account of a whole reply tells its text. Some servers keep none, or in a form that nobody can read."""
    return len(told) >= len(heard) or (told != "" and heard.startswith(told))


def _is_refusal(error: TextLLMError | None) -> bool:
    """Whether the provider has said that it gives no reply."""
    return isinstance(error, OF_THE_TURN) or _is_answer(error)


def _is_answer(error: TextLLMError | None) -> bool:
    """Whether the provider itself has said that it failed: what that may have cost it does not bill."""
    return error is not None and error.report is not None and error.report.is_answer
