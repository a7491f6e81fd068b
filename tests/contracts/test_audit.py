"""Every audit that ships keeps the port `Audit`."""

from textllm_adapters.testing import AuditContract


class TestAudits(AuditContract):
    """Each, as `conftest.py` opens it."""
