"""What every store keeps of the port `BlobStore`."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from textllm_core.errors import FileTooLargeError, StoredFileNotFoundError
from textllm_core.ports.blob_store import BlobStore, StoredBlob

MIB = 1024 * 1024

KEY = "LLM/uploads/ann/20260102_030405_1a2b3c4d_notes.txt"

NOT_KEYS = [
    *("", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/..", "a/../b", "a/./b"),
    *("a\0b", "a\nb", "a\x7f", "a\x85", "\ud800", "a" * 1025, "é" * 513),
]


async def pieces(*content: bytes) -> AsyncIterator[bytes]:
    for piece in content:
        yield piece


async def read(store: BlobStore, key: str, *, first: int = 0, last: int | None = None) -> bytes:
    return b"".join([piece async for piece in store.get(key, first=first, last=last)])


async def assert_nothing_stored(store: BlobStore, key: str) -> None:
    with pytest.raises(StoredFileNotFoundError):
        await store.size(key)
    with pytest.raises(StoredFileNotFoundError):
        await read(store, key)


class BlobStoreContract:
    """What every store keeps of the port `BlobStore`.

    Fixture `store`: an empty one, of this test alone.
    """

    pytestmark = pytest.mark.asyncio

    async def test_what_was_put_can_be_read(self, store: BlobStore) -> None:
        stored = await store.put(KEY, pieces(b"one ", b"", b"two"), max_bytes=100)
        assert stored == StoredBlob(size=7, sha256=hashlib.sha256(b"one two").hexdigest())
        assert await read(store, KEY) == b"one two"
        assert await store.size(KEY) == 7

    async def test_no_bytes_are_stored_like_any_others(self, store: BlobStore) -> None:
        stored = await store.put(KEY, pieces(), max_bytes=0)
        assert stored == StoredBlob(size=0, sha256=hashlib.sha256().hexdigest())
        assert await store.size(KEY) == 0
        assert await read(store, KEY) == b""
        assert await read(store, KEY, first=0, last=5) == b""

    async def test_long_content_comes_in_pieces_of_at_most_a_mebibyte(self, store: BlobStore) -> None:
        content = bytes(range(256)) * (10 * 1024) + b"the end"
        await store.put(KEY, pieces(content), max_bytes=len(content))
        received = [piece async for piece in store.get(KEY)]
        assert b"".join(received) == content
        assert all(0 < len(piece) <= MIB for piece in received)
        assert await read(store, KEY, first=MIB - 1, last=2 * MIB) == content[MIB - 1 : 2 * MIB + 1]

    async def test_a_range_holds_its_first_and_its_last_byte(self, store: BlobStore) -> None:
        await store.put(KEY, pieces(b"01234", b"56789"), max_bytes=10)
        within = [
            (0, 0, b"0"),
            (2, 4, b"234"),
            (9, 9, b"9"),
            (7, None, b"789"),
            (0, 9, b"0123456789"),
            (8, 10**12, b"89"),
        ]
        beyond = [(10, None, b""), (99, 100, b""), (5, 4, b"")]
        for first, last, expected in within + beyond:
            assert await read(store, KEY, first=first, last=last) == expected

    async def test_a_reader_may_stop_early(self, store: BlobStore) -> None:
        await store.put(KEY, pieces(bytes(3 * MIB)), max_bytes=3 * MIB)
        content = store.get(KEY)
        assert set(await anext(content)) == {0}
        await content.aclose()
        assert await store.size(KEY) == 3 * MIB

    async def test_nothing_is_found_under_a_key_that_was_never_put(self, store: BlobStore) -> None:
        for key in (KEY, "never/was", "../etc/passwd", *NOT_KEYS):
            await assert_nothing_stored(store, key)
            await store.delete(key)

    async def test_a_deleted_key_holds_nothing_and_is_free_again(self, store: BlobStore) -> None:
        await store.put(KEY, pieces(b"old"), max_bytes=9)
        await store.put("other", pieces(b"other"), max_bytes=9)
        await store.delete(KEY)
        await assert_nothing_stored(store, KEY)
        assert await read(store, "other") == b"other"
        await store.put(KEY, pieces(b"new"), max_bytes=9)
        assert await read(store, KEY) == b"new"

    async def test_a_taken_key_is_refused_and_keeps_its_bytes(self, store: BlobStore) -> None:
        await store.put(KEY, pieces(b"first"), max_bytes=9)
        with pytest.raises(ValueError):  # noqa: PT011 - the words are the store's own
            await store.put(KEY, pieces(b"second"), max_bytes=9)
        assert await read(store, KEY) == b"first"

    async def test_a_taken_key_is_refused_and_keeps_its_bytes_however_long_the_content(self, store: BlobStore) -> None:
        await store.put(KEY, pieces(*[b"1" * MIB] * 6), max_bytes=6 * MIB)
        with pytest.raises(ValueError):  # noqa: PT011 - the words are the store's own
            await store.put(KEY, pieces(*[b"2" * MIB] * 6), max_bytes=6 * MIB)
        assert await read(store, KEY, last=9) == b"1" * 10

    @pytest.mark.parametrize("size", [5 * MIB - 1, 5 * MIB, 5 * MIB + 1, 10 * MIB])
    async def test_content_of_any_length_is_stored_as_it_came(self, store: BlobStore, size: int) -> None:
        content = (bytes(range(251)) * (size // 251 + 1))[:size]
        stored = await store.put(KEY, pieces(content[:7], content[7:]), max_bytes=size)
        assert stored == StoredBlob(size=size, sha256=hashlib.sha256(content).hexdigest())
        assert await read(store, KEY) == content

    async def test_of_many_puts_under_one_key_one_is_kept(self, store: BlobStore) -> None:
        contents = [bytes([number]) * 1000 for number in range(8)]
        puts = [store.put(KEY, pieces(content), max_bytes=1000) for content in contents]
        outcomes = await asyncio.gather(*puts, return_exceptions=True)
        kept = [
            content
            for content, outcome in zip(contents, outcomes, strict=True)
            if not isinstance(outcome, BaseException)
        ]
        assert kept == [await read(store, KEY)]
        assert [type(outcome) for outcome in outcomes].count(ValueError) == 7

    async def test_content_may_have_exactly_as_many_bytes_as_allowed(self, store: BlobStore) -> None:
        assert (await store.put(KEY, pieces(b"abc", b"de"), max_bytes=5)).size == 5

    async def test_more_bytes_than_allowed_are_refused_before_the_content_ends(self, store: BlobStore) -> None:
        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield b"abc"

        with pytest.raises(FileTooLargeError) as refusal:
            await store.put(KEY, endless(), max_bytes=10)
        assert refusal.value.limit == 10
        await assert_nothing_stored(store, KEY)

    @pytest.mark.parametrize("failure", [ConnectionResetError("client left"), RuntimeError("parser broke")])
    async def test_a_failure_of_the_content_passes_as_it_is_and_nothing_is_stored(
        self, store: BlobStore, failure: Exception
    ) -> None:
        async def failing() -> AsyncIterator[bytes]:
            yield b"some"
            raise failure

        with pytest.raises(type(failure)) as caught:
            await store.put(KEY, failing(), max_bytes=100)
        assert caught.value is failure
        await assert_nothing_stored(store, KEY)
        await store.put(KEY, pieces(b"again"), max_bytes=100)

    async def test_a_cancelled_put_stores_nothing(self, store: BlobStore) -> None:
        waiting = asyncio.Event()

        async def stalling() -> AsyncIterator[bytes]:
            yield b"some"
            waiting.set()
            await asyncio.Event().wait()

        put = asyncio.create_task(store.put(KEY, stalling(), max_bytes=100))
        await waiting.wait()
        put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await put
        await assert_nothing_stored(store, KEY)

    async def test_what_is_no_key_is_refused(self, store: BlobStore) -> None:
        for key in NOT_KEYS:
            with pytest.raises(ValueError):  # noqa: PT011 - the words are the store's own
                await store.put(key, pieces(b"x"), max_bytes=1)

    async def test_a_sweep_leaves_what_is_stored(self, store: BlobStore) -> None:
        await store.put(KEY, pieces(b"short"), max_bytes=9)
        await store.put("long", pieces(*[bytes(MIB)] * 6), max_bytes=6 * MIB)
        assert await store.sweep(before=datetime.now(UTC) + timedelta(days=1)) == 0
        assert await read(store, KEY) == b"short"
        assert await store.size("long") == 6 * MIB

    async def test_keys_that_look_alike_are_different_keys(self, store: BlobStore) -> None:
        keys = [
            *(
                "a",
                "A",
                "a/b",
                "a/b/c",
                "a\\b",
                "a%2Fb",
                "...",
                "..a",
                "a.",
                " ",
                "~",
                "-",
                "*",
                "C:",
                "nul",
                "日本/語.txt",
            ),
            *("é", "e\u0301", "x" * 1024, "x" * 1023, "é" * 512, "/".join(["y"] * 512)),
        ]
        for key in keys:
            await store.put(key, pieces(key.encode()), max_bytes=1024)
        assert [await read(store, key) for key in keys] == [key.encode() for key in keys]
