"""What every repository of files keeps of the port `FileRepository`."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from textllm_core.errors import StorageQuotaExceededError
from textllm_core.file_names import new_key
from textllm_core.ports.file_repository import FileRepository
from textllm_core.records.files import StoredFile

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def announced(user_id: str = "ann", **fields: Any) -> StoredFile:
    file = StoredFile(
        key=new_key(fields.get("folder", "uploads"), user_id, "notes.txt", NOON),
        user_id=user_id,
        folder="uploads",
        name="Nötes \u202e.txt",
        content_type="application/octet-stream",
        size=5,
        sha256="",
        created_at=NOON,
    )
    return replace(file, **fields)


async def kept(files: FileRepository, user_id: str = "ann", tenant_id: str = "tenant", **fields: Any) -> StoredFile:
    """A file that is ready."""
    file = announced(user_id, **fields)
    await files.announce(tenant_id, file, max_total_bytes=None)
    ready = replace(file, sha256="ab" * 32, content_type="text/plain")
    assert await files.make_ready(tenant_id, ready)
    return ready


async def newest(files: FileRepository, **options: Any) -> list[StoredFile]:
    wanted: dict[str, Any] = {"user_id": "ann", "folder": "uploads", "limit": 10, "after": None} | options
    return list(await files.newest("tenant", **wanted))


class FileRepositoryContract:
    """What every repository of files keeps of the port `FileRepository`.

    Fixture `files`: an empty one, of this test alone.
    """

    pytestmark = pytest.mark.asyncio

    async def test_a_file_is_seen_once_it_is_ready_as_it_was_written_down(self, files: FileRepository) -> None:
        file = announced()
        await files.announce("tenant", file, max_total_bytes=None)
        assert await files.get("tenant", file.key) is None
        assert await newest(files) == []
        assert await files.hide("tenant", file.key, user_id=None) is None
        ready = replace(file, sha256="cd" * 32, content_type="image/png")
        assert await files.make_ready("tenant", ready)
        assert await files.get("tenant", file.key) == ready
        assert await newest(files) == [ready]

    async def test_what_is_not_announced_does_not_become_ready(self, files: FileRepository) -> None:
        file = await kept(files)
        assert not await files.make_ready("tenant", file)
        assert not await files.make_ready("tenant", announced())
        await files.hide("tenant", file.key, user_id=None)
        assert not await files.make_ready("tenant", file)
        assert await files.get("tenant", file.key) is None

    async def test_nobody_sees_or_hides_the_file_of_another(self, files: FileRepository) -> None:
        file = await kept(files)
        assert await files.get("other", file.key) is None
        assert await files.get("tenant", file.key, user_id="bob") is None
        assert await files.get("tenant", file.key, user_id="ann") == file
        assert await files.hide("other", file.key, user_id=None) is None
        assert await files.hide("tenant", file.key, user_id="bob") is None
        await files.forget("other", "ann", file.key)
        await files.forget("tenant", "bob", file.key)
        assert await files.get("tenant", file.key) == file

    async def test_many_files_are_found_at_once_as_each_of_them_is(self, files: FileRepository) -> None:
        anns, bobs, others = await kept(files), await kept(files, "bob"), await kept(files, tenant_id="other")
        await files.announce("tenant", waiting := announced(), max_total_bytes=None)
        await files.hide("tenant", (gone := await kept(files)).key, user_id=None)
        keys = [file.key for file in (bobs, anns, anns, others, waiting, gone)]
        assert await files.find("tenant", [*keys, "", "\0", "\ud800"]) == {anns.key: anns, bobs.key: bobs}
        assert await files.find("tenant", keys, user_id="bob") == {bobs.key: bobs}
        assert await files.find("tenant", []) == {}

    @pytest.mark.parametrize(
        "key", ["", "LLM/uploads/ann/none", "\0", "\ud800", "x" * 5000, "../../etc/passwd", "'; --"]
    )
    async def test_a_key_that_names_nothing_finds_nothing(self, files: FileRepository, key: str) -> None:
        await kept(files)
        assert await files.get("tenant", key) is None
        assert await files.hide("tenant", key, user_id=None) is None
        await files.forget("tenant", "ann", key)

    async def test_a_list_is_of_one_folder_and_user_newest_first(self, files: FileRepository) -> None:
        wanted = [await kept(files, created_at=NOON + timedelta(microseconds=n)) for n in (3, 1, 2, 2)]
        bobs = await kept(files, "bob")
        await kept(files, tenant_id="other")
        await kept(files, folder="documents")
        expected = sorted(wanted, key=lambda file: (file.created_at, file.key), reverse=True)
        assert await newest(files) == expected
        assert await newest(files, limit=3) == expected[:3]
        assert await newest(files, user_id=None) == [*expected, bobs]
        for place, file in enumerate(expected):
            assert await newest(files, after=file) == expected[place + 1 :]

    async def test_a_list_may_be_of_one_purpose_and_oldest_first(self, files: FileRepository) -> None:
        kinds = ("vision", "user_data", "vision", "assistants")
        [first, second, third, last] = [
            await kept(files, created_at=NOON + timedelta(microseconds=n), purpose=kind) for n, kind in enumerate(kinds)
        ]
        assert await newest(files, purpose="vision") == [third, first]
        assert await newest(files, purpose="vision", oldest_first=True, after=first) == [third]
        assert await newest(files, oldest_first=True) == [first, second, third, last]
        assert await newest(files, oldest_first=True, after=second, limit=1) == [third]
        assert (await newest(files))[-1].purpose == "vision"

    async def test_a_hidden_file_is_seen_no_more_and_can_be_hidden_again(self, files: FileRepository) -> None:
        file = await kept(files)
        for user in ("ann", None):
            assert await files.hide("tenant", file.key, user_id=user) == file
        assert await files.get("tenant", file.key) is None
        assert await newest(files) == []
        await files.forget("tenant", "ann", file.key)
        assert await files.hide("tenant", file.key, user_id=None) is None

    async def test_a_quota_holds_for_a_tenant_and_what_is_forgotten_is_given_back_once(
        self, files: FileRepository
    ) -> None:
        first, second = announced(size=60), announced("bob", size=40)
        await files.announce("tenant", first, max_total_bytes=100)
        await files.announce("tenant", second, max_total_bytes=100)
        with pytest.raises(StorageQuotaExceededError) as refused:
            await files.announce("tenant", announced(size=1), max_total_bytes=100)
        assert refused.value.limit == 100
        await files.announce("other", announced(size=100), max_total_bytes=100)
        await files.announce("tenant", announced(size=0), max_total_bytes=100)
        for _ in range(2):
            await files.forget("tenant", "bob", second.key)
        await files.announce("tenant", announced(size=40), max_total_bytes=100)
        with pytest.raises(StorageQuotaExceededError):
            await files.announce("tenant", announced(size=1), max_total_bytes=100)

    async def test_a_file_larger_than_the_quota_is_refused_from_the_start(self, files: FileRepository) -> None:
        with pytest.raises(StorageQuotaExceededError):
            await files.announce("tenant", announced(size=101), max_total_bytes=100)
        await files.announce("tenant", announced(size=100), max_total_bytes=100)

    async def test_announcements_at_once_never_pass_the_quota(self, files: FileRepository) -> None:
        attempts = [files.announce("tenant", announced(size=10), max_total_bytes=55) for _ in range(20)]
        outcomes = await asyncio.gather(*attempts, return_exceptions=True)
        assert outcomes.count(None) == 5
        assert [type(outcome) for outcome in outcomes].count(StorageQuotaExceededError) == 15

    async def test_a_file_that_is_given_up_never_becomes_ready(self, files: FileRepository) -> None:
        await files.announce("tenant", file := announced(), max_total_bytes=None)
        for stranger in (("other", "ann"), ("tenant", "bob")):
            assert not await files.give_up(*stranger, file.key)
        for _ in range(2):
            assert await files.give_up("tenant", "ann", file.key)
        assert not await files.make_ready("tenant", file)
        assert await files.abandoned(NOON + timedelta(seconds=1), limit=9) == [("tenant", file)]
        await files.forget("tenant", "ann", file.key)
        assert not await files.give_up("tenant", "ann", file.key)

    async def test_a_file_that_is_ready_is_not_given_up(self, files: FileRepository) -> None:
        file = await kept(files)
        assert not await files.give_up("tenant", "ann", file.key)
        assert await files.get("tenant", file.key) == file

    async def test_the_abandoned_are_told_page_by_page_oldest_first(self, files: FileRepository) -> None:
        expected = []
        for number, tenant_id in ((2, "other"), (1, "tenant"), (2, "tenant"), (3, "tenant")):
            file = announced(created_at=NOON + timedelta(microseconds=number))
            await files.announce(tenant_id, file, max_total_bytes=None)
            expected.append((tenant_id, file))
        expected.sort(key=lambda each: (each[1].created_at, each[1].key))
        late = NOON + timedelta(seconds=1)
        assert await files.abandoned(late, limit=3) == expected[:3]
        for place, (_, file) in enumerate(expected):
            assert await files.abandoned(late, limit=9, after=file) == expected[place + 1 :]

    async def test_abandoned_are_old_files_of_any_tenant_that_are_not_ready(self, files: FileRepository) -> None:
        hidden = await kept(files)
        await files.hide("tenant", hidden.key, user_id=None)
        half = announced()
        await files.announce("other", half, max_total_bytes=None)
        await kept(files)
        await files.announce("tenant", announced(created_at=NOON + timedelta(seconds=1)), max_total_bytes=None)
        found = await files.abandoned(NOON + timedelta(seconds=1), limit=10)
        assert sorted(found, key=lambda each: each[0]) == [("other", half), ("tenant", hidden)]
        assert len(await files.abandoned(NOON + timedelta(seconds=1), limit=1)) == 1
        assert await files.abandoned(NOON, limit=10) == []
