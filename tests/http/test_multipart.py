"""Forms with files, byte by byte: what is no form is refused, and nothing of it stays anywhere."""

import asyncio
import random
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.http.conftest import Answer, Server, serving
from tests.unit.conftest import Bench

from textllm_adapters.memory.application import SCRIPTED_FILE_POLICY
from textllm_adapters.memory.blob_store import MemoryBlobStore
from textllm_http import multipart, spool

B = b"bnd"
FORM = {"content-type": "multipart/form-data; boundary=bnd"}
MIB = 1024 * 1024


def part(headers: bytes, content: bytes = b"") -> bytes:
    return b"--" + B + b"\r\n" + headers + b"\r\n\r\n" + content + b"\r\n"


def field(name: bytes, content: bytes) -> bytes:
    return part(b'Content-Disposition: form-data; name="' + name + b'"', content)


def file(content: bytes = b"hello", filename: bytes = b"a.txt", name: bytes = b"file") -> bytes:
    head = b'Content-Disposition: form-data; name="' + name + b'"; filename="' + filename + b'"'
    return part(head + b"\r\nContent-Type: text/html", content)


END = b"--" + B + b"--\r\n"


def open_files(folder: Path) -> list[str]:
    """Files of the spool that this process still holds."""
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(descriptor.readlink()))
        except FileNotFoundError:  # the one that lists them
            continue
    return [link for link in links if link.startswith(str(folder))]


class Desk:
    """A server that takes small files, and what it may leave behind."""

    def __init__(self, server: Server, bench: Bench, blobs: MemoryBlobStore, folder: Path) -> None:
        self.server, self.bench, self.blobs, self.folder = server, bench, blobs, folder

    async def send(self, *pieces: bytes, headers: dict[str, str] | None = None, **how: bool) -> Answer:
        return await self.server.call("POST", "/files/upload", pieces, headers=headers or FORM, **how)  # type: ignore[arg-type]

    async def refusal(self, *pieces: bytes, headers: dict[str, str] | None = None, **how: bool) -> tuple[int, str]:
        """Its status and code; and nothing is left."""
        answer = await self.send(*pieces, headers=headers, **how)
        assert answer.headers["content-type"] == "application/problem+json", answer.body
        self.assert_clean()
        assert not self.bench.store.files
        return answer.status, answer.json()["code"]

    def assert_clean(self) -> None:
        assert open_files(self.folder) == []
        assert not self.folder.exists() or list(self.folder.iterdir()) == []
        assert len(self.blobs._blobs) == len(self.bench.store.files)


@asynccontextmanager
async def standing(tmp_path: Path, **chosen: float) -> AsyncIterator[Desk]:
    blobs = MemoryBlobStore()
    bench = Bench(blobs=blobs, file_policy=replace(SCRIPTED_FILE_POLICY, max_file_bytes=2 * MIB))
    async with serving(bench, spool_dir=tmp_path / "spool", **chosen) as server:
        yield Desk(server, bench, blobs, tmp_path / "spool")


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with standing(tmp_path) as desk:
        yield desk


async def test_a_header_may_go_on_in_the_next_line(desk: Desk) -> None:
    answer = await desk.send(part(b'Content-Disposition: form-data;\r\n name="file"; filename="a"', b"x") + END)
    assert answer.status == 201, answer.body
    assert desk.blobs._blobs[answer.json()["key"]] == b"x"


async def test_a_form_may_come_in_any_pieces(desk: Desk) -> None:
    content = bytes(range(256)) * 4 + b"\r\n--bn\r\n--bnx\r\n--"
    body = field(b"user_id", b"ann") + file(content) + END
    for step in (1, 2, 3, 7, len(body)):
        answer = await desk.send(*(body[at : at + step] for at in range(0, len(body), step)))
        assert answer.status == 201, answer.body
        assert desk.blobs._blobs[answer.json()["key"]] == content
    desk.assert_clean()


async def test_a_quote_in_a_name_may_be_written_as_browsers_do(desk: Desk) -> None:
    for written in (b"%22tea%22 100%.txt", b'\\"tea\\" 100%.txt'):
        answer = await desk.send(file(filename=written) + END)
        assert (
            desk.bench.store.files["default", answer.headers["x-user-id"], answer.json()["key"]].file.name
            == '"tea" 100%.txt'
        )


async def test_what_is_spooled_is_stored_byte_by_byte(desk: Desk) -> None:
    content = random.Random(7).randbytes(2 * MIB)
    answer = await desk.send(*(piece for piece in [file(content) + END]))
    assert (answer.status, answer.json()["size"]) == (201, 2 * MIB)
    assert desk.blobs._blobs[answer.json()["key"]] == content
    assert (desk.folder.stat().st_mode & 0o777) == 0o700
    desk.assert_clean()


@pytest.mark.parametrize("content_type", [
    'multipart/form-data; boundary="bnd"', "Multipart/Form-Data;boundary=bnd",
    "multipart/form-data; charset=UTF-8; boundary=bnd",
])  # fmt: skip
async def test_a_content_type_may_be_written_in_any_way(desk: Desk, content_type: str) -> None:
    assert (await desk.send(file(), END, headers={"content-type": content_type})).status == 201


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 415),
        ("text/plain", 415),
        ("multipart/mixed; boundary=bnd", 415),
        ("multipart/form-data; boundary=bnd; charset=utf-16", 415),
        ("multipart/form-data; boundary=bnd; charset=utf-7", 415),
        ("", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        ('multipart/form-data; boundary=""', 400),
        ("multipart/form-data; boundary=" + "b" * 71, 400),
        ("multipart/form-data; boundary=" + "b" * 100_000, 400),
        ("multipart/form-data; boundary=bnd; boundary=bnd", 400),
        ('multipart/form-data; boundary="bnd', 400),
        ("multipart/form-data; boundary=bnd;", 400),
        ("multipart/form-data; boundary=b\u00e9", 400),
        ('multipart/form-data; boundary="bnd "', 400),
    ],
)
async def test_a_content_type_that_is_none_of_a_form_is_refused(desk: Desk, content_type: str, status: int) -> None:
    refused = await desk.refusal(file() + END, headers={"content-type": content_type})
    assert refused[0] == status


async def test_a_form_without_a_type_or_compressed_is_refused(desk: Desk) -> None:
    assert await desk.refusal(file(), END, headers={"x": "y"}) == (415, "unsupported_media_type")
    assert await desk.refusal(file(), END, headers=FORM | {"content-encoding": "gzip"}) == (
        415,
        "unsupported_media_type",
    )


DISPOSITION = b'Content-Disposition: form-data; name="file"; filename="a"'

BODIES = {
    "empty": b"",
    "no parts": END,
    "another boundary": (file() + END).replace(B, b"other"),
    "no end": file(),
    "an end without its hyphens": file() + b"--bnd\r\n",
    "half an end": file() + b"--bnd-",
    "only a file's headers": b"--bnd\r\n" + DISPOSITION,
    "junk": b"\x00\xff" * 1000,
    "json": b'{"file": 1}',
    "line feeds alone": (file() + END).replace(b"\r\n", b"\n"),
    "a part without headers": b"--bnd\r\n\r\nx\r\n" + END,
    "a part without a disposition": part(b"Content-Type: text/plain", b"x") + END,
    "a part that is no form-data": part(b'Content-Disposition: attachment; name="file"; filename="a"', b"x") + END,
    "a part without a name": part(b'Content-Disposition: form-data; filename="a"', b"x") + END,
    "two dispositions": part(DISPOSITION + b"\r\n" + DISPOSITION, b"x") + END,
    "two names": part(b'Content-Disposition: form-data; name="file"; name="user_id"; filename="a"', b"x") + END,
    "an open quote": part(b'Content-Disposition: form-data; name="file; filename=a', b"x") + END,
    "an extended filename": part(DISPOSITION + b"; filename*=utf-8''b", b"x") + END,
    "an extended name": part(b"Content-Disposition: form-data; name*=utf-8''file; filename=a", b"x") + END,
    "a continued filename": part(b'Content-Disposition: form-data; name="file"; filename*0="a"', b"x") + END,
    "NUL in a name": file(filename=b"a\0b") + END,
    "a line feed in a name": file(filename=b"a\nContent-Type: x") + END,
    "a return in a name": file(filename=b"a\rb") + END,
    "a name not in UTF-8": file(filename=b"\xff\xfe") + END,
    "parts in parts": part(DISPOSITION + b"\r\nContent-Type: multipart/mixed; boundary=in", b"--in--") + END,
    "a transfer encoding": part(DISPOSITION + b"\r\nContent-Transfer-Encoding: base64", b"eA==") + END,
    "a text in another charset": part(
        b'Content-Disposition: form-data; name="user_id"\r\nContent-Type: text/plain; charset=utf-16', b"a"
    )
    + file()
    + END,
    "many headers": part(b"\r\n".join([b"X-%d: y" % n for n in range(1000)] + [DISPOSITION]), b"x") + END,
    "a huge header": part(DISPOSITION + b"\r\nX: " + b"y" * MIB, b"x") + END,
    "a huge header name": part(b"X" * MIB + b": y\r\n" + DISPOSITION, b"x") + END,
    "a header name of control characters": part(b"\x01\x02: y\r\n" + DISPOSITION, b"x") + END,
    "a huge filename": file(filename=b"n" * MIB) + END,
    "10,000 parts": b"".join(field(b"p%d" % n, b"") for n in range(10_000)) + END,
    "10,000 parts of one name": field(b"user_id", b"a") * 10_000 + END,
    "10,000 files": file() * 10_000 + END,
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_a_malformed_form_is_refused_and_leaves_nothing(desk: Desk, body: bytes) -> None:
    assert await desk.refusal(body) == (400, "invalid_request")
    assert await desk.refusal(*(body[at : at + 4096] for at in range(0, len(body), 4096))) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (field(b"user_id", b"ann") + END, "file"),
        (file() + file() + END, "file"),
        (file(filename=b"") + END, "file"),
        (field(b"file", b"x") + END, "file"),
        (file() + field(b"user_id", b"a") * 2 + END, "user_id"),
        (file() + file(name=b"user_id") + END, "user_id"),
        (file() + field(b"user_id", b"\xff") + END, "user_id"),
        (file() + field(b"user_id", b"a\0b") + END, "user_id"),
        (file(filename=b"", content=b"x") + END, "file"),
        (file() + field(b"user_id", "ü".encode()) + END, "user_id"),
        (file() + field(b"folder", b"documents") + END, "folder"),
        (file() + field(b"folder", b"../uploads") + END, "folder"),
        (file() + field(b"tenant_id", b"x") + END, "tenant_id"),
        (file() + field(b"_charset_", b"utf-16") + END, "_charset_"),
        (file() + field(b"File", b"x") + END, "File"),
        (file() + field(b"images[]", b"x") + END, "images[]"),
        (file() + field(b"", b"x") + END, "?"),
        (file() + field("é\u202e".encode(), b"x") + END, "?"),
    ],
)
async def test_a_wrong_field_is_named(desk: Desk, body: bytes, name: str) -> None:
    answer = await desk.send(body)
    assert (answer.status, answer.json()["code"]) == (400, "invalid_request")
    assert [error["field"] for error in answer.json()["errors"]] == [name]
    desk.assert_clean()
    assert not desk.bench.store.files


@pytest.mark.parametrize("filename", [
    b"..", b"../../etc/passwd", b"C:\\\\x\\\\y.txt", b'q\\"uote.txt', "\u202egpj.exe".encode(), "日本語".encode(),
    b"n" * 4096, "é".encode() * 4096, b"%00.txt", b"a;b=c.txt",
])  # fmt: skip
async def test_any_name_is_fine(desk: Desk, filename: bytes) -> None:
    answer = await desk.send(file(filename=filename) + END)
    assert answer.status == 201, answer.body
    assert answer.json()["key"].isascii()
    assert ".." not in answer.json()["key"]


async def test_a_preamble_of_line_breaks_and_an_epilogue_are_skipped(desk: Desk) -> None:
    assert (await desk.send(b"\r\n" + file() + END + b"bye")).status == 201


async def test_a_file_is_refused_as_soon_as_it_is_too_large(desk: Desk) -> None:
    huge = file(bytes(3 * MIB))
    answer = await desk.send(huge, is_whole=False)  # the rest never comes
    assert (answer.status, answer.json()["code"], answer.json()["limit"]) == (413, "file_too_large", 2 * MIB)
    assert answer.json()["detail"].startswith("The file is larger than 2097152 bytes (2 MiB), the most that is allowed")
    desk.assert_clean()
    declared = FORM | {"content-length": str(4 * MIB)}
    assert await desk.refusal(b"", headers=declared, is_whole=False) == (413, "file_too_large")
    assert await desk.refusal(b"", headers=FORM | {"content-length": "9" * 400}, is_whole=False) == (
        413,
        "file_too_large",
    )
    assert await desk.refusal(b"", headers=FORM | {"content-length": "-1"}) == (400, "invalid_request")


async def test_an_epilogue_without_end_is_refused(desk: Desk) -> None:
    assert await desk.refusal(file() + END, bytes(3 * MIB), is_whole=False) == (413, "file_too_large")


async def test_a_text_that_is_too_long_is_refused(desk: Desk) -> None:
    assert await desk.refusal(file() + field(b"user_id", b"a" * 50_000) + END) == (413, "input_too_long")


async def test_a_client_that_leaves_leaves_nothing(desk: Desk) -> None:
    body = field(b"user_id", b"ann") + file(random.Random(1).randbytes(300_000)) + field(b"folder", b"uploads") + END
    cuts = random.Random(2)
    for _ in range(500):
        sent = body[: cuts.choice((cuts.randrange(200), cuts.randrange(len(body)), len(body) - cuts.randrange(1, 200)))]
        refused = await desk.refusal(sent, is_whole=False, sender_stays=False)
        assert refused == (400, "invalid_request")


async def test_a_body_that_stalls_is_given_up(tmp_path: Path) -> None:
    async with standing(tmp_path, body_timeout_s=0.05) as desk:
        assert await desk.refusal(file(), is_whole=False) == (400, "invalid_request")


async def test_a_body_that_drips_is_given_up(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multipart, "_FIRST_MINUTE_S", 0.0)
    assert await desk.refusal(*([b""] * 1000), is_whole=False) == (400, "invalid_request")


async def test_a_body_in_crumbs_is_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multipart, "MAX_PIECES", 100)
    body = file(b"x" * 100_000) + END
    crumbs = [body[at : at + 100] for at in range(0, len(body), 100)]
    assert await desk.refusal(*crumbs) == (400, "invalid_request")
    assert (await desk.send(*(body[at : at + 512] for at in range(0, len(body), 512)))).status == 201


async def test_a_full_spool_refuses_more_until_there_is_room(desk: Desk) -> None:
    sending = [asyncio.create_task(desk.send(file(), is_whole=False)) for _ in range(spool.OF_TENANT)]
    await asyncio.sleep(0)
    await asyncio.sleep(0.1)
    answer = await desk.send(file(), END)
    assert (answer.status, answer.json()["code"]) == (503, "storage_unavailable")
    assert answer.headers["retry-after"].isdigit()
    for task in sending:
        task.cancel()
    await asyncio.gather(*sending, return_exceptions=True)
    assert (await desk.send(file(), END)).status == 201
    desk.assert_clean()


async def test_a_full_disk_is_503(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> object:
        return open("/dev/full", "wb", buffering=0)  # noqa: PTH123 - the spool closes it

    monkeypatch.setattr(spool, "TemporaryFile", full)
    assert await desk.refusal(file(), END) == (503, "storage_unavailable")


async def test_a_disk_that_takes_a_part_of_the_last_bytes_is_503(desk: Desk) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, hard))
    try:
        assert await desk.refusal(file(bytes(MIB + 1)), END) == (503, "storage_unavailable")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_spool_that_cannot_be_made_is_503() -> None:
    async with serving(Bench()) as server:
        answer = await server.call("POST", "/files/upload", [file() + END], headers=FORM)
        assert (answer.status, answer.json()["code"]) == (503, "storage_unavailable")
