"""A service that answers what no S3 should: it is told as an outage, soon, and costs neither memory nor files."""

import asyncio
import logging
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.servers.s3 import S3Server, open_bucket
from tests.unit.conftest import Bench

from textllm_adapters.s3.blob_store import S3BlobStore
from textllm_core.errors import ConfigurationError, StorageUnavailableError, StoredFileNotFoundError
from textllm_core.tenancy import Caller
from textllm_core.uploads import Upload

MIB = 1024 * 1024
KEPT, NEW = "LLM/kept", "LLM/new"
TOMORROW = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture
async def server(s3_server: S3Server) -> AsyncIterator[S3Server]:
    """The server, to answer anything until the test ends."""
    yield s3_server
    s3_server.recover()


@pytest.fixture
async def store(server: S3Server) -> AsyncIterator[S3BlobStore]:
    """An impatient store, which holds one blob and an upload that was left."""
    bucket = server.create_bucket()
    async with open_bucket(server, bucket, timeout_s=2) as store:
        await put(store, 3, KEPT)
        await store.client.create_multipart_upload(Bucket=bucket, Key="LLM/left")
        yield store
    server.delete_bucket(bucket)


async def put(store: S3BlobStore, size: int, key: str = NEW) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, size, MIB):
            yield b"x" * min(MIB, size - start)

    await store.put(key, pieces(), max_bytes=size)


async def read(store: S3BlobStore) -> bytes:
    return b"".join([piece async for piece in store.get(KEPT)])


# What is asked, by the method and a part of the query of the request behind it.
WORK: dict[tuple[str, str], Callable[[S3BlobStore], Awaitable[Any]]] = {
    ("PUT", ""): lambda store: put(store, 1),
    ("POST", "uploads"): lambda store: put(store, 6 * MIB),
    ("PUT", "partNumber"): lambda store: put(store, 6 * MIB),
    ("POST", "uploadId"): lambda store: put(store, 6 * MIB),
    ("GET", ""): read,
    ("HEAD", ""): lambda store: store.size(KEPT),
    ("DELETE", ""): lambda store: store.delete(KEPT),
    ("DELETE", "uploadId"): lambda store: store.sweep(before=TOMORROW),
    ("GET", "uploads"): lambda store: store.sweep(before=TOMORROW),
}
STORING = [asked for asked in WORK if asked[0] in {"PUT", "POST"}]


def error(code: str) -> str:
    return f"<Error><Code>{code}</Code><Message>canary</Message></Error>"


REFUSALS = [(400, error("ExpiredToken")), (400, "<not xml"), (403, error("AccessDenied")), (405, "")]


@pytest.mark.parametrize("asked", WORK, ids="-".join)
async def test_a_refusal_of_any_kind_is_an_outage_that_names_nothing(
    server: S3Server, store: S3BlobStore, asked: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="textllm")
    for status, body in REFUSALS:
        caplog.clear()
        server.answer(status, "" if asked[0] == "HEAD" else body, method=asked[0], query=asked[1])
        with pytest.raises(StorageUnavailableError) as failure:
            await WORK[asked](store)
        assert f"S3 answers {status}" in caplog.text, "an operator can find out why"
        for secret in ("canary", server.url, server.secret_key, store.bucket, "LLM/"):
            assert secret not in f"{failure.value} {caplog.text}"
        server.recover()
        assert await read(store) == b"xxx"


@pytest.mark.parametrize("asked", WORK, ids="-".join)
async def test_a_redirect_to_nowhere_is_an_outage(server: S3Server, store: S3BlobStore, asked: tuple[str, str]) -> None:
    server.answer(302)
    with pytest.raises(StorageUnavailableError):
        await WORK[asked](store)


async def test_a_redirect_at_the_start_is_a_wrong_configuration(server: S3Server, store: S3BlobStore) -> None:
    server.answer(301)
    with pytest.raises(ConfigurationError, match="S3_ENDPOINT"):
        async with open_bucket(server, store.bucket):
            raise AssertionError("it opened")


@pytest.mark.parametrize("body", ["", "<html/>", error("InternalError")])
@pytest.mark.parametrize("asked", STORING, ids="-".join)
async def test_nothing_is_stored_where_a_success_says_nothing_of_it(
    server: S3Server, store: S3BlobStore, asked: tuple[str, str], body: str
) -> None:
    server.answer(200, body, method=asked[0], query=asked[1])
    with pytest.raises(StorageUnavailableError):
        await WORK[asked](store)
    server.recover()
    with pytest.raises(StoredFileNotFoundError):
        await store.size(NEW)


@pytest.mark.parametrize("body", ["", "default backend - 404", "<html/>"])
async def test_a_404_of_somebody_else_says_nothing_about_a_file(
    server: S3Server, store: S3BlobStore, body: str
) -> None:
    server.answer(404, body, method="GET")
    with pytest.raises(StorageUnavailableError):
        await read(store)


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("asked", [("PUT", ""), ("POST", "uploadId"), ("GET", "uploads")], ids="-".join)
async def test_an_answer_without_end_takes_no_memory(
    server: S3Server, store: S3BlobStore, asked: tuple[str, str], status: int
) -> None:
    before = peak()
    server.answer(status, "x" * MIB, method=asked[0], query=asked[1], repeat=300)
    with pytest.raises(StorageUnavailableError):
        await WORK[asked](store)
    assert peak() - before < 100 * MIB


async def test_a_list_that_drips_is_given_up(server: S3Server, store: S3BlobStore) -> None:
    server.answer(200, "x", method="GET", query="uploads", repeat=1000, pause_s=0.5)
    async with asyncio.timeout(60):
        with pytest.raises(StorageUnavailableError):
            await store.sweep(before=TOMORROW)


async def test_what_is_stored_after_it_was_given_up_is_swept(server: S3Server, s3_store: S3BlobStore) -> None:
    async with open_bucket(server, s3_store.bucket, timeout_s=1) as store:
        bench = Bench(blobs=store)
        server.fail(0, method="PUT", after=True)  # it does what it is asked once it has recovered
        with pytest.raises(StorageUnavailableError):
            await bench.files.upload(Caller(), Upload.of_bytes("a.txt", b"late"), user_id="ann")
        server.recover()
        async with asyncio.timeout(60):
            while not await keys(store):  # noqa: ASYNC110 - the server is another process
                await asyncio.sleep(0.05)
        bench.clock.advance(timedelta(minutes=61))
        assert await bench.files.sweep() == 1
        assert await keys(store) == []
        assert bench.store.files == {}


async def test_in_an_outage_nobody_waits_for_all_those_before(server: S3Server, s3_store: S3BlobStore) -> None:
    async with asyncio.timeout(60), open_bucket(server, s3_store.bucket, timeout_s=0.5) as store:
        never = asyncio.Event()

        async def silence() -> AsyncIterator[bytes]:
            await never.wait()
            yield b""

        slow = [asyncio.create_task(store.put(f"LLM/{n}", silence(), max_bytes=1)) for n in range(8)]
        await asyncio.sleep(0)
        with pytest.raises(StorageUnavailableError):
            await put(store, 1)
        never.set()
        await asyncio.gather(*slow)
        await put(store, 1)


async def keys(store: S3BlobStore) -> list[str]:
    listed = await store.client.list_objects_v2(Bucket=store.bucket)
    return [found["Key"] for found in listed.get("Contents", ())]


def peak() -> int:
    """The most memory that this process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
