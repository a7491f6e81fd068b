"""Every listener that ships keeps the port `Telemetry`."""

from textllm_adapters.testing import TelemetryContract


class TestListeners(TelemetryContract):
    """All of them, as `conftest.py` opens them."""
