"""Every ledger that ships keeps the port `Ledger`."""

from textllm_adapters.testing import IdempotencyContract, LedgerContract, LedgerEndsContract, PayersContract


class TestLedgers(LedgerContract):
    """Each, as `conftest.py` opens it."""


class TestLedgersAtTheEnds(LedgerEndsContract):
    """The same."""


class TestIdempotencyOfLedgers(IdempotencyContract):
    """The same."""


class TestPayersOfLedgers(PayersContract):
    """The same."""
