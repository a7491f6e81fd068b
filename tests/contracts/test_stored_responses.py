"""Everything that ships and keeps responses keeps the port `StoredResponses`."""

from textllm_adapters.testing import StoredResponsesContract


class TestStoredResponses(StoredResponsesContract):
    """Each, as `conftest.py` opens it."""
