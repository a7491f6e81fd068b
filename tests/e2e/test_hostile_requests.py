"""What the internet sends: each request ends in a clear 4xx or a closed connection, and nobody else notices."""

import json
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import httpx
import psutil
import pytest
from tests.e2e.conftest import Service, serving
from tests.servers.openai import OpenAIStandIn

PATIENCE_S: Final = 60  # most of it is for a busy machine
TURN: Final = b'{"message":"hi"}'
TURN_IN_CHUNKS: Final = b"10\r\n" + TURN + b"\r\n0\r\n\r\n"
MANY_HEADERS: Final = b"".join(b"X-%d: a\r\n" % number for number in range(5000))
WEBSOCKET: Final = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def get(target: bytes = b"/health/live", headers: bytes = b"Host: x\r\n", *, method: bytes = b"GET") -> bytes:
    return method + b" " + target + b" HTTP/1.1\r\n" + headers + b"\r\n"


def post(
    headers: bytes = b"",
    body: bytes = TURN,
    *,
    path: bytes = b"/chat",
    media_type: bytes = b"application/json",
    length: bytes | None = None,
) -> bytes:
    length = b"%d" % len(body) if length is None else length
    headers = b"Host: x\r\nContent-Type: " + media_type + b"\r\nContent-Length: " + length + b"\r\n" + headers
    return get(path, headers, method=b"POST") + body


def chunked(chunks: bytes, headers: bytes = b"", *, coding: bytes = b" chunked") -> bytes:
    headers = b"Host: x\r\nContent-Type: application/json\r\nTransfer-Encoding:" + coding + b"\r\n" + headers
    return get(b"/chat", headers, method=b"POST") + chunks


# What is no HTTP gets the server's own answer, a bare status, and is hung up on.
UNREADABLE: Final[Mapping[str, tuple[bytes, int | None]]] = {
    "every byte": (bytes(range(256)) * 4, 400),
    "a TLS handshake": (bytes.fromhex("160301020001000001fc0303") + bytes(500), 400),
    "only NUL": (bytes(100), 400),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), None),
    "HTTP/0.9": (b"GET /health/live\r\n\r\n", 400),
    "HTTP/1.2": (b"GET /health/live HTTP/1.2\r\nHost: x\r\n\r\n", 400),
    "HTTP/3.0": (b"GET /health/live HTTP/3.0\r\nHost: x\r\n\r\n", 400),
    "no target": (b"GET HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "blanks in the request line": (b"GET  /health/live  HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a blank before the first header": (b"GET /health/live HTTP/1.1\r\n Host: x\r\n\r\n", 400),
    "a method of signs": (get(method=b"GE(T"), 400),
    "a target without a slash": (get(b"health/live"), 400),
    "an absolute target of nothing": (get(b"http://"), 400),
    "an absolute target cut off": (get(b"http://[::1/health/live"), 400),
    "a NUL in the path": (get(b"/health\0live"), 400),
    "a control character in the path": (get(b"/health\x01live"), 400),
    "a tab in the path": (get(b"/health\tlive"), 400),
    "a path that is not UTF-8": (get(b"/\xff\xfe"), 400),
    "a query that is not UTF-8": (get(b"/users/u/stats?days=\xff"), 400),
    "a path of 65 KB": (get(b"/" + b"a" * 66_000), 414),
    "a path of 1 MB": (get(b"/" + b"a" * 1_000_000), 431),
    "101 headers": (get(headers=b"Host: x\r\n" + MANY_HEADERS[: 101 * 9]), 431),
    "5,000 headers": (get(headers=b"Host: x\r\n" + MANY_HEADERS), 431),
    "a header of 300 KB": (get(headers=b"Host: x\r\nX-A: " + b"a" * 300_000 + b"\r\n"), 431),
    "a header of 1 MB": (get(headers=b"Host: x\r\nAuthorization: Bearer " + b"a" * 1_000_000 + b"\r\n"), 431),
    "a folded header": (get(headers=b"Host: x\r\nX-A: b\r\n c\r\n"), 400),
    "a bare CR in a header": (get(headers=b"Host: x\r\nX-A: b\rX-B: c\r\n"), 400),
    "a NUL in a header": (get(headers=b"Host: x\r\nX-A: b\0c\r\n"), 400),
    "a header without a colon": (get(headers=b"Host: x\r\nX-A\r\n"), 400),
    "a header without a name": (get(headers=b"Host: x\r\n: a\r\n"), 400),
    "a blank in a header's name": (get(headers=b"Host: x\r\nX A: b\r\n"), 400),
    "a blank before the colon": (get(headers=b"Host : x\r\n"), 400),
    "a header's name that is not ASCII": (get(headers=b"Host: x\r\n\xc3\xa4: b\r\n"), 400),
    "two lengths": (post(b"Content-Length: 17\r\n"), 400),
    "a list of lengths": (post(length=b"16, 16"), 400),
    "a length with a plus": (post(length=b"+16"), 400),
    "a negative length": (post(length=b"-16"), 400),
    "a length with a blank": (post(length=b"1 6"), 400),
    "a length in hexadecimal": (post(length=b"0x10"), 400),
    "a length in other digits": (post(length="١٦".encode()), 400),
    "no length": (post(length=b""), 400),
    "a length of 400 digits": (post(length=b"9" * 400), 400),
    "a length past 64 bits": (post(length=b"18446744073709551616"), 400),
    "a transfer encoding of no name": (chunked(TURN_IN_CHUNKS, coding=b" xchunked"), 400),
    "a transfer that does not end in chunks": (chunked(TURN_IN_CHUNKS, coding=b" chunked, gzip"), 400),
    "a vertical tab before chunked": (chunked(TURN_IN_CHUNKS, b"Content-Length: 3\r\n", coding=b"\x0bchunked"), 400),
    "a blank after Transfer-Encoding": (chunked(TURN_IN_CHUNKS).replace(b"Encoding:", b"Encoding :"), 400),
    "chunks in HTTP/1.0": (chunked(TURN_IN_CHUNKS).replace(b"HTTP/1.1", b"HTTP/1.0"), 400),
}

# What is HTTP, and still wrong, gets a problem document.
REFUSED: Final[Mapping[str, tuple[bytes, int]]] = {
    "no Host": (get(headers=b""), 400),
    "HTTP/1.0 without Host": (b"GET /health/live HTTP/1.0\r\n\r\n", 400),
    "an empty Host": (get(headers=b"Host:\r\n"), 400),
    "two Hosts": (get(headers=b"Host: x\r\nHost: y\r\n"), 400),
    "a Host of signs": (get(headers=b"Host: x y/<script>@\r\n"), 400),
    "a Host that is not ASCII": (get(headers=b"Host: \xff\xfe\r\n"), 400),
    "CONNECT": (get(b"evil.example:443", method=b"CONNECT"), 405),
    "an asterisk as target": (get(b"*", method=b"OPTIONS"), 404),
    "TRACE": (get(method=b"TRACE"), 405),
    "a method in lower case": (get(method=b"get"), 405),
    "a method that is none": (get(method=b"BREW"), 405),
    "a method of 10,000 letters": (get(method=b"A" * 10_000), 405),
    "PUT": (get(b"/chat", method=b"PUT"), 405),
    "HEAD of what is posted": (get(b"/chat", method=b"HEAD"), 405),
    "OPTIONS of nothing": (get(b"/nowhere", method=b"OPTIONS"), 404),
    "a websocket": (get(b"/chat", b"Host: x\r\n" + WEBSOCKET), 405),
    "a path out of the root": (get(b"/files/../../../etc/passwd/content"), 404),
    "an escaped path out of the root": (get(b"/files/%2e%2e%2f%2e%2e/etc/passwd/content"), 404),
    "an escaped NUL": (get(b"/conversations/%00"), 404),
    "an escaped NUL in a user": (get(b"/users/%00/stats"), 400),
    "escapes that are not UTF-8": (get(b"/conversations/%ff%fe"), 404),
    "an escaped surrogate": (get(b"/users/%ed%a0%80/stats"), 400),
    "escapes that are none": (get(b"/conversations/%zz%"), 404),
    "letters in UTF-8 in the path": (get("/ключ".encode()), 404),
    "a query with a NUL": (get(b"/conversations?user_id=%00"), 400),
    "a query whose escapes are not UTF-8": (get(b"/files?user_id=%ff"), 400),
    "a query of 10,000 names": (get(b"/users/u/stats?" + b"a=b&" * 10_000), 400),
    "a compressed transfer": (chunked(TURN_IN_CHUNKS, coding=b" gzip, chunked"), 400),
    "a chunk whose size is none": (chunked(b"ZZ\r\n{}\r\n0\r\n\r\n"), 400),
    "a chunk of negative size": (chunked(b"-1\r\n{}\r\n0\r\n\r\n"), 400),
    "a chunk with 0x": (chunked(b"0x10\r\n" + TURN + b"\r\n0\r\n\r\n"), 400),
    "a chunk past 64 bits": (chunked(b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n"), 400),
    "a chunk longer than its size": (chunked(b"4\r\n" + TURN + b"\r\n0\r\n\r\n"), 400),
    "chunks between bare line feeds": (chunked(b"10\n" + TURN + b"\n0\n\n"), 400),
    "a chunk's extension of 100 KB": (chunked(b"10;" + b"a" * 100_000 + b"\r\n" + TURN + b"\r\n0\r\n\r\n"), 400),
    "a line feed in a chunk's extension": (chunked(b"10;a\nb\r\n" + TURN + b"\r\n0\r\n\r\n"), 400),
    "5,000 trailers": (chunked(b"10\r\n" + TURN + b"\r\n0\r\n" + MANY_HEADERS + b"\r\n"), 400),
    "a trailer without a colon": (chunked(b"10\r\n" + TURN + b"\r\n0\r\nno colon\r\n\r\n"), 400),
    "a body that is not UTF-8": (post(body=b'{"message":"\xff"}'), 400),
    "a body in UTF-16": (post(body='{"message":"hi"}'.encode("utf-16")), 400),
    "a byte order mark": (post(body=b"\xef\xbb\xbf" + TURN), 400),
    "a lone surrogate": (post(body=rb'{"message":"\ud800"}'), 400),
    "a NUL in a message": (post(body=rb'{"message":"\u0000"}'), 400),
    "a name twice": (post(body=b'{"message":"hi","message":"ho"}'), 400),
    "NaN": (post(body=b'{"message":"hi","temperature":NaN}'), 400),
    "a number of 200,000 digits": (post(body=b'{"message":"hi","temperature":' + b"9" * 200_000 + b"}"), 400),
    "a number past every float": (post(body=b'{"message":"hi","temperature":1e999999}'), 400),
    "200,000 brackets": (post(body=b"[" * 200_000), 400),
    "1,000,000 brackets": (post(body=b"[" * 1_000_000), 413),
    "1,000,000 brackets in chunks": (chunked(b"f4240\r\n" + b"[" * 1_000_000 + b"\r\n0\r\n\r\n"), 413),
    "a body of 20 MB": (post(body=b" " * 20_000_000), 413),
    "a body said to be of 4 EB": (post(length=b"4611686018427387904"), 413),
    "a compressed body": (post(b"Content-Encoding: gzip\r\n", bytes.fromhex("1f8b0800")), 415),
    "a body as text": (post(media_type=b"text/plain"), 415),
    "a body in Latin-1": (post(media_type=b"application/json; charset=latin-1"), 415),
    "a charset that is not ASCII": (post(media_type=b"application/json; charset=\xff"), 415),
    "two content types": (post(b"Content-Type: application/json\r\n"), 415),
    "a form without a boundary": (post(path=b"/files/upload", media_type=b"multipart/form-data"), 400),
    "a form that is none": (post(path=b"/files/upload", media_type=b"multipart/form-data; boundary=x"), 400),
    "an idempotency key that is not ASCII": (post(b"Idempotency-Key: \xff\r\n"), 400),
    "two idempotency keys": (post(b"Idempotency-Key: a\r\nIdempotency-Key: b\r\n"), 400),
    "an event id of 400 digits": (
        get(b"/chat/stream/resp_1", b"Host: x\r\nLast-Event-ID: " + b"9" * 400 + b"\r\n"),
        400,
    ),
}

# What looks strange and is right, or harmless.
TAKEN: Final[Mapping[str, tuple[bytes, int]]] = {
    "HTTP/1.0": (b"GET /health/live HTTP/1.0\r\nHost: x\r\n\r\n", 200),
    "an authority as target": (get(b"evil.example:80"), 307),  # the start page's way to /docs, on this server
    "an absolute target": (get(b"http://x/health/live"), 200),
    "empty lines before the request": (b"\r\n\r\n" + get(), 200),
    "bare line feeds": (b"GET /health/live HTTP/1.1\nHost: x\n\n", 200),
    "the same length twice": (post(b"Content-Length: 16\r\n"), 200),
    "a chunk's extension": (chunked(b"10;a=b\r\n" + TURN + b"\r\n0\r\n\r\n"), 200),
    "trailers": (chunked(b"10\r\n" + TURN + b"\r\n0\r\nContent-Length: 3\r\nHost: y\r\n\r\n"), 200),
    "an upgrade to HTTP/2": (
        get(headers=b"Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n"),
        200,
    ),
    "an upgrade to a websocket": (get(headers=b"Host: x\r\n" + WEBSOCKET), 200),
    "a question before the body": (post(b"Expect: 100-continue\r\n"), 200),
    "a body that nobody asked for": (get(headers=b"Host: x\r\nContent-Length: 5\r\n") + b"hello", 200),
    "a forged origin": (get(headers=b"Host: x\r\nX-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\n"), 200),
    "HEAD": (get(method=b"HEAD"), 200),
    "OPTIONS": (get(b"/chat", method=b"OPTIONS"), 204),
}


class Talk:
    """A connection, and what comes out of it."""

    def __init__(self, service: Service, sent: bytes) -> None:
        url = httpx.URL(service.url)
        self.socket = socket.create_connection((url.host, url.port or 0), timeout=PATIENCE_S)
        self.heard = b""
        self._is_head = sent.startswith(b"HEAD")
        with suppress(ConnectionError):  # it may have been refused before all of it was sent
            self.socket.sendall(sent)

    def __enter__(self) -> "Talk":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def answer(self) -> tuple[int | None, dict[str, str], bytes]:
        """Status, headers and body of the next final answer; no status where the connection ends before."""
        while b"\r\n\r\n" not in self.heard:
            if not self._hears_more():
                return None, {}, self.heard
        head, _, self.heard = self.heard.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        status = int(status_line.split(" ")[1])
        if status < 200:
            return self.answer()
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0")) * (not self._is_head)
        while len(self.heard) < length and self._hears_more():
            pass
        body, self.heard = self.heard[:length], self.heard[length:]
        return status, headers, body

    def is_over(self) -> bool:
        """Wait for its end."""
        while self._hears_more():
            pass
        return True

    def _hears_more(self) -> bool:
        try:
            heard = self.socket.recv(65536)
        except ConnectionError:
            return False
        self.heard += heard
        return bool(heard)


@pytest.fixture(scope="module")
def service(
    provider: OpenAIStandIn, migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("hostile")
    database = shutil.copy(migrated_sqlite_file, folder)
    with serving(folder, provider, f"sqlite:///{database}", TEXTLLM_COST_LIMIT_PER_SESSION="1000") as service:
        yield service


@pytest.fixture
def impatient(provider: OpenAIStandIn, sqlite_url: str, tmp_path: Path) -> Iterator[Service]:
    """One that waits for nobody as long as by default."""
    waits = {f"TEXTLLM_{what}_TIMEOUT_S": "2" for what in ("HEADER", "BODY", "UNREAD")}
    with serving(tmp_path, provider, sqlite_url, **waits) as service:
        yield service


@pytest.fixture(autouse=True)
def nothing_else_happens(service: Service) -> Iterator[None]:
    """Whatever was sent: the worker is the same, others are served, and the log has nothing to tell."""
    worker, written = service.workers(), service.log.stat().st_size
    yield
    check_others_are_served(service)
    assert service.workers() == worker
    lines = service.log.read_bytes()[written:].decode().splitlines()
    assert [line for line in lines if json.loads(line)["level"] not in ("DEBUG", "INFO")] == []


def check_others_are_served(service: Service) -> None:
    assert service.get("/health/live").json() == {"status": "alive"}
    assert service.chat("still there?").json()["text"] == "[0] You said: still there?"


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_no_http_is_hung_up_on(service: Service, name: str) -> None:
    sent, expected = UNREADABLE[name]
    with Talk(service, sent) as talk:
        status, _, body = talk.answer()
        assert (status, body) == (expected, b"")
        assert talk.is_over()


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_gets_a_problem_document(service: Service, name: str) -> None:
    sent, expected = REFUSED[name]
    with Talk(service, sent) as talk:
        status, headers, body = talk.answer()
    assert status == expected
    assert headers["content-type"] == "application/problem+json"
    if not sent.startswith(b"HEAD"):
        problem = json.loads(body)
        assert (problem["status"], problem["instance"]) == (expected, headers["x-request-id"])
    assert ("allow" in headers) == (expected == 405)


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_strange_and_right_is_answered(service: Service, name: str) -> None:
    sent, expected = TAKEN[name]
    with Talk(service, sent) as talk:
        status, headers, _ = talk.answer()
    assert (status, headers["x-content-type-options"], headers["server"]) == (expected, "nosniff", "textllm")


@pytest.mark.parametrize("length_first", [True, False])
def test_a_request_cannot_be_smuggled_behind_two_kinds_of_length(service: Service, length_first: bool) -> None:
    sent = chunked(TURN_IN_CHUNKS + get(b"/config"), b"Content-Length: 4\r\n")
    if length_first:
        sent = sent.replace(b"Content-Length: 4\r\n", b"").replace(b"Host: x", b"Content-Length: 4\r\nHost: x", 1)
    with Talk(service, sent) as talk:
        assert talk.answer()[0] == 200
        assert talk.is_over()
        assert talk.heard == b""  # what came behind it is not read as a request


def test_requests_in_one_go_are_answered_in_their_order(service: Service) -> None:
    targets = [b"/health/live", b"/nowhere", b"/chat", b"/health/live"] * 25
    with Talk(service, b"".join(map(get, targets))) as talk:
        assert [talk.answer()[0] for _ in targets] == [200, 404, 405, 200] * 25


@pytest.mark.parametrize("sent", [post(), post()[:-5], post()[:40], chunked(TURN_IN_CHUNKS[:-5]), get()])
@pytest.mark.parametrize("leaves", ["at once", "half"])
def test_whoever_leaves_early_leaves_nothing_behind(service: Service, sent: bytes, leaves: str) -> None:
    with Talk(service, sent) as talk:
        if leaves == "half":
            talk.socket.shutdown(socket.SHUT_WR)
            status, _, _ = talk.answer()
            assert status in (200, 400, None)
            assert talk.is_over()


def drip(talk: Talk, drop: bytes) -> None:
    """Send a little each second until the other side has had enough; never longer than `PATIENCE_S`."""
    talk.socket.settimeout(1)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        assert time.monotonic() < deadline, talk.heard
        try:
            if not (heard := talk.socket.recv(65536)):
                return
            talk.heard += heard
        except TimeoutError:
            with suppress(ConnectionError):  # which the next look will show
                talk.socket.sendall(drop)
        except ConnectionError:
            return


def ask_and_never_read(talk: Talk, request: bytes) -> None:
    """Ask on and on, until the other side has had enough."""
    talk.socket.settimeout(1)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with suppress(TimeoutError):
            try:
                talk.socket.sendall(request)
            except ConnectionError:
                return
    raise AssertionError("it is still connected")


FORM: Final = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
# name: what is sent at first, what each second (None: nothing is read), the status that is heard
SLOW: Final[Mapping[str, tuple[bytes, bytes | None, int | None]]] = {
    "nothing": (b"", b"", None),
    "empty lines": (b"", b"\r\n", None),
    "a request line": (b"GET /", b"a", None),
    "a header": (b"GET /health/live HTTP/1.1\r\nHost: x\r\nX-A: ", b"a", None),
    "headers": (b"GET /health/live HTTP/1.1\r\nHost: x\r\n", b"X-A: b\r\n", None),
    "no second request": (get(), b"", 200),
    "a second request": (get() + b"GET /", b"a", 200),
    "a body": (post(body=b"", length=b"200"), b" ", 400),
    "no body": (post(body=b"", length=b"200"), b"", 400),
    "a body in chunks": (chunked(b""), b"1\r\n \r\n", 400),
    "a chunk of 8 EB": (chunked(b"7fffffffffffffff\r\n"), b" ", 400),
    "a body to nowhere": (post(body=b"", length=b"200", path=b"/nowhere"), b" ", 404),
    "a form without its end": (
        post(body=FORM, length=b"2000", path=b"/files/upload", media_type=b"multipart/form-data; boundary=x"),
        b"",
        400,
    ),
    "unread answers": (get(b"/config") * 1000, None, None),
}


def hang_on(service: Service, name: str) -> None:
    sent, drop, expected = SLOW[name]
    with Talk(service, sent) as talk:
        if drop is None:
            ask_and_never_read(talk, sent)
            return
        drip(talk, drop)
        status, _, _ = talk.answer()
        assert status == expected, name


def test_whoever_is_slow_is_cut_off_and_keeps_nobody_waiting(impatient: Service) -> None:
    with ThreadPoolExecutor(len(SLOW)) as clients, ExitStack() as opened:
        slow = [clients.submit(hang_on, impatient, name) for name in SLOW]
        many = [opened.enter_context(Talk(impatient, b"GET /health/live HTTP/1.1\r\n")) for _ in range(200)]
        for _ in range(5):
            check_others_are_served(impatient)
        assert all(talk.is_over() for talk in many)
        for client in slow:
            client.result()


def test_memory_does_not_grow_with_what_is_refused(service: Service) -> None:
    (worker,) = service.workers()
    everything = [sent for table in (UNREADABLE, REFUSED) for sent, _ in table.values()]

    def send_all(_: int) -> None:
        for sent in everything:
            with Talk(service, sent) as talk:
                talk.answer()

    process = psutil.Process(worker)
    with ThreadPoolExecutor(2) as clients:
        list(clients.map(send_all, range(2)))
        before = process.memory_info().rss
        list(clients.map(send_all, range(6)))
    assert process.memory_info().rss - before < 32 * 2**20
