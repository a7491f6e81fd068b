"""Files in a bucket, through a real server: an outage heals by itself, and nothing is ever left behind."""

import asyncio
import os
import random
import shutil
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import select
from tests.e2e.conftest import API_KEY, Books, Service, serving
from tests.servers.openai import OpenAIStandIn
from tests.servers.s3 import S3Server, open_bucket

from textllm_adapters.memory.clock import FixedClock
from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sql.file_tables import files
from textllm_adapters.wiring import load_settings, open_textllm

SOON_S = 30.0
NOTHING: dict[str, list[str]] = {"objects": [], "parts": [], "rows": [], "spooled": [], "open": []}


@dataclass
class Stored:
    """A server of one worker that keeps its files in a bucket, and all that is kept there and elsewhere."""

    service: Service
    s3: S3Server
    bucket: str
    database: str
    settings: dict[str, str]

    async def traces(self) -> dict[str, list[str]]:
        """What there is of files: in the bucket, in the database, in the spool and in the worker's hands."""
        async with open_bucket(self.s3, self.bucket) as store:
            objects = (await store.client.list_objects_v2(Bucket=self.bucket)).get("Contents", ())
            parts = (await store.client.list_multipart_uploads(Bucket=self.bucket)).get("Uploads", ())
        engine = Books(self.database).engine()
        try:
            async with Database(engine).single(EVERYONE) as connection:
                rows = (await connection.execute(select(files.c.status))).scalars().all()
        finally:
            await engine.dispose()
        spool = self.service.folder / "data" / "spool"
        return {
            "objects": [found["Key"] for found in objects],
            "parts": [found["Key"] for found in parts],
            "rows": list(rows),
            "spooled": [path.name for path in spool.iterdir()] if spool.exists() else [],
            "open": [path for worker in self.service.workers() for path in open_files(worker) if "/spool/" in path],
        }

    async def settled(self, expected: dict[str, list[str]]) -> dict[str, list[str]]:
        """The traces, as soon as they are as expected; else those after a while."""
        deadline = time.monotonic() + SOON_S
        while True:
            traces = await self.traces()
            if traces == expected or time.monotonic() > deadline:
                return traces
            await asyncio.sleep(0.2)

    def upload(self, content: bytes) -> httpx.Response:
        form, file = {"user_id": "ann"}, {"file": ("a.txt", content)}
        return httpx.post(f"{self.service.url}/files/upload", data=form, files=file, timeout=SOON_S)

    def ask(self, document: bytes, *, stream: str = "false", key: str | None = None) -> httpx.Response:
        """A turn with a document."""
        headers = {} if key is None else {"Idempotency-Key": key}
        form = {"message": "When?", "user_id": "ann", "stream": stream, "stream_format": "events"}
        file = {"file": ("a.txt", document)}
        return httpx.post(f"{self.service.url}/chat/file", data=form, files=file, headers=headers, timeout=SOON_S)

    def content(self, key: str, method: str = "GET") -> httpx.Response:
        return httpx.request(method, f"{self.service.url}/files/{key}/content", timeout=SOON_S)

    def delete(self, key: str) -> httpx.Response:
        return httpx.delete(f"{self.service.url}/files/{key}", timeout=SOON_S)

    async def sweep(self, after: timedelta) -> int:
        """Sweep as a server would that much later."""
        async with open_textllm(load_settings(cwd=self.service.folder, environ=self.settings)) as textllm:
            return await replace(textllm.files.sweep, clock=FixedClock(datetime.now(UTC) + after))()


def open_files(process: int) -> list[str]:
    """Also those without a name."""
    found = []
    for link in Path(f"/proc/{process}/fd").iterdir():
        try:
            found.append(str(link.readlink()))
        except FileNotFoundError:  # closed meanwhile
            continue
    return found


@contextmanager
def storing(provider: OpenAIStandIn, s3: S3Server, folder: Path, database: str) -> Iterator[Stored]:
    bucket = s3.create_bucket()
    settings = {
        "S3_ENABLED": "true",
        "S3_BUCKET": bucket,
        "S3_ENDPOINT": s3.url,
        "AWS_ACCESS_KEY_ID": s3.access_key,
        "AWS_SECRET_ACCESS_KEY": s3.secret_key,
        "AWS_REGION": s3.region,
    }
    others = {
        "OPENAI_API_KEY": API_KEY,
        "OPENAI_BASE_URL": provider.base_url,
        "DATABASE_URL": database,
        "TEXTLLM_DATA_DIR": str(folder / "data"),
    }
    with serving(folder, provider, database, **settings) as service:
        yield Stored(service, s3, bucket, database, settings | others)


@pytest.fixture
def s3(s3_server: S3Server) -> Iterator[S3Server]:
    """A bucket's server, to be stopped and to fail at will."""
    yield s3_server
    s3_server.start()
    s3_server.recover()


@pytest.fixture
def stored(provider: OpenAIStandIn, s3: S3Server, tmp_path: Path, own_database: str) -> Iterator[Stored]:
    with storing(provider, s3, tmp_path, own_database) as stored:
        yield stored


@pytest.fixture(scope="module")
def of_many(
    provider: OpenAIStandIn,
    s3_server: S3Server,
    migrated_sqlite_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stored]:
    """One for the tests that do not ask what is left in the end."""
    folder = tmp_path_factory.mktemp("stored")
    database = shutil.copy(migrated_sqlite_file, folder)
    with storing(provider, s3_server, folder, f"sqlite:///{database}") as stored:
        yield stored


@pytest.fixture
def shared(of_many: Stored, s3: S3Server) -> Stored:
    return of_many


@pytest.fixture(params=["postgres_url", pytest.param("sqlite_url", marks=pytest.mark.slow)])
def own_database(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.mark.parametrize("own_database", ["sqlite_url"], indirect=True)
async def test_an_outage_of_the_storage_is_told_and_heals_by_itself(stored: Stored) -> None:
    content = random.Random(1).randbytes(300_000)
    kept = stored.upload(content)
    assert kept.status_code == 201, kept.text
    key = kept.json()["key"]
    assert stored.content(key).content == content

    stored.s3.stop()
    for answer in (stored.upload(content), stored.content(key), stored.delete(key)):
        assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable"), answer.text
        assert "file storage" in answer.json()["detail"]
    assert "(file storage)" in stored.service.log.read_text()
    assert stored.service.chat("Hello", user_id="ann").status_code == 200
    assert stored.service.get("/health/live").status_code == 200
    readiness = stored.service.get("/health/ready")
    assert (readiness.status_code, readiness.json()["status"]) == (503, "not_ready")

    stored.s3.start()
    await ready_again(stored.service)
    second = stored.upload(content)
    assert second.status_code == 201, second.text
    listed = stored.service.get("/files?user_id=ann").json()["data"]
    assert listed[0]["key"] == second.json()["key"]
    assert stored.content(second.json()["key"]).content == content
    assert stored.delete(second.json()["key"]).status_code == 200
    await stored.sweep(after=timedelta(minutes=61))  # of what was to be deleted in the outage
    assert await stored.settled(NOTHING) == NOTHING


@pytest.mark.parametrize("stream", ["false", "true"])
def test_a_repeat_of_a_turn_with_a_file_is_answered_in_an_outage(shared: Stored, stream: str) -> None:
    first = shared.ask(b"Tea is at five.", key=f"once-{stream}", stream=stream)
    assert first.status_code == 200, first.text
    shared.s3.stop()
    again = shared.ask(b"Tea is at five.", key=f"once-{stream}", stream=stream)
    assert (again.status_code, again.headers["idempotent-replayed"]) == (200, "true"), again.text
    assert "Tea is at five." in again.text
    other = shared.ask(b"Tea is at five.", key=f"another-{stream}", stream=stream)
    assert (other.status_code, other.json()["code"]) == (503, "storage_unavailable")


async def test_clients_that_do_not_read_their_downloads_hold_up_nobody(shared: Stored) -> None:
    big = shared.upload(random.Random(2).randbytes(10_000_000)).json()["key"]
    small = shared.upload(b"Tea").json()["key"]
    address = urlsplit(shared.service.url)
    with ExitStack() as clients:
        for _ in range(100):
            client = clients.enter_context(socket.create_connection((address.hostname, address.port), timeout=SOON_S))
            client.sendall(f"GET /files/{big}/content HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert client.recv(12) == b"HTTP/1.1 200"
        assert shared.content(small).content == b"Tea"
        assert shared.upload(b"Cake").status_code == 201


async def ready_again(service: Service) -> None:
    deadline = time.monotonic() + SOON_S
    while service.get("/health/ready").status_code != 200:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("cuts", [40, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("own_database", ["sqlite_url"], indirect=True)
async def test_uploads_that_are_cut_anywhere_leave_nothing(stored: Stored, cuts: int) -> None:
    chance = random.Random(cuts)
    requests = [cut_upload(chance) for _ in range(cuts)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda request: send(stored.service, *request), requests))
    assert await stored.settled(NOTHING) == NOTHING
    assert stored.upload(b"Hello").status_code == 201
    stored.service.stop()
    log = stored.service.log.read_text()
    assert "Traceback" not in log
    assert "ERROR" not in log


def cut_upload(chance: random.Random) -> tuple[bytes, bool]:
    """A part of an upload, and whether it ends in a reset."""
    content = chance.randbytes(chance.choice([10, 1000, 300_000, 6_000_000]))
    body = (
        b'--bnd\r\nContent-Disposition: form-data; name="user_id"\r\n\r\nann\r\n'
        b'--bnd\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n' + content + b"\r\n--bnd--\r\n"
    )
    head = b"POST /files/upload HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=bnd\r\n"
    request = head + b"content-length: %d\r\n\r\n" % len(body) + body
    ends = (
        chance.randrange(1, len(head) + 200),
        chance.randrange(1, len(request)),
        len(request) - chance.randint(1, 9),
    )
    return request[: min(chance.choice(ends), len(request) - 1)], chance.random() < 0.5


def send(service: Service, request: bytes, is_reset: bool) -> None:
    """Send the bytes, or what is taken of them, and be gone."""
    address = httpx.URL(service.url)
    with socket.create_connection((address.host, address.port or 0), timeout=SOON_S) as client:
        if is_reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with suppress(ConnectionError):  # more than a tenant's share of those cut before may still be in hand
            client.sendall(request)


@pytest.mark.parametrize("size", [1000, 12_000_000])
async def test_what_a_killed_worker_leaves_is_swept_an_hour_later(stored: Stored, size: int) -> None:
    stored.s3.fail(0, method="PUT")  # silence, so that the worker dies in the middle
    (worker,) = stored.service.workers()
    client = threading.Thread(target=upload_in_vain, args=(stored, size))
    client.start()
    parts = 1 if size > 5_000_000 else 0
    deadline = time.monotonic() + SOON_S
    while (traces := await stored.traces())["rows"] != ["announced"] or len(traces["parts"]) != parts:
        assert time.monotonic() < deadline, traces
        await asyncio.sleep(0.1)
    assert traces["open"], "the file waits in the spool"
    assert traces["spooled"] == [], "where it has no name"
    os.kill(worker, signal.SIGKILL)
    client.join()
    stored.s3.recover()
    await ready_again(stored.service)

    assert await stored.sweep(after=timedelta(minutes=59)) == 0
    traces = await stored.traces()  # but for parts, all of which began in 2010, says moto
    assert (traces["rows"], traces["open"]) == (["announced"], [])
    assert await stored.sweep(after=timedelta(minutes=61)) == 1
    assert await stored.settled(NOTHING) == NOTHING


def upload_in_vain(stored: Stored, size: int) -> None:
    with pytest.raises(httpx.TransportError):
        stored.upload(bytes(size))


@pytest.mark.parametrize("own_database", ["sqlite_url"], indirect=True)
async def test_credentials_that_expired_are_an_outage_that_tells_no_secret_and_leaves_nothing(stored: Stored) -> None:
    key = stored.upload(b"Tea").json()["key"]
    error = f"<Error><Code>ExpiredToken</Code><Message>{stored.bucket} canary</Message></Error>"
    stored.s3.answer(400, error, method="PUT")
    refused = [stored.upload(b"Cake"), stored.upload(bytes(6_000_000)), stored.ask(b"Some text")]
    stored.s3.answer(400, error, method="GET")
    refused.append(stored.content(key))
    stored.s3.answer(400, error, method="DELETE")
    refused.append(stored.delete(key))
    assert [(answer.status_code, answer.json()["code"]) for answer in refused] == [(503, "storage_unavailable")] * 5
    assert await Books(stored.database).entries("ann") == []
    stored.s3.recover()

    assert stored.delete(key).status_code == 200
    assert await stored.settled(NOTHING) == NOTHING
    log = stored.service.log.read_text()
    assert "S3 answers 400 (ExpiredToken) to PutObject" in log
    said = log + "".join(answer.text for answer in refused)
    for secret in ("canary", stored.bucket, stored.s3.url, stored.s3.secret_key, key):
        assert secret not in said


async def test_what_was_exchanged_in_the_bucket_is_never_taken_for_the_file(shared: Stored) -> None:
    content = random.Random(3).randbytes(1_000_000)
    key = shared.upload(content).json()["key"]
    async with open_bucket(shared.s3, shared.bucket) as store:
        for other in (content[:500_000], content + b"more"):
            await store.client.put_object(Bucket=shared.bucket, Key=key, Body=other)
            with pytest.raises(httpx.RemoteProtocolError):
                shared.content(key)
            assert shared.content(key, "HEAD").status_code == 503
        await store.client.put_object(Bucket=shared.bucket, Key=key, Body=content)
    assert shared.content(key).content == content
