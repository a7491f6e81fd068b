"""Downloads of what the storage has lost or damaged, and of what the client no longer means."""

import hashlib
from pathlib import Path

import pytest
from tests.http.conftest import Answer, Server, serving
from tests.unit.conftest import Bench

from textllm_adapters.memory.blob_store import MemoryBlobStore
from textllm_core.uploads import Upload

CONTENT = b"0123456789"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


async def upload(server: Server, content: bytes = CONTENT) -> Answer:
    head = b'--bnd\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
    form = {"content-type": "multipart/form-data; boundary=bnd", "host": "files.example.org"}
    return await server.call("POST", "/files/upload", [head + content + b"\r\n--bnd--\r\n"], headers=form)


class WarpedBlobStore(MemoryBlobStore):
    """What it holds was exchanged behind our back."""

    async def hold(self, key: str, content: bytes | None) -> None:
        await self.delete(key)
        if content is not None:
            await self.put(key, Upload.of_bytes("", content).read(), max_bytes=len(content))


@pytest.mark.parametrize(
    ("content", "held", "asked", "status", "code"),
    [
        (CONTENT, None, {}, 404, "file_not_found"),
        (b"", None, {}, 404, "file_not_found"),
        (CONTENT, CONTENT[:4], {"range": "bytes=7-"}, 503, "storage_unavailable"),
        (CONTENT, b"", {}, 503, "storage_unavailable"),
        (CONTENT, CONTENT + b"!", {}, 503, "storage_unavailable"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_file_that_the_storage_has_lost_or_damaged_is_told_as_such(
    tmp_path: Path, method: str, content: bytes, held: bytes | None, asked: dict[str, str], status: int, code: str
) -> None:
    blobs = WarpedBlobStore()
    async with serving(Bench(blobs=blobs), spool_dir=tmp_path / "spool") as server:
        key = (await upload(server, content)).json()["key"]
        await blobs.hold(key, held)
        answer = await server.call(method, f"/files/{key}/content", headers=asked)
        assert answer.status == status
        assert method == "HEAD" or answer.json()["code"] == code


async def test_a_download_that_the_storage_has_cut_is_not_whole(tmp_path: Path) -> None:
    blobs = WarpedBlobStore()
    async with serving(Bench(blobs=blobs), spool_dir=tmp_path / "spool") as server:
        key = (await upload(server)).json()["key"]
        await blobs.hold(key, CONTENT[:4])
        answer = await server.get(f"/files/{key}/content")
        assert (answer.status, answer.body, answer.is_complete) == (200, CONTENT[:4], False)


@pytest.mark.parametrize(
    ("if_match", "status"),
    [("*", 200), (f'"x", "{SHA256}"', 200), ('"x"', 412), (f'W/"{SHA256}"', 412), ("", 412)],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_only_the_file_that_a_client_means_is_sent(
    server: Server, method: str, if_match: str, status: int
) -> None:
    key = (await upload(server)).json()["key"]
    headers = {"if-match": if_match, "if-none-match": '"other"', "range": "bytes=0-3"}
    answer = await server.call(method, f"/files/{key}/content", headers=headers)
    assert answer.status == (206 if status == 200 else status)
