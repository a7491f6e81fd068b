"""What only a real server and real sockets show."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from textllm_http.listener import listen

ROOT = Path(__file__).parents[2]
TURN = b'{"message": "Hi"}'


class RunningServer:
    """A server process on loopback."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        command = [sys.executable, "-m", "granian", "--interface", "asgi", "--factory", "--port", str(self.port)]
        self._process = subprocess.Popen(
            [*command, "--workers-kill-timeout", "10", "tests.http.served:make_app"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @contextmanager
    def connected(self) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            yield connection

    def wait_until_up(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                with self.connected():
                    return
            except ConnectionRefusedError:
                assert self._process.poll() is None, self._process.communicate()[0]
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def stop(self) -> str:
        """All that it wrote."""
        self._process.terminate()
        try:
            return self._process.communicate(timeout=30)[0]
        finally:
            self._process.kill()


@pytest.fixture
def server() -> Iterator[RunningServer]:
    running = RunningServer()
    try:
        running.wait_until_up()
        yield running
    finally:
        running.stop()


def post(path: str, body: bytes = TURN) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def read_until(connection: socket.socket, is_enough: Callable[[bytes], bool]) -> bytes:
    heard = b""
    while not is_enough(heard):
        piece = connection.recv(65536)
        assert piece, heard
        heard += piece
    return heard


def test_clients_that_vanish_leave_no_trace_in_the_log(server: RunningServer) -> None:
    with server.connected() as slow:
        slow.sendall(post("/chat/stream"))
        heard = read_until(slow, lambda heard: b"data:  more\n\n" in heard)
        assert b"data: Hello\n\n" in heard  # while the reply is far from its end
    for path in ("/chat", "/chat/stream") * 5:
        with server.connected() as hasty:
            hasty.sendall(post(path))
    with server.connected() as half:
        half.sendall(post("/chat")[:-5])
    with server.connected() as patient:
        patient.sendall(post("/chat/stream"))
        heard = read_until(patient, lambda heard: heard.endswith(b"0\r\n\r\n"))
    assert b"data: [DONE]\n\n" in heard
    log = server.stop()
    assert "ERROR" not in log
    assert "Traceback" not in log


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_piece_of_a_reply_leaves_at_once_not_when_the_one_before_is_acknowledged(address: str) -> None:
    with listen(address, 0, unread_timeout_s=25) as listener:
        listener.settimeout(30)
        with socket.create_connection(listener.getsockname()[:2]), listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_broken_chunks_are_a_bad_request(server: RunningServer) -> None:
    head = b"POST /chat HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    for chunks in (b"ZZ\r\n{}\r\n", b"2\r\n{}\r\nQQ\r\n", b"-1\r\n{}\r\n"):
        with server.connected() as connection:
            connection.sendall(head + chunks)
            answer = read_until(connection, lambda heard: b'"code"' in heard)
        assert answer.startswith(b"HTTP/1.1 400 "), chunks
        assert b"content-type: application/problem+json" in answer, chunks
