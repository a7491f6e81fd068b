"""What only a store in a bucket does."""

import asyncio
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.servers.s3 import S3Server, open_bucket
from tests.servers.swift import SwiftServer

from textllm_adapters.s3.blob_store import S3BlobStore, open_blob_store
from textllm_adapters.s3.health_probe import S3HealthProbe
from textllm_core.errors import ConfigurationError, FileTooLargeError, StorageUnavailableError, StoredFileNotFoundError

MIB = 1024 * 1024
KEY = "LLM/uploads/ann/20260102_030405_1a2b3c4d_notes.txt"
LONG = 12 * MIB
TOMORROW = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture
def failing_server(s3_server: S3Server) -> Iterator[S3Server]:
    """The server, to fail at will until the test ends."""
    yield s3_server
    s3_server.start()
    s3_server.recover()


async def pieces(size: int) -> AsyncIterator[bytes]:
    for start in range(0, size, MIB):
        yield b"x" * min(MIB, size - start)


async def put(store: S3BlobStore, size: int, key: str = KEY) -> None:
    await store.put(key, pieces(size), max_bytes=size)


async def read(store: S3BlobStore, key: str = KEY) -> bytes:
    return b"".join([piece async for piece in store.get(key)])


async def link(store: S3BlobStore, key: str = KEY, *, name: str = "notes.txt", expires_in_s: int = 60) -> str:
    url = await store.link(key, expires_in_s=expires_in_s, name=name, media_type="text/plain")
    assert url is not None
    return url


async def opened(url: str) -> tuple[int, bytes, str, str]:
    """Status, body, disposition and media type of what plain HTTP gets there."""

    def get() -> tuple[int, bytes, str, str]:
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                headers = answer.headers
                return answer.status, answer.read(), headers["Content-Disposition"], headers["Content-Type"]
        except urllib.error.HTTPError as refusal:
            refusal.close()
            return refusal.code, b"", "", ""

    return await asyncio.to_thread(get)


async def unfinished(store: S3BlobStore) -> int:
    answer: dict[str, Any] = await store.client.list_multipart_uploads(Bucket=store.bucket)
    return len(answer.get("Uploads", ()))


async def assert_nothing_is_left(store: S3BlobStore) -> None:
    assert await unfinished(store) == 0
    with pytest.raises(StoredFileNotFoundError):
        await store.size(KEY)


@pytest.mark.parametrize("before_it_stalls", [1, 6 * MIB, 11 * MIB])
async def test_a_cancelled_put_leaves_nothing(s3_store: S3BlobStore, before_it_stalls: int) -> None:
    stalled = asyncio.Event()

    async def content() -> AsyncIterator[bytes]:
        async for piece in pieces(before_it_stalls):
            yield piece
        stalled.set()
        await asyncio.Event().wait()

    putting = asyncio.create_task(s3_store.put(KEY, content(), max_bytes=LONG))
    await stalled.wait()
    putting.cancel()
    await asyncio.sleep(0)
    putting.cancel()  # once more, while it cleans up
    with pytest.raises(asyncio.CancelledError):
        await putting
    await assert_nothing_is_left(s3_store)


@pytest.mark.parametrize("size", [1, 6 * MIB])
async def test_a_put_cancelled_at_any_moment_leaves_all_or_nothing(s3_store: S3BlobStore, size: int) -> None:
    for delay_ms in range(0, 60, 6):
        putting = asyncio.create_task(put(s3_store, size))
        await asyncio.sleep(delay_ms / 1000)
        putting.cancel()
        try:
            await putting
        except asyncio.CancelledError:
            await assert_nothing_is_left(s3_store)
        else:
            assert await s3_store.size(KEY) == size
            await s3_store.delete(KEY)


async def test_content_that_is_too_large_leaves_no_part(s3_store: S3BlobStore) -> None:
    with pytest.raises(FileTooLargeError):
        await s3_store.put(KEY, pieces(LONG), max_bytes=LONG - 1)
    await assert_nothing_is_left(s3_store)


@pytest.mark.parametrize("size", [1, LONG])
async def test_what_a_failing_service_answers_is_asked_again(
    failing_server: S3Server, s3_store: S3BlobStore, size: int
) -> None:
    failing_server.fail(503, times=2)
    await put(s3_store, size)
    assert len(await read(s3_store)) == size


@pytest.mark.parametrize("size", [1, LONG])
async def test_a_put_whose_answer_was_lost_has_succeeded(
    failing_server: S3Server, s3_store: S3BlobStore, size: int
) -> None:
    async def content() -> AsyncIterator[bytes]:
        async for piece in pieces(size):
            yield piece
        failing_server.fail(500, times=1, method="PUT" if size == 1 else "POST", after=True)

    stored = await s3_store.put(KEY, content(), max_bytes=size)
    assert stored.size == len(await read(s3_store)) == size


@pytest.mark.parametrize("size", [1, LONG])
async def test_a_put_that_the_service_fails_leaves_nothing(
    failing_server: S3Server, s3_store: S3BlobStore, size: int
) -> None:
    failing_server.fail(500, method="PUT")
    with pytest.raises(StorageUnavailableError):
        await put(s3_store, size)
    failing_server.recover()
    await assert_nothing_is_left(s3_store)


async def test_a_service_that_is_gone_is_unavailable_and_used_again_when_back(
    failing_server: S3Server, s3_store: S3BlobStore
) -> None:
    await put(s3_store, 1)
    failing_server.stop()
    calls: list[Coroutine[Any, Any, object]] = [
        *(put(s3_store, 1, "LLM/other"), put(s3_store, LONG, "LLM/other"), read(s3_store)),
        *(s3_store.size(KEY), s3_store.delete(KEY), s3_store.sweep(before=TOMORROW)),
    ]
    failures = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(failure) for failure in failures] == [StorageUnavailableError] * 6
    assert failing_server.url not in str(failures)
    failing_server.start()
    assert await read(s3_store) == b"x"
    await put(s3_store, LONG, "LLM/back")


async def test_a_service_that_is_silent_is_given_up_and_used_again_when_it_speaks(
    failing_server: S3Server, s3_store: S3BlobStore
) -> None:
    await put(s3_store, 1)
    probe = S3HealthProbe(s3_store)
    async with asyncio.timeout(60), open_bucket(failing_server, s3_store.bucket, timeout_s=1) as impatient:
        failing_server.be_silent()
        calls: list[Coroutine[Any, Any, object]] = [
            put(impatient, 1, "LLM/other"),
            read(impatient),
            impatient.size(KEY),
        ]
        failures = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(failure) for failure in failures] == [StorageUnavailableError] * 3
        assert await probe.check() is not None
    failing_server.recover()
    assert await probe.check() is None
    assert await read(s3_store) == b"x"


async def test_content_that_breaks_off_is_never_taken_for_whole(
    failing_server: S3Server, s3_store: S3BlobStore
) -> None:
    await put(s3_store, LONG)
    failing_server.break_off("GET")
    with pytest.raises(StorageUnavailableError):
        await read(s3_store)
    assert len(await read(s3_store)) == LONG


async def test_a_sweep_undoes_what_dead_puts_left_and_spares_other_prefixes(s3_store: S3BlobStore) -> None:
    for key in (KEY, f"{KEY}2", "others/upload"):
        await s3_store.client.create_multipart_upload(Bucket=s3_store.bucket, Key=key)
    assert await s3_store.sweep(before=TOMORROW) == 2
    assert await s3_store.sweep(before=TOMORROW) == 0
    assert await unfinished(s3_store) == 1


async def test_a_link_opens_by_plain_http_and_says_how_to_save_it(s3_store: S3BlobStore) -> None:
    odd = "LLM/ü/日本 a+b%2F?&#~*'\".txt"
    await put(s3_store, 3, odd)
    status, body, disposition, media_type = await opened(await link(s3_store, odd, name='ü "%\\\r\n.txt'))
    assert (status, body, media_type) == (200, b"xxx", "text/plain")
    assert disposition == "attachment; filename=\"_ _____.txt\"; filename*=UTF-8''%C3%BC%20%22%25%5C%0D%0A.txt"


async def test_who_makes_many_links_lets_others_have_their_turn(s3_store: S3BlobStore) -> None:
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(take_turns())
    for _ in range(20):
        await link(s3_store)
    other.cancel()
    assert turns >= 20


async def test_many_files_at_once_are_all_stored(s3_store: S3BlobStore) -> None:
    keys = [f"LLM/{number}" for number in range(50)]
    await asyncio.gather(*[put(s3_store, 100_000, key) for key in keys])
    assert {await s3_store.size(key) for key in keys} == {100_000}


async def test_a_bucket_that_is_not_there_is_a_wrong_configuration(s3_server: S3Server) -> None:
    with pytest.raises(ConfigurationError, match="S3_BUCKET"):
        async with open_bucket(s3_server, "never-made"):
            raise AssertionError("it opened")


async def test_without_credentials_what_to_set_is_said(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    with pytest.raises(ConfigurationError, match="AWS_ACCESS_KEY_ID"):
        async with open_blob_store(bucket="files", prefix="LLM/", region="us-east-1", endpoint=s3_server.url):
            raise AssertionError("it opened")


async def test_a_store_opens_while_the_service_is_down(failing_server: S3Server) -> None:
    bucket = failing_server.create_bucket()
    failing_server.stop()
    async with open_bucket(failing_server, bucket) as store:
        assert await S3HealthProbe(store).check() is not None
        failing_server.start()
        assert await S3HealthProbe(store).check() is None


@pytest.mark.swift
async def test_wrong_keys_are_a_wrong_configuration_that_names_no_key(swift_server: SwiftServer) -> None:
    with pytest.raises(ConfigurationError, match="AWS_SECRET_ACCESS_KEY") as refusal:
        async with open_bucket(swift_server, swift_server.create_bucket(), secret_key="canary"):
            raise AssertionError("it opened")
    assert "canary" not in str(refusal.value)
    assert swift_server.access_key not in str(refusal.value)


@pytest.mark.swift
async def test_a_link_ends_in_time_and_cannot_be_changed(swift_store: S3BlobStore) -> None:
    for key in (KEY, "LLM/other", "LLM/ü/日本 a+b%2F?&#~*'\".txt"):
        await put(swift_store, 3, key)
        status, body, disposition, media_type = await opened(await link(swift_store, key))
        assert (status, body, media_type) == (200, b"xxx", "text/plain")
        assert disposition == "attachment; filename=\"notes.txt\"; filename*=UTF-8''notes.txt"
    url = await link(swift_store, "LLM/other")
    for changed in (
        url.replace("Signature=", "Signature=0"),
        url.replace("LLM/other", KEY),
        url.replace("Expires=60", "Expires=6000"),
        url.replace("notes", "others"),
        url.partition("?")[0],
    ):
        assert (await opened(changed))[0] in {400, 403}
    short = await link(swift_store, "LLM/other", expires_in_s=1)
    await asyncio.sleep(2.5)
    assert (await opened(short))[0] == 403


@pytest.mark.swift
async def test_a_sweep_goes_through_all_pages_and_leaves_what_is_newer(swift_store: S3BlobStore) -> None:
    keys = [f"LLM/{number}" for number in range(60)] + ["others/upload"]
    for key in keys:
        await swift_store.client.create_multipart_upload(Bucket=swift_store.bucket, Key=key)
    assert await swift_store.sweep(before=datetime.now(UTC) - timedelta(hours=1)) == 0
    assert await swift_store.sweep(before=TOMORROW) == 60
    assert await unfinished(swift_store) == 1


@pytest.mark.swift
async def test_a_cancelled_multipart_put_leaves_nothing_on_disk(swift_store: S3BlobStore) -> None:
    stalled = asyncio.Event()

    async def content() -> AsyncIterator[bytes]:
        async for piece in pieces(11 * MIB):
            yield piece
        stalled.set()
        await asyncio.Event().wait()

    putting = asyncio.create_task(swift_store.put(KEY, content(), max_bytes=LONG))
    await stalled.wait()
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    await assert_nothing_is_left(swift_store)
