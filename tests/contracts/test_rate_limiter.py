"""Every rate limiter that ships keeps the port `RateLimiter`."""

from textllm_adapters.testing import RateLimiterContract


class TestRateLimiters(RateLimiterContract):
    """All of them, as `conftest.py` opens them."""
