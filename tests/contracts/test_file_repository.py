"""Every repository of files that ships keeps the port `FileRepository`."""

import pytest

from textllm_adapters.testing import FileRepositoryContract
from textllm_adapters.testing.storage import Storage
from textllm_core.ports.file_repository import FileRepository


class TestFileRepositories(FileRepositoryContract):
    """Each, as `conftest.py` opens it."""

    @pytest.fixture
    def files(self, storage: Storage) -> FileRepository:
        return storage.files
