"""Connections to a provider: what is kept of them, what ends them, and what of HTTP they understand."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import NameOID

from textllm_adapters.openai.connections import BrokenAnswerError, Connections, SilenceError, UnreachableError

SHORT = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]


class Server:
    """Answers the requests of each connection in their order.

    Args:
        answers: to one request each; after the last one the connection is closed.
    """

    def __init__(self, *answers: bytes, then_closes: bool = True) -> None:
        self._answers, self._then_closes = answers, then_closes
        self.connections = 0
        self.asked: list[bytes] = []
        self.closed = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            for answer in self._answers:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                self.asked.append(head + await reader.readexactly(length))
                writer.write(answer)
                await writer.drain()
            if not self._then_closes:
                await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self.closed.set()


@asynccontextmanager
async def asked(
    serve: Serve,
    *,
    host: str = "127.0.0.1",
    most: int = 10,
    silence_timeout_s: float = 5.0,
    keep_s: float = 30.0,
    served: ssl.SSLContext | None = None,
    trusted: ssl.SSLContext | None = None,
) -> AsyncIterator[Connections]:
    """Connections to a server.

    Args:
        served, trusted: its side of TLS, and ours.
    """
    async with asyncio.timeout(30), await asyncio.start_server(serve, "127.0.0.1", 0, ssl=served) as listening:
        connections = Connections(
            host,
            listening.sockets[0].getsockname()[1],
            certificates=trusted,
            prefix="/v1",
            headers={"Host": host},
            most=most,
            connect_timeout_s=0.5,
            silence_timeout_s=silence_timeout_s,
            keep_s=keep_s,
        )
        try:
            yield connections
        finally:
            await connections.close()


async def told(connections: Connections, body: bytes = b"{}") -> bytes:
    answer = await connections.post("/responses", body, {})
    said = b""
    while piece := await answer.read():
        said += piece
    assert answer.is_over
    answer.close()
    return said


async def test_one_connection_serves_one_call_after_the_other() -> None:
    server = Server(SHORT, SHORT, SHORT)
    async with asked(server.serve) as connections:
        assert [await told(connections, b"%d" % n) for n in range(3)] == [b"ok"] * 3
    assert server.connections == 1
    assert server.asked[1] == b"POST /v1/responses HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\n\r\n1"


async def test_calls_at_once_have_a_connection_each_and_no_more_than_there_may_be() -> None:
    server = Server(b"", then_closes=False)
    async with asked(server.serve, most=2) as connections:
        waiting = [asyncio.create_task(told(connections)) for _ in range(2)]
        while len(server.asked) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        with pytest.raises(UnreachableError):
            await told(connections)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
    assert server.connections == 2


async def test_a_connection_that_was_closed_meanwhile_is_replaced() -> None:
    server = Server(SHORT)
    async with asked(server.serve) as connections:
        for _ in range(2):
            assert await told(connections) == b"ok"
            await server.closed.wait()
            server.closed.clear()
            await asyncio.sleep(0.01)  # until the loop has told us
    assert server.connections == 2


async def test_a_connection_that_is_not_used_is_given_up() -> None:
    server = Server(SHORT, SHORT)
    async with asked(server.serve, silence_timeout_s=0.01, keep_s=0.01) as connections:
        await told(connections)
        await server.closed.wait()


async def test_silence_ends_an_answer_but_not_the_wait_for_its_reader() -> None:
    much = b"x" * 1_000_000
    whole = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(much), much)
    server = Server(whole, whole[:-1], then_closes=False)
    async with asked(server.serve, silence_timeout_s=0.1) as connections:
        answer = await connections.post("/responses", b"{}", {})
        await asyncio.sleep(0.3)
        said = b""
        while piece := await answer.read():
            said += piece
        assert said == much
        with pytest.raises(SilenceError):
            await told(connections)


async def test_of_an_answer_that_nobody_takes_little_is_read() -> None:
    sent = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        piece = b"%x\r\n%b\r\n" % (65536, b"x" * 65536)
        try:
            while sent < 500_000_000:
                writer.write(piece)
                async with asyncio.timeout(0.5):
                    await writer.drain()
                sent += len(piece)
        except (TimeoutError, ConnectionError):
            pass
        writer.transport.abort()

    async with asked(pour) as connections:
        answer = await connections.post("/responses", b"{}", {})
        before = -1
        while before < sent or not sent:  # until it stands still
            before = sent
            await asyncio.sleep(0.1)
        answer.close()
    assert sent < 50_000_000  # what the buffers of the two sockets take


UNDERSTOOD = {
    "early hints": (b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + SHORT, b"ok"),
    "chunks": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n", b"ok"),
    "an end that is that of the connection": (b"HTTP/1.0 200 OK\r\n\r\nok", b"ok"),
    "nothing": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "a form that is none": (b"HTTP/1.1 200 OK\r\ncontent-encoding: identity\r\ncontent-length: 2\r\n\r\nok", b"ok"),
    "lines with bare feeds": (b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok", b"ok"),
}


@pytest.mark.parametrize("kind", sorted(UNDERSTOOD))
async def test_answers_are_understood_in_all_forms_that_they_may_have(kind: str) -> None:
    sent, said = UNDERSTOOD[kind]
    async with asked(Server(sent).serve) as connections:
        assert await told(connections) == said


NOT_UNDERSTOOD = {
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    "a form that was not asked for": SHORT.replace(b"\r\n", b"\r\ncontent-encoding: gzip\r\n", 1),
    "a head without end": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000,
    "less than was promised": SHORT[:-1],
    "an unended chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nok",
}


@pytest.mark.parametrize("kind", sorted(NOT_UNDERSTOOD))
async def test_what_is_no_answer_breaks_the_call(kind: str) -> None:
    async with asked(Server(NOT_UNDERSTOOD[kind]).serve) as connections:
        with pytest.raises(BrokenAnswerError):
            await told(connections)


async def test_an_answer_to_nothing_is_nobodys() -> None:
    server = Server(SHORT + SHORT.replace(b"ok", b"no"), SHORT, then_closes=False)
    async with asked(server.serve) as connections:
        assert [await told(connections), await told(connections)] == [b"ok", b"ok"]
    assert server.connections == 2


async def test_headers_have_the_first_value_and_a_name_in_lower_case() -> None:
    async with asked(Server(SHORT.replace(b"\r\n", b"\r\nX-Id: 1\r\nx-id: 2\r\n", 1)).serve) as connections:
        answer = await connections.post("/responses", b"{}", {})
        answer.close()
    assert answer.headers["x-id"] == "1"


async def test_no_header_makes_two_lines() -> None:
    async with asked(Server(SHORT).serve) as connections:
        with pytest.raises(ValueError, match="more than one line"):
            await connections.post("/responses", b"{}", {"tracestate": "a\r\nx: b"})


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_whichever_address_of_a_host_answers_is_used(host: str) -> None:
    async with asked(Server(SHORT).serve, host=host) as connections:
        assert await told(connections) == b"ok"


async def test_a_host_that_does_not_exist_is_not_reached() -> None:
    async with asked(Server(SHORT).serve, host="host.invalid") as connections:
        with pytest.raises(UnreachableError):
            await told(connections)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the host `localhost`, with its key; signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    plain = Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    path.write_bytes(made.public_bytes(Encoding.PEM) + key.private_bytes(*plain))
    return path


def of_server(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


async def test_a_server_whose_certificate_is_trusted_is_spoken_to_in_secret(certificate: Path) -> None:
    server, trusted = Server(SHORT, SHORT), ssl.create_default_context(cafile=certificate)
    async with asked(server.serve, host="localhost", served=of_server(certificate), trusted=trusted) as connections:
        assert [await told(connections), await told(connections)] == [b"ok", b"ok"]
    assert server.connections == 1


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_nothing_is_sent_to_one_that_cannot_prove_who_it_is(certificate: Path, host: str) -> None:
    server = Server(SHORT)
    trusted = ssl.create_default_context(cafile=certificate if host == "127.0.0.1" else None)
    async with asked(server.serve, host=host, served=of_server(certificate), trusted=trusted) as connections:
        with pytest.raises(UnreachableError):
            await told(connections)
    assert not server.asked


async def test_one_that_speaks_no_tls_is_not_reached() -> None:
    async with asked(Server(SHORT).serve, trusted=ssl.create_default_context()) as connections:
        with pytest.raises(UnreachableError):
            await told(connections)
