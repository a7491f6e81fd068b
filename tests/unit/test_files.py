"""Files are kept whole or not at all, shown to their owners alone, and leave nothing behind."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from msgspec.structs import replace
from tests.unit.conftest import Bench

from textllm_adapters.memory.application import SCRIPTED_FILE_POLICY
from textllm_adapters.memory.blob_store import MemoryBlobStore
from textllm_core import Caller
from textllm_core.cancellation import carried_through
from textllm_core.errors import (
    FileTooLargeError,
    InvalidRequestError,
    NotFoundError,
    RateLimitedError,
    StorageQuotaExceededError,
    StorageUnavailableError,
    StoredFileNotFoundError,
)
from textllm_core.ports.blob_store import StoredBlob
from textllm_core.records.files import StoredFile
from textllm_core.uploads import Upload

ANN = Caller(role="user", user_id="ann")
BOB = Caller(role="user", user_id="bob")
SERVICE = Caller()
OTHER_TENANT = Caller(tenant_id="other")


@dataclass(frozen=True)
class FrailBlobStore(MemoryBlobStore):
    """A blob store that can be away, and keep what it is to delete; `meanwhile` happens before each deletion."""

    away: set[str] = field(default_factory=set)
    undeletable: set[str] = field(default_factory=set)
    meanwhile: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    async def put(self, key: str, content: AsyncIterator[bytes], *, max_bytes: int) -> StoredBlob:
        stored = await super().put(key, content, max_bytes=max_bytes)
        if "put" in self.away:
            raise StorageUnavailableError
        return stored

    async def delete(self, key: str) -> None:
        for happening in self.meanwhile:
            await happening()
        if "delete" in self.away or key in self.undeletable:
            raise StorageUnavailableError
        await super().delete(key)


@pytest.fixture
def blobs() -> FrailBlobStore:
    return FrailBlobStore()


@pytest.fixture
def bench(blobs: FrailBlobStore) -> Bench:
    return Bench(blobs=blobs)


async def keep(bench: Bench, content: bytes = b"hello", name: str = "a.txt", caller: Caller = ANN) -> StoredFile:
    bench.clock.advance(timedelta(seconds=1))
    return await bench.files.upload(caller, Upload.of_bytes(name, content))


async def content_of(bench: Bench, file: StoredFile, **span: int) -> bytes:
    return b"".join([piece async for piece in bench.files.read(file, **span)])


def is_empty(bench: Bench, blobs: FrailBlobStore) -> bool:
    return not bench.store.files and not blobs._blobs


async def test_a_file_is_what_was_sent(bench: Bench) -> None:
    file = await keep(bench, b"%PDF-1.7 ...", "Zeugnis.pdf")
    assert (file.user_id, file.folder, file.name, file.size) == ("ann", "uploads", "Zeugnis.pdf", 12)
    assert file.content_type == "application/pdf"
    assert file.sha256 == hashlib.sha256(b"%PDF-1.7 ...").hexdigest()
    assert file.key.startswith("LLM/uploads/ann/20261122_120001_")
    assert await bench.files.get(ANN, file.key) == file
    assert await content_of(bench, file) == b"%PDF-1.7 ..."
    assert await content_of(bench, file, first=1, last=3) == b"PDF"


@pytest.mark.parametrize("said", [0, 4, 6])
async def test_a_file_that_is_not_as_long_as_it_says_is_refused(bench: Bench, blobs: FrailBlobStore, said: int) -> None:
    with pytest.raises(InvalidRequestError, match="changes while it is read"):
        await bench.files.upload(ANN, Upload("log.txt", said, Upload.of_bytes("log.txt", b"hello").read))
    assert is_empty(bench, blobs)


async def test_a_file_without_a_user_is_a_new_users(bench: Bench) -> None:
    assert (await keep(bench, caller=SERVICE)).user_id.startswith("user_")


async def test_nobody_sees_the_file_of_another(bench: Bench) -> None:
    file = await keep(bench)
    assert await bench.files.get(SERVICE, file.key) == file
    for stranger in (BOB, OTHER_TENANT):
        with pytest.raises(StoredFileNotFoundError):
            await bench.files.get(stranger, file.key)
        with pytest.raises(StoredFileNotFoundError):
            await bench.files.delete(stranger, file.key)
    for caller in (BOB, OTHER_TENANT):
        assert (await bench.files.list(caller)).files == []
    with pytest.raises(NotFoundError):
        await bench.files.list(BOB, user_id="ann")
    with pytest.raises(NotFoundError):
        await bench.files.upload(BOB, Upload.of_bytes("a", b""), user_id="ann")
    with pytest.raises(InvalidRequestError):
        await bench.files.list(BOB, after=file.key)


async def test_a_list_goes_on_where_it_ended(bench: Bench) -> None:
    files = [await keep(bench, str(n).encode()) for n in range(5)][::-1]
    page = await bench.files.list(ANN, limit=2)
    assert (page.files, page.has_more) == (files[:2], True)
    page = await bench.files.list(ANN, limit=3, after=files[1].key)
    assert (page.files, page.has_more) == (files[2:], False)
    assert (await bench.files.list(SERVICE)).files == files
    assert (await bench.files.list(SERVICE, user_id="bob")).files == []


@pytest.mark.parametrize("limit", [0, -1, 1001])
async def test_a_list_of_an_odd_length_is_refused(bench: Bench, limit: int) -> None:
    with pytest.raises(InvalidRequestError):
        await bench.files.list(ANN, limit=limit)


async def test_a_file_or_a_tenant_with_too_much_is_refused(blobs: FrailBlobStore) -> None:
    bench = Bench(blobs=blobs, file_policy=replace(SCRIPTED_FILE_POLICY, max_file_bytes=10, max_tenant_bytes=15))
    with pytest.raises(FileTooLargeError, match="larger than 10 bytes"):
        await keep(bench, bytes(11))
    assert is_empty(bench, blobs)
    file = await keep(bench, bytes(10))
    with pytest.raises(StorageQuotaExceededError, match="15 bytes"):
        await keep(bench, bytes(6), caller=BOB)
    await keep(bench, bytes(5), caller=BOB)
    await bench.files.delete(ANN, file.key)
    await keep(bench, bytes(10))


async def test_a_full_quota_is_told_though_the_storage_is_silent(blobs: FrailBlobStore) -> None:
    answers = asyncio.Event()

    async def silence() -> None:
        await answers.wait()

    bench = Bench(blobs=blobs, file_policy=replace(SCRIPTED_FILE_POLICY, max_tenant_bytes=4))
    blobs.meanwhile.append(silence)
    storing = asyncio.create_task(keep(bench))
    await asyncio.wait([storing], timeout=10)
    is_told = storing.done()
    answers.set()
    with pytest.raises(StorageQuotaExceededError):
        await storing
    assert is_told


async def test_an_upload_that_fails_leaves_nothing(bench: Bench, blobs: FrailBlobStore) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"some"
        raise StorageUnavailableError

    with pytest.raises(StorageUnavailableError):
        await bench.files.upload(ANN, Upload("a", 9, broken))
    assert is_empty(bench, blobs)
    blobs.away.add("put")
    with pytest.raises(StorageUnavailableError):
        await keep(bench)
    assert is_empty(bench, blobs)


async def test_a_cancelled_upload_leaves_nothing(bench: Bench, blobs: FrailBlobStore) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        begun.set()
        await asyncio.Event().wait()
        yield b""

    storing = asyncio.create_task(bench.files.upload(ANN, Upload("a", 9, endless)))
    await begun.wait()
    assert (await bench.files.list(ANN)).files == []
    storing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await storing
    assert is_empty(bench, blobs)


async def test_what_an_upload_could_not_take_back_is_swept(bench: Bench, blobs: FrailBlobStore) -> None:
    blobs.away.update({"put", "delete"})
    with pytest.raises(StorageUnavailableError):
        await keep(bench)
    blobs.away.clear()
    assert await bench.files.sweep() == 0
    assert not is_empty(bench, blobs)
    bench.clock.advance(timedelta(hours=1, seconds=1))
    assert await bench.files.sweep() == 1
    assert is_empty(bench, blobs)


@pytest.mark.parametrize("cancellations", [0, 1, 2])
async def test_bytes_that_may_come_yet_are_swept_though_nobody_waits_for_them(cancellations: int) -> None:
    sending, may_fail, undoing, may_undo = [asyncio.Event() for _ in range(4)]

    class SlowBlobStore(FrailBlobStore):
        async def put(self, key: str, content: AsyncIterator[bytes], *, max_bytes: int) -> StoredBlob:  # noqa: ARG002
            try:
                return await carried_through(self._lost())
            except BaseException:
                undoing.set()
                await carried_through(may_undo.wait())
                raise

        async def _lost(self) -> StoredBlob:
            sending.set()
            await may_fail.wait()
            raise StorageUnavailableError(is_in_doubt=True)

    blobs = SlowBlobStore()
    bench = Bench(blobs=blobs)
    storing = asyncio.create_task(keep(bench))
    for number, (stage, end) in enumerate([(sending, may_fail), (undoing, may_undo)]):
        await stage.wait()
        if number < cancellations:
            storing.cancel()
            await asyncio.sleep(0)
        end.set()
    with pytest.raises((StorageUnavailableError, asyncio.CancelledError)):
        await storing
    [(_, _, key)] = bench.store.files
    blobs._blobs[key] = b"hello"  # they have come
    bench.clock.advance(timedelta(hours=2))
    assert await bench.files.sweep() == 1
    assert is_empty(bench, blobs)


async def test_one_that_cannot_be_deleted_holds_up_no_others(bench: Bench, blobs: FrailBlobStore) -> None:
    stuck = [await keep(bench, name=f"{n}.txt") for n in range(150)]
    others = [await keep(bench) for _ in range(2)]
    blobs.away.add("delete")
    for file in [*stuck, *others]:
        with pytest.raises(StorageUnavailableError):
            await bench.files.delete(ANN, file.key)
    blobs.away.clear()
    blobs.undeletable.update(file.key for file in stuck)
    bench.clock.advance(timedelta(hours=2))
    with pytest.raises(StorageUnavailableError):
        await bench.files.sweep()
    assert blobs._blobs.keys() == {key for _, _, key in bench.store.files} == blobs.undeletable
    blobs.undeletable.clear()
    assert await bench.files.sweep() == 150
    assert is_empty(bench, blobs)


async def test_a_sweep_gives_up_where_each_file_takes_the_storage_long(bench: Bench, blobs: FrailBlobStore) -> None:
    async def silence() -> None:
        bench.clock.advance(timedelta(seconds=20))

    files = [await keep(bench) for _ in range(20)]
    blobs.away.add("delete")
    for file in files:
        with pytest.raises(StorageUnavailableError):
            await bench.files.delete(ANN, file.key)
    bench.clock.advance(timedelta(hours=2))
    began = bench.clock.now()
    blobs.meanwhile.append(silence)
    with pytest.raises(StorageUnavailableError):
        await bench.files.sweep()
    assert bench.clock.now() - began < timedelta(minutes=2)


async def test_a_sweep_leaves_what_is_ready(bench: Bench) -> None:
    file = await keep(bench)
    bench.clock.advance(timedelta(days=1000))
    assert await bench.files.sweep() == 0
    assert await content_of(bench, file) == b"hello"


async def test_an_upload_that_took_so_long_that_it_was_swept_is_refused(bench: Bench, blobs: FrailBlobStore) -> None:
    async def slow() -> AsyncIterator[bytes]:
        bench.clock.advance(timedelta(hours=2))
        await bench.files.sweep()
        yield b"x"

    with pytest.raises(StorageUnavailableError):
        await bench.files.upload(ANN, Upload("a", 1, slow))
    assert is_empty(bench, blobs)


async def test_an_upload_that_ends_while_it_is_swept_is_refused(bench: Bench, blobs: FrailBlobStore) -> None:
    has_come, may_end = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        has_come.set()
        await may_end.wait()

    async def ends() -> None:
        blobs.meanwhile.clear()
        may_end.set()
        with pytest.raises(StorageUnavailableError):
            await storing

    storing = asyncio.create_task(bench.files.upload(ANN, Upload("a", 1, slow)))
    await has_come.wait()
    bench.clock.advance(timedelta(hours=2))
    blobs.meanwhile.append(ends)
    assert await bench.files.sweep() == 1
    assert is_empty(bench, blobs)


async def test_a_deleted_file_is_gone(bench: Bench, blobs: FrailBlobStore) -> None:
    file = await keep(bench)
    await bench.files.delete(ANN, file.key)
    assert is_empty(bench, blobs)
    with pytest.raises(StoredFileNotFoundError):
        await bench.files.delete(ANN, file.key)
    with pytest.raises(StoredFileNotFoundError):
        await content_of(bench, file)


async def test_a_deletion_that_failed_is_ended_by_a_repeat_or_a_sweep(bench: Bench, blobs: FrailBlobStore) -> None:
    files = [await keep(bench), await keep(bench)]
    blobs.away.add("delete")
    for file in files:
        with pytest.raises(StorageUnavailableError):
            await bench.files.delete(ANN, file.key)
        with pytest.raises(StoredFileNotFoundError):
            await bench.files.get(ANN, file.key)
    blobs.away.clear()
    await bench.files.delete(ANN, files[0].key)
    bench.clock.advance(timedelta(hours=2))
    assert await bench.files.sweep() == 1
    assert is_empty(bench, blobs)


def parts_of(link: str) -> tuple[str, dict[str, str]]:
    url = urlsplit(link)
    return url.path, {name: values[0] for name, values in parse_qs(url.query).items()}


async def test_an_upload_counts_as_a_turn_of_its_user() -> None:
    bench = Bench(file_policy=replace(SCRIPTED_FILE_POLICY, rate_per_minute=2))
    tea = Upload.of_bytes("a.txt", b"Tea")
    left = await bench.files.admit(SERVICE, "ann")
    await bench.files.upload(SERVICE, tea, user_id="ann", allowance=left)
    await bench.files.upload(ANN, tea)
    with pytest.raises(RateLimitedError):
        await bench.files.upload(SERVICE, tea, user_id="ann")
    assert len((await bench.files.list(ANN)).files) == 2
    await bench.files.upload(SERVICE, tea, user_id="bob")


async def test_an_upload_for_which_nobody_is_named_counts_for_its_caller() -> None:
    bench = Bench(file_policy=replace(SCRIPTED_FILE_POLICY, rate_per_minute=2))
    tea = Upload.of_bytes("a.txt", b"Tea")
    kept = [await bench.files.upload(SERVICE, tea) for _ in range(2)]
    assert kept[0].user_id != kept[1].user_id
    for user_id in (None, kept[0].user_id):
        with pytest.raises(RateLimitedError):
            await bench.files.upload(SERVICE, tea, user_id=user_id)
    await bench.files.upload(replace(SERVICE, id="key_other"), tea)


async def test_nobody_reads_from_a_log_what_links_are_signed_with(bench: Bench) -> None:
    assert "scripted" in str(bench.files.link.secret)
    assert "scripted" not in repr(bench.files)


async def test_a_link_opens_its_file_until_it_expires(bench: Bench) -> None:
    file = await keep(bench)
    path, query = parts_of(await bench.files.link(ANN, file))
    assert path == f"/files/{file.key}/content"
    claim = {"tenant_id": query["tenant"], "expires": int(query["expires"]), "signature": query["signature"]}
    opened = bench.files.link.opened
    assert await opened(file.key, **claim) == file  # type: ignore[arg-type]
    other = await keep(bench)
    forgeries = [
        (other.key, claim),
        (file.key, claim | {"expires": int(query["expires"]) + 1}),
        (file.key, claim | {"tenant_id": "other"}),
        (file.key, claim | {"signature": ""}),
        (file.key, claim | {"signature": "\ud800é"}),
        (file.key, claim | {"signature": query["signature"].upper() + "0"}),
    ]
    for key, forged in forgeries:
        with pytest.raises(StoredFileNotFoundError):
            await opened(key, **forged)  # type: ignore[arg-type]
    bench.clock.advance(timedelta(days=1))
    with pytest.raises(StoredFileNotFoundError, match="expired"):
        await opened(file.key, **claim)  # type: ignore[arg-type]


async def test_a_link_to_a_deleted_file_opens_nothing(bench: Bench) -> None:
    file = await keep(bench)
    _, query = parts_of(await bench.files.link(ANN, file))
    await bench.files.delete(ANN, file.key)
    with pytest.raises(StoredFileNotFoundError):
        await bench.files.link.opened(
            file.key, tenant_id=query["tenant"], expires=int(query["expires"]), signature=query["signature"]
        )
