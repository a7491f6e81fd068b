"""Every list of erasures that ships keeps the port `Erasures`."""

from textllm_adapters.testing import ErasuresContract


class TestErasures(ErasuresContract):
    """Each, as `conftest.py` opens it."""
