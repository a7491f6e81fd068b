"""Every adapter that ships keeps the port `UsageReports`."""

from textllm_adapters.testing import UsageReportsContract


class TestUsageReports(UsageReportsContract):
    """Each, as `conftest.py` opens it."""
