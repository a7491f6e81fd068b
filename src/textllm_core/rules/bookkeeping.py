"""The rules of the books: by how much counters move with a settlement, and with its correction. No storage."""

from decimal import Decimal

from msgspec import Struct
from msgspec.structs import replace

from textllm_core.money import ZERO, exact
from textllm_core.records.ledger import Settlement
from textllm_core.usage import LedgerEntry


class Moves(Struct, frozen=True, kw_only=True):
    """By how much the counters of a conversation, a session and a day of use move; `cost`, `estimated_cost`: USD."""

    answered: int
    input_tokens: int
    output_tokens: int
    cost: Decimal
    estimated_cost: Decimal

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def __sub__(self, other: "Moves") -> "Moves":
        return Moves(
            answered=self.answered - other.answered,
            input_tokens=self.input_tokens - other.input_tokens,
            output_tokens=self.output_tokens - other.output_tokens,
            cost=self.cost - other.cost,
            estimated_cost=self.estimated_cost - other.estimated_cost,
        )

    def __neg__(self) -> "Moves":
        return NOTHING - self

    def __add__(self, other: "Moves") -> "Moves":
        return self - -other


NOTHING = Moves(answered=0, input_tokens=0, output_tokens=0, cost=ZERO, estimated_cost=ZERO)


def settled(end: Settlement) -> Moves:
    """What a settlement moves."""
    return Moves(
        answered=int(end.answered),
        input_tokens=end.usage.input_tokens,
        output_tokens=end.usage.output_tokens,
        cost=exact(end.cost),
        estimated_cost=exact(end.cost) if end.estimated else ZERO,
    )


def booked(entry: LedgerEntry) -> Moves:
    """What the entry of a settled exchange has moved."""
    return Moves(
        answered=int(entry.answered),
        input_tokens=entry.usage.input_tokens,
        output_tokens=entry.usage.output_tokens,
        cost=entry.cost,
        estimated_cost=entry.cost if entry.estimated else ZERO,
    )


def corrected(entry: LedgerEntry, end: Settlement) -> Settlement | None:
    """What a settlement that comes after an estimate makes of the entry; None where it changes nothing.

    Only an estimate is ever corrected, and by what is none. A turn that was answered stays so, and what it said stays
    in its conversation, so that it is incomplete where the provider says that it has failed; of one that was
    cancelled the user keeps what was written, and is told it again.
    """
    if not entry.estimated or entry.status == "pending" or end.estimated:
        return None
    if entry.status == "cancelled":
        end = of_money_alone(replace(end, status="cancelled"))
    elif entry.answered and end.status == "failed":  # as where the provider had said so before (`chat.remains`)
        end = replace(end, status="incomplete")
    return replace(end, answered=entry.answered)


def of_money_alone(end: Settlement) -> Settlement:
    """The correction without what was said, as of a reply that its user has changed or removed since."""
    return replace(end, messages=(), remembered=b"")


class Before(Struct, frozen=True):
    """What a reservation has changed in a conversation that was there already, for its release.

    Args:
        session_id: the session that it was in.
        given_title: the title that it has got by this turn; None where it has got none.
        was_counted: the session of this turn counts it since then.
    """

    session_id: str | None
    given_title: str | None
    was_counted: bool


def change(
    *,
    session_id: str | None,
    title: str | None,
    message_count: int,
    asked_title: str | None,
    new_session_id: str,
    has_entry: bool,
) -> Before | None:
    """What a reservation changes in a conversation; None: nothing that a release has to undo.

    A session counts each conversation once that has an entry, or a hold, in it. The session of a conversation's newest
    turn counts it already; any other one where it has an entry there, since turns may have alternated between payers.

    Args:
        has_entry: it has an entry in the new session; it only matters where that is another than before.
    """
    given = asked_title if title is None and not message_count else None
    is_moved = session_id != new_session_id
    return Before(session_id, given, is_moved and not has_entry) if given or is_moved else None
