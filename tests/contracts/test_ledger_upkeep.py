"""Every upkeep of the ledger that ships keeps the port `LedgerUpkeep`."""

from textllm_adapters.testing import LedgerUpkeepContract


class TestUpkeeps(LedgerUpkeepContract):
    """Each, as `conftest.py` opens it."""
