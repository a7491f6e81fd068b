"""What an audit of the books finds."""

from decimal import Decimal

from textllm_core.wire import Record


class Drift(Record, frozen=True, kw_only=True):
    """A counter that says something else than the rows it follows from.

    Args:
        table, counter: where it stands.
        key: the row's name: a conversation's id, a session's id, an entry's `response_id`, "day model" of daily usage.
        recorded, actual: what the counter says, and what it should say; USD or a number.
    """

    table: str
    tenant_id: str
    user_id: str
    key: str
    counter: str
    recorded: Decimal | int
    actual: Decimal | int


class BooksSize(Record, frozen=True, kw_only=True):
    """How many rows the books have."""

    entries: int
    holds: int
    sessions: int
    conversations: int
