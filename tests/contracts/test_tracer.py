"""Every tracer that ships keeps the port `Tracer`."""

from textllm_adapters.testing import TracerContract


class TestTracers(TracerContract):
    """All of them, as `conftest.py` opens them."""
