"""Every probe that ships keeps the port `HealthProbe`."""

from textllm_adapters.testing import HealthProbeContract


class TestHealthProbes(HealthProbeContract):
    """Each, as `conftest.py` opens it."""
