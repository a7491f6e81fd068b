"""What an upgrade does to the tables of a database."""

from textllm_core.wire import Record


class SchemaStep(Record, frozen=True, kw_only=True):
    """One revision on the way to the newest.

    Args:
        revision: its number.
        title: what it is for, in a sentence.
        workers_go_on: workers of the version before may serve while it is taken, and after it.
    """

    revision: str
    title: str
    workers_go_on: bool
