"""What only a store of files does."""

import asyncio
import os
import resource
import shutil
import stat
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from textllm_adapters.filesystem.blob_store import FilesystemBlobStore, open_blob_store
from textllm_core.errors import ConfigurationError, FileTooLargeError, StorageUnavailableError

MIB = 1024 * 1024


@pytest.fixture
async def store(tmp_path: Path) -> FilesystemBlobStore:
    return await open_blob_store(tmp_path / "new" / "files")


async def pieces(*content: bytes) -> AsyncIterator[bytes]:
    for piece in content:
        yield piece


async def read(store: FilesystemBlobStore, key: str) -> bytes:
    return b"".join([piece async for piece in store.get(key)])


def files(store: FilesystemBlobStore) -> list[Path]:
    return [path for path in store.root.rglob("*") if not path.is_dir() or path.is_symlink()]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Writing past `size` fails, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_only_its_owner_may_enter_and_read(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = await open_blob_store(tmp_path / "files")
        await store.put("a/b", pieces(b"x"), max_bytes=1)
    finally:
        os.umask(before)
    folders = {path for path in (store.root, *store.root.rglob("*")) if path.is_dir()}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}
    assert [stat.S_IMODE(path.stat().st_mode) for path in files(store)] == [0o600]


async def test_what_was_put_is_there_when_the_store_is_opened_again(store: FilesystemBlobStore) -> None:
    await store.put("key", pieces(b"kept"), max_bytes=9)
    assert await read(await open_blob_store(store.root), "key") == b"kept"


async def test_a_deleted_key_leaves_no_file(store: FilesystemBlobStore) -> None:
    await store.put("a/b/c", pieces(b"x"), max_bytes=1)
    await store.delete("a/b/c")
    assert files(store) == []


async def test_a_put_that_is_refused_or_fails_leaves_no_file(store: FilesystemBlobStore) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield bytes(MIB)
        raise RuntimeError

    with pytest.raises(FileTooLargeError):
        await store.put("key", pieces(b"12345", b"67890"), max_bytes=9)
    with pytest.raises(RuntimeError):
        await store.put("key", failing(), max_bytes=2 * MIB)
    assert files(store) == []
    await store.put("key", pieces(b"x"), max_bytes=1)
    with pytest.raises(ValueError, match="taken"):
        await store.put("key", pieces(b"y"), max_bytes=1)
    assert len(files(store)) == 1


async def test_a_put_cancelled_at_any_moment_leaves_all_or_nothing(store: FilesystemBlobStore) -> None:
    for steps in range(300):
        put = asyncio.create_task(store.put("key", pieces(b"one", b"two"), max_bytes=6))
        for _ in range(steps):
            await asyncio.sleep(0)
        put.cancel()
        await asyncio.sleep(0)
        put.cancel()  # once more, while it cleans up
        try:
            await put
        except asyncio.CancelledError:
            assert files(store) == []
        else:
            assert await read(store, "key") == b"onetwo"
            await store.delete("key")


async def test_a_disk_that_takes_no_more_is_an_unavailable_storage(store: FilesystemBlobStore) -> None:
    with files_of_at_most(MIB), pytest.raises(StorageUnavailableError) as failure:
        await store.put("key", pieces(*[bytes(100_000)] * 20), max_bytes=4 * MIB)
    assert str(store.root) not in str(failure.value)
    assert files(store) == []


async def test_a_vanished_directory_is_an_unavailable_storage_not_a_missing_file(store: FilesystemBlobStore) -> None:
    await store.put("key", pieces(b"x"), max_bytes=1)
    shutil.rmtree(store.root)
    for call in (
        store.put("new", pieces(b"x"), max_bytes=1),
        store.size("key"),
        store.delete("key"),
        read(store, "key"),
    ):
        with pytest.raises(StorageUnavailableError) as failure:
            await call
        assert str(store.root) not in str(failure.value)


async def test_a_link_in_the_place_of_a_file_is_never_followed(store: FilesystemBlobStore, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    await store.put("key", pieces(b"x"), max_bytes=1)
    (file,) = files(store)
    file.unlink()
    file.symlink_to(secret)
    with pytest.raises(StorageUnavailableError):
        await read(store, "key")
    with pytest.raises(StorageUnavailableError):
        await store.size("key")
    with pytest.raises(ValueError, match="taken"):
        await store.put("key", pieces(b"x"), max_bytes=1)
    await store.delete("key")
    assert files(store) == []
    assert secret.read_bytes() == b"secret"


async def test_a_directory_that_cannot_be_used_is_a_wrong_configuration(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=str(tmp_path / "file")):
        await open_blob_store(tmp_path / "file")


async def test_opening_removes_what_a_killed_process_left(store: FilesystemBlobStore) -> None:
    putting = """
import asyncio, pathlib, sys
from textllm_adapters.filesystem.blob_store import open_blob_store

async def stalling():
    yield bytes(100_000)
    print("stored some", flush=True)
    await asyncio.sleep(60)

async def main():
    store = await open_blob_store(pathlib.Path(sys.argv[1]))
    await store.put("key", stalling(), max_bytes=200_000)

asyncio.run(main())
"""
    command = [sys.executable, "-c", putting, str(store.root)]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout
    assert await process.stdout.readline() == b"stored some\n"
    process.kill()
    await process.wait()
    assert len(files(store)) == 1
    await open_blob_store(store.root)
    assert files(store) == []


async def test_opening_spares_what_is_being_put(store: FilesystemBlobStore) -> None:
    async def opening() -> AsyncIterator[bytes]:
        yield b"one "
        await open_blob_store(store.root)
        yield b"two"

    await store.put("key", opening(), max_bytes=7)
    assert await read(store, "key") == b"one two"


async def test_memory_stays_flat_whatever_the_size(store: FilesystemBlobStore) -> None:
    async def content() -> AsyncIterator[bytes]:
        for number in range(200):
            yield bytes([number]) * MIB

    tracemalloc.start()
    try:
        stored = await store.put("key", content(), max_bytes=200 * MIB)
        received = 0
        async for piece in store.get("key"):
            received += len(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert stored.size == received == 200 * MIB
    assert peak < 8 * MIB
    await store.delete("key")
