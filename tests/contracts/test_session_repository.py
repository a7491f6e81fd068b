"""Every repository of sessions that ships keeps the port `SessionRepository`."""

from textllm_adapters.testing import SessionRepositoryContract


class TestSessionRepositories(SessionRepositoryContract):
    """Each, as `conftest.py` opens it."""
