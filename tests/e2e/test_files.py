"""Files through a real server: whole in the store, never whole in memory."""

import hashlib
import json
import socket
import struct
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from tests.e2e.conftest import TEXTLLM, Service, serving
from tests.servers.openai import OpenAIStandIn

from textllm_core.ids import new_id

MB = 1_000_000
BLOCK = bytes(range(256)) * 4096
HEAD = b'--bnd\r\nContent-Disposition: form-data; name="file"; filename="big.bin"\r\n\r\n'
FORM = {"content-type": "multipart/form-data; boundary=bnd"}


def send(service: Service, size: int, user: str) -> httpx.Response:
    """Upload a file of `size` bytes without having it in memory."""
    user_field = f'--bnd\r\nContent-Disposition: form-data; name="user_id"\r\n\r\n{user}\r\n'.encode()
    tail = b"\r\n--bnd--\r\n"

    def body() -> Iterator[bytes]:
        yield user_field + HEAD
        for start in range(0, size, len(BLOCK)):
            yield BLOCK[: size - start]
        yield tail

    length = len(user_field) + len(HEAD) + size + len(tail)
    headers = FORM | {"content-length": str(length)}
    return httpx.post(f"{service.url}/files/upload", content=body(), headers=headers, timeout=600)


def digest_of(size: int) -> str:
    digest = hashlib.sha256()
    for start in range(0, size, len(BLOCK)):
        digest.update(BLOCK[: size - start])
    return digest.hexdigest()


def peak_of(worker: int) -> int:
    """The most memory that a process ever had, in bytes."""
    status = Path(f"/proc/{worker}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


@pytest.fixture
def lone(provider: OpenAIStandIn, tmp_path: Path, sqlite_url: str) -> Iterator[Service]:
    """A server of one worker on SQLite, which has taken a file before."""
    with serving(tmp_path, provider, sqlite_url, TEXTLLM_MAX_FILE_SIZE_MB="5000") as service:
        assert send(service, 2 * MB, "ann").status_code == 201
        yield service


def test_a_file_comes_back_as_it_went_and_then_is_gone(service: Service) -> None:
    user = new_id("user")
    sent = send(service, 3 * MB, user)
    assert sent.status_code == 201, sent.text
    file = sent.json()
    assert file["sha256"] == digest_of(3 * MB)
    escaped = file["key"].replace("/", "%2F")
    for url in (file["url"], *(f"{service.url}/files/{key}/content" for key in (file["key"], escaped))):
        answer = httpx.get(url, timeout=30)
        assert (answer.status_code, hashlib.sha256(answer.content).hexdigest()) == (200, file["sha256"])
    part = httpx.get(file["url"], headers={"range": "bytes=-1000"}, timeout=30)
    assert (part.status_code, len(part.content)) == (206, 1000)
    assert httpx.head(file["url"], timeout=30).headers["content-length"] == str(3 * MB)
    assert httpx.delete(f"{service.url}/files/{file['key']}", timeout=30).status_code == 200
    assert httpx.get(file["url"], timeout=30).json()["code"] == "file_not_found"
    assert httpx.get(f"{service.url}/files?user_id={user}", timeout=30).json() == {"data": [], "has_more": False}


def test_a_file_of_the_command_line_is_a_file_of_the_server(lone: Service, tmp_path: Path) -> None:
    (tmp_path / "cli.txt").write_text("from a terminal")
    environment = lone._environment
    upload = [TEXTLLM, "files", "upload", "cli.txt", "--user", "ann", "--json"]
    shown = subprocess.run(upload, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    key = json.loads(shown)["key"]
    assert httpx.get(f"{lone.url}/files/{key}/content", timeout=30).text == "from a terminal"
    assert httpx.get(lone.url + json.loads(shown)["url"], timeout=30).text == "from a terminal"


def test_fifty_uploads_at_once_take_no_more_memory_than_they_need(lone: Service, tmp_path: Path) -> None:
    (worker,) = lone.workers()
    before = peak_of(worker)
    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(lambda n: send(lone, 20 * MB, f"user{n}"), range(50)))
    assert [answer.status_code for answer in answers] == [201] * 50
    assert {answer.json()["sha256"] for answer in answers} == {digest_of(20 * MB)}
    assert peak_of(worker) - before < 100 * MB
    assert list((tmp_path / "data" / "spool").iterdir()) == []


def test_a_hundred_megabytes_take_less_than_sixteen_of_memory(lone: Service) -> None:
    (worker,) = lone.workers()
    before = peak_of(worker)
    assert send(lone, 100 * MB, "ann").status_code == 201
    assert peak_of(worker) - before < 16 * MB


def test_clients_that_vanish_leave_neither_files_nor_traces(lone: Service, tmp_path: Path) -> None:
    key = send(lone, 30 * MB, "ann").json()["key"]
    head = b"POST /files/upload HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=bnd\r\n"
    upload = head + b"content-length: 10000000\r\n\r\n" + HEAD + BLOCK
    download = b"GET /files/" + key.encode() + b"/content HTTP/1.1\r\nhost: x\r\n\r\n"
    for request in (upload, download) * 5:
        vanish(lone, request)
    blobs, spool = tmp_path / "data" / "files" / "blobs", tmp_path / "data" / "spool"
    assert (len(list(blobs.iterdir())), list(spool.iterdir())) == (2, [])
    assert len(httpx.get(f"{lone.url}/files?user_id=ann", timeout=30).json()["data"]) == 2
    assert send(lone, MB, "bob").status_code == 201
    lone.stop()
    assert "Traceback" not in lone.log.read_text()
    assert "ERROR" not in lone.log.read_text()


def vanish(service: Service, request: bytes) -> None:
    """Send the request, wait for the first bytes of an answer if one is coming, and be gone by a reset."""
    address = httpx.URL(service.url)
    with socket.create_connection((address.host, address.port or 0), timeout=30) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(request)
        if request.startswith(b"GET"):
            assert client.recv(4096).startswith(b"HTTP/1.1 200")


@pytest.mark.slow
def test_two_gigabytes_take_less_than_sixteen_megabytes_of_memory(lone: Service) -> None:
    (worker,) = lone.workers()
    before = peak_of(worker)
    answer = send(lone, 2000 * MB, "ann")
    assert (answer.status_code, answer.json()["size"]) == (201, 2000 * MB)
    assert peak_of(worker) - before < 16 * MB
    assert psutil.pid_exists(worker)
