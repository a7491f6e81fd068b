"""Every repository of keys that ships keeps the port `ApiKeyRepository`."""

from textllm_adapters.testing import ApiKeyRepositoryContract


class TestApiKeyRepositories(ApiKeyRepositoryContract):
    """Each, as `conftest.py` opens it."""
