"""What running replies have said so far, as other processes read it."""

from datetime import datetime
from typing import Final

from textllm_core.records.hosted import ToolStep
from textllm_core.records.ledger import Hold, Replay
from textllm_core.records.messages import ReplyStarted, TextDelta
from textllm_core.records.thoughts import Thought, ThoughtDelta
from textllm_core.wire import Record

Spoken = ReplyStarted | TextDelta | ThoughtDelta | Thought | ToolStep
# Of the end of an exchange whose process died: its last events may have been read, and are numbered by nobody.
END_OF_LOST: Final = 2**31 - 1


class JournalEntry(Record, frozen=True):
    """Events of a resumable exchange, in order; `first` is the number of the first of them, counted from 1."""

    hold: Hold
    first: int
    events: tuple[Spoken, ...]

    @property
    def last(self) -> int:
        """The number of the last of them."""
        return self.first + len(self.events) - 1


class JournalEnd(Record, frozen=True):
    """How a resumable exchange ended: the number of its terminal event, and what it came to."""

    number: int
    replay: Replay


class RefusedEnd(Record, frozen=True, kw_only=True):
    """How an exchange ended that was released, for who was told of its beginning.

    Args:
        number, remembered: as `Settlement.end_number` and `Settlement.remembered`.
    """

    number: int
    remembered: bytes
    at: datetime


class JournalPage(Record, frozen=True, kw_only=True):
    """What the journal has of one exchange after some event.

    Args:
        events: those that follow, without a gap; `end`: None while it runs, or is still to be recovered.
    """

    user_id: str
    events: tuple[Spoken, ...]
    end: JournalEnd | None
