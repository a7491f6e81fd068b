"""How a server ends, is renewed, and survives its own processes: with real ones, by real signals."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Self

import httpx
import psutil
import pytest
from tests.e2e.conftest import API_KEY, Books, Service, price_of, serving
from tests.http.sse_reader import Received, read_events
from tests.servers.openai import OpenAIStandIn, Reply

from textllm_core.ids import new_id

PATIENCE_S = 60
LONG_GRACE = ("--grace-s", "60")


@pytest.fixture
def user() -> str:
    return new_id("user")


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Opens at the end of the test, so that nothing waits for it any more."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
def store(sqlite_url: str) -> str:
    """The address of a database for tests that do not depend on which it is."""
    return sqlite_url


class Listener:
    """A client that reads a stream in a thread of its own."""

    def __init__(self, service: Service, user: str, stream_format: str = "events") -> None:
        self._request = {"message": "hi", "user_id": user, "stream_format": stream_format}
        self._url = f"{service.url}/chat/stream"
        self._received = b""
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        with httpx.stream("POST", self._url, json=self._request, timeout=PATIENCE_S) as answer:
            for chunk in answer.iter_raw():
                self._received += chunk

    def hear(self, text: str) -> None:
        """Wait until this has come."""
        until(lambda: text.encode() in self._received)

    def events(self) -> list[Received]:
        """All events, once the stream has ended."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        return read_events(self._received)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def texts(events: Sequence[Received]) -> str:
    return "".join(json.loads(event.data)["text"] for event in events if event.name == "reply.delta")


def readiness(service: Service) -> tuple[int, str]:
    answer = httpx.get(f"{service.url}/health/ready", timeout=PATIENCE_S)
    return answer.status_code, answer.json()["status"]


def is_alive(service: Service) -> bool:
    return httpx.get(f"{service.url}/health/live", timeout=PATIENCE_S).status_code == 200


def replaced(service: Service, killed: Sequence[int], workers: int) -> bool:
    """Whether there are as many workers as there should be, and none of them is one of these."""
    return len(set(service.workers()) - set(killed)) == workers and not set(service.workers()) & set(killed)


async def test_a_stopping_server_is_not_ready_serves_on_then_refuses_and_lets_streams_end(
    provider: OpenAIStandIn, database: str, books: Books, tmp_path: Path, user: str, gate: threading.Event
) -> None:
    with serving(tmp_path, provider, database, "--workers", "2", *LONG_GRACE) as service:
        provider.script(Reply(deltas=("early", " late"), gate=gate))
        listener = Listener(service, user)
        listener.hear("early")
        service.process.terminate()
        until(lambda: readiness(service) == (503, "stopping"))
        assert service.chat("still open?").status_code == 200
        until(lambda: service.chat("and now?").status_code == 503)
        asked = len(provider.requests)
        refusal = service.chat("and now?", user_id="refused")
        assert (refusal.json()["code"], refusal.headers["retry-after"]) == ("service_unavailable", "2")
        assert is_alive(service)
        assert len(provider.requests) == asked
        gate.set()
        events = listener.events()
        assert (texts(events), events[-1].name) == ("early late", "reply.completed")
        assert service.process.wait(PATIENCE_S) == 0, service.log.read_text()
    assert [entry.status for entry in await books.entries(user)] == ["completed"]
    assert await books.entries("refused") == []
    assert await books.drifts() == []


def test_a_request_that_is_no_turn_yet_is_told_to_come_back(
    own_provider: OpenAIStandIn, store: str, tmp_path: Path
) -> None:
    with serving(tmp_path, own_provider, store, "--grace-s", "1") as service:
        port = int(service.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as upload:
            upload.sendall(
                b"POST /files/upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
                b'Content-Length: 99\r\n\r\n--b\r\nContent-Disposition: form-data; name="file"; filename=a\r\n\r\nHel'
            )
            time.sleep(0.5)  # until it is being read
            service.process.terminate()
            answer = b""
            while b"service_unavailable" not in answer and (piece := upload.recv(4096)):
                answer += piece
        assert answer.startswith(b"HTTP/1.1 503"), answer
        assert b"retry-after: 2" in answer.lower()
        assert service.process.wait(PATIENCE_S) == 0, service.log.read_text()


async def test_a_stream_that_outlasts_the_grace_gets_its_last_event_and_its_entry(
    provider: OpenAIStandIn, database: str, books: Books, tmp_path: Path, user: str, gate: threading.Event
) -> None:
    with serving(tmp_path, provider, database) as service:
        listeners = {}
        for stream_format, name in (("events", "reply.failed"), ("text", "error")):
            provider.script(Reply(deltas=("early", " late"), gate=gate))
            listeners[name] = Listener(service, user, stream_format)
            listeners[name].hear("early")
        service.stop()
        for name, listener in listeners.items():
            last = listener.events()[-1]
            assert (last.name, json.loads(last.data)["status"]) == (name, 503)
    assert [entry.status for entry in await books.entries(user)] == ["cancelled", "cancelled"]
    assert await books.drifts() == []


def test_a_second_ctrl_c_cuts_the_grace(
    provider: OpenAIStandIn, store: str, tmp_path: Path, user: str, gate: threading.Event
) -> None:
    with serving(tmp_path, provider, store, "--workers", "2", "--grace-s", "3600") as service:
        provider.script(Reply(deltas=("early", " late"), gate=gate))
        listener = Listener(service, user)
        listener.hear("early")
        os.killpg(service.process.pid, signal.SIGINT)  # as a terminal does: to all processes
        until(lambda: service.chat("and now?").status_code == 503)
        os.killpg(service.process.pid, signal.SIGINT)
        assert listener.events()[-1].name == "reply.failed"
        assert service.process.wait(PATIENCE_S) == 0, service.log.read_text()
        assert "Traceback" not in service.log.read_text()


def test_a_client_that_never_reads_holds_up_nobody(
    provider: OpenAIStandIn, store: str, tmp_path: Path, user: str
) -> None:
    with serving(tmp_path, provider, store) as service:
        billed = len(provider.bills)
        provider.script(Reply(deltas=("x" * 100_000,) * 80))
        address = httpx.URL(service.url)
        body = json.dumps({"message": "hi", "user_id": user}).encode()
        head = f"POST /chat/stream HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        with socket.create_connection((address.host, address.port or 0)) as deaf:
            deaf.sendall(f"{head}\r\n\r\n".encode() + body)
            until(lambda: len(provider.bills) > billed)
            service.stop()
        assert "Traceback" not in service.log.read_text()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_worker_is_replaced_again_and_again(
    provider: OpenAIStandIn, store: str, tmp_path: Path, workers: int
) -> None:
    with serving(tmp_path, provider, store, "--workers", str(workers)) as service:
        killed: list[int] = []
        for _ in range(2):
            killed.append(service.workers()[0])
            os.kill(killed[-1], signal.SIGKILL)
            until(lambda: replaced(service, killed, workers))
            assert service.chat("hi").status_code == 200  # which may wait until the new one serves
        service.stop()


def test_a_server_told_to_end_while_it_replaces_a_worker_ends(
    provider: OpenAIStandIn, store: str, tmp_path: Path
) -> None:
    with serving(tmp_path, provider, store, "--workers", "2") as service:
        for pid in service.workers():
            os.kill(pid, signal.SIGKILL)
        until(lambda: len(service.workers()) > 0)
        service.stop()
        assert "Traceback" not in service.log.read_text()


def test_without_its_parent_a_worker_ends_in_order(
    provider: OpenAIStandIn, store: str, tmp_path: Path, user: str, gate: threading.Event
) -> None:
    with serving(tmp_path, provider, store, "--workers", "2") as service:
        provider.script(Reply(deltas=("early", " late"), gate=gate))
        listener = Listener(service, user)
        listener.hear("early")
        workers = [psutil.Process(pid) for pid in service.workers()]
        service.process.kill()
        assert listener.events()[-1].name == "reply.failed"
        _, alive = psutil.wait_procs(workers, PATIENCE_S)
        assert not alive


def test_a_worker_ends_whose_parent_died_before_it_listened_to_it(
    provider: OpenAIStandIn, store: str, tmp_path: Path
) -> None:
    with serving(tmp_path, provider, store) as service:
        killed = service.workers()
        os.kill(killed[0], signal.SIGKILL)
        until(lambda: replaced(service, killed, 1))
        service.process.send_signal(signal.SIGSTOP)
        assert service.chat("hi").status_code == 200  # so it serves, and has said so
        worker = psutil.Process(service.workers()[0])
        service.process.kill()
        _, alive = psutil.wait_procs([worker], PATIENCE_S)
        assert not alive


def test_a_server_whose_workers_cannot_start_says_why_and_ends(tmp_path: Path) -> None:
    program = "from textllm_http.listener import listen; from textllm_http.supervisor import become_supervisor; "
    program += "address = listen('127.0.0.1', 0, unread_timeout_s=25); "
    program += "become_supervisor(address, workers=2, grace_s=0, log_level='INFO', log_dir=None)"
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "TEXTLLM_MODLE": "x"},
        check=False,
    )
    assert result.returncode == 1
    assert "TEXTLLM_MODLE" in result.stderr
    assert "A worker could not start" in result.stderr.splitlines()[-1]


class Crowd:
    """Clients that talk without a pause; half of them keep their connection, half of their turns are streamed."""

    def __init__(self, service: Service, clients: int, pause_s: float = 0.0) -> None:
        self._service, self._pause_s, self._is_over = service, pause_s, threading.Event()
        self.costs: list[float] = []
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._talk, args=(number,)) for number in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _talk(self, number: int) -> None:
        keeps = httpx.Limits(max_keepalive_connections=number % 2)
        with httpx.Client(base_url=self._service.url, timeout=PATIENCE_S, limits=keeps) as client:
            turn = 0
            while not self._is_over.wait(self._pause_s):
                turn += 1
                body = {"message": f"turn {turn}", "user_id": f"user_{number}", "stream": turn % 2 == 0}
                try:
                    answer = client.post("/chat", json=body | {"stream_format": "events"})
                except httpx.TransportError as error:
                    self.failures.append(repr(error))
                    continue
                last = read_events(answer.content)[-1] if body["stream"] else None
                reply = json.loads(last.data if last else answer.content)
                if answer.status_code != 200 or (last and last.name != "reply.completed"):
                    self.failures.append(str(reply))
                else:
                    self.costs.append(reply["cost"])


@pytest.fixture
def own_provider() -> Iterator[OpenAIStandIn]:
    with OpenAIStandIn(api_key=API_KEY) as provider:
        provider.default = Reply(deltas=tuple(f"<{number}>" for number in range(10)), pause_s=0.01)
        yield provider


@pytest.mark.parametrize(
    ("kind", "renewals", "clients"),
    [
        ("postgres", 1, 4),
        pytest.param("sqlite", 30, 8, marks=pytest.mark.slow),
        pytest.param("postgres", 30, 8, marks=pytest.mark.slow),
    ],
)
async def test_renewing_the_workers_under_load_loses_no_request_and_no_cent(
    request: pytest.FixtureRequest,
    own_provider: OpenAIStandIn,
    tmp_path: Path,
    kind: str,
    renewals: int,
    clients: int,
) -> None:
    database: str = request.getfixturevalue(f"{kind}_url")
    with serving(
        tmp_path, own_provider, database, "--workers", "2", *LONG_GRACE, TEXTLLM_COST_LIMIT_PER_SESSION="1000"
    ) as service:
        until(lambda: len(service.workers()) == 2)
        with Crowd(service, clients) as crowd:
            for _ in range(renewals):
                old = service.workers()
                service.process.send_signal(signal.SIGHUP)
                until(partial(replaced, service, old, 2))
        service.stop()
    assert crowd.failures == []
    assert len(crowd.costs) > 10 * renewals
    books = Books(database)
    entries = [entry for number in range(clients) for entry in await books.entries(f"user_{number}")]
    assert sum(entry.cost for entry in entries) == sum(map(price_of, own_provider.bills))
    assert len(entries) == len(own_provider.bills) == len(crowd.costs)
    assert await books.drifts() == []


@pytest.mark.slow
def test_a_worker_that_does_not_end_is_killed(provider: OpenAIStandIn, store: str, tmp_path: Path) -> None:
    with serving(tmp_path, provider, store, "--grace-s", "0") as service:
        os.kill(service.workers()[0], signal.SIGSTOP)
        service.stop()
        assert "is killed" in service.log.read_text()
