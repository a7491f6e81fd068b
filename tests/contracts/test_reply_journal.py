"""Every journal that ships keeps the port `ReplyJournal`."""

from textllm_adapters.testing import ReplyJournalContract


class TestReplyJournals(ReplyJournalContract):
    """Each, as `conftest.py` opens it."""
