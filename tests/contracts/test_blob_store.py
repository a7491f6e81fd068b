"""Every store that ships keeps the port `BlobStore`."""

from pathlib import Path

import pytest

from textllm_adapters.filesystem.blob_store import open_blob_store
from textllm_adapters.memory.blob_store import MemoryBlobStore
from textllm_adapters.testing import BlobStoreContract
from textllm_core.ports.blob_store import BlobStore


class TestBlobStores(BlobStoreContract):
    """All of them, each empty."""

    @pytest.fixture
    def memory_store(self) -> BlobStore:
        return MemoryBlobStore()

    @pytest.fixture
    async def filesystem_store(self, tmp_path: Path) -> BlobStore:
        return await open_blob_store(tmp_path / "files")

    @pytest.fixture(params=["memory", "filesystem", "s3", pytest.param("swift", marks=pytest.mark.swift)])
    def store(self, request: pytest.FixtureRequest) -> BlobStore:
        chosen: BlobStore = request.getfixturevalue(f"{request.param}_store")
        return chosen

    @pytest.mark.parametrize("store", ["memory", "filesystem", "s3"], indirect=True)  # Swift lets several through
    async def test_of_many_puts_under_one_key_one_is_kept(self, store: BlobStore) -> None:
        await super().test_of_many_puts_under_one_key_one_is_kept(store)
