"""The parts of granian that are not for others, and that a worker stands on all the same."""

import asyncio
import socket
from importlib.metadata import version
from typing import Any

import pytest
from granian._granian import SocketHolder
from granian.server.common import AbstractServer
from granian.server.embed import Server

from textllm_http.control import BACKLOG
from textllm_http.worker import _Server

ADVICE = """\
granian has changed what textllm_http/worker.py takes from its inside: SocketHolder, _init_shared_socket, _shd.
Look at AbstractServer._init_shared_socket in granian/server/common.py, and at what granian/server/embed.py does with
_shd. Let `_Server` make what they make now, but of the listener that all workers share. Run this file, and
test_serve.py and test_shutdown.py in tests/e2e. Then allow the new minor version in pyproject.toml and here.
"""


def test_it_is_the_version_whose_inside_is_known() -> None:
    assert version("granian").startswith("2.8."), ADVICE


def test_a_server_makes_its_socket_where_ours_puts_the_listener() -> None:
    assert "_init_shared_socket" in vars(AbstractServer), ADVICE
    assert "_init_shared_socket" in Server.startup.__code__.co_names, ADVICE
    assert "_shd" in Server._spawn_worker.__code__.co_names, ADVICE
    with socket.create_server(("127.0.0.1", 0)) as listener:
        holder = SocketHolder(listener.fileno(), False, BACKLOG)  # type: ignore[call-arg]
        assert holder.get_fd() == listener.fileno(), ADVICE
        listener.detach()  # it is the holder's


async def hello(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


async def test_it_serves_from_a_listener_that_others_share_and_leaves_it_to_them() -> None:
    with socket.create_server(("127.0.0.1", 0)) as shared:
        shared.setblocking(False)
        address = shared.getsockname()
        server = _Server(hello, shared.dup().detach(), header_timeout_s=5.0)  # type: ignore[arg-type]
        serving = asyncio.create_task(server.serve())
        try:
            assert await asked(address) == b"hello", ADVICE
            server.stop_accepting()
            others = asyncio.create_task(asyncio.get_running_loop().sock_accept(shared))
            _, writer = await asyncio.open_connection(*address)
            (connection, _) = await asyncio.wait_for(others, 5)
            connection.close()
            writer.close()
        except (AttributeError, TypeError, OSError, TimeoutError) as error:
            pytest.fail(f"{ADVICE}\n{error!r}")
        finally:
            server.end()
            await asyncio.wait_for(serving, 5)


async def asked(address: tuple[str, int]) -> bytes:
    """The body of what it answers."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"GET / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer.rpartition(b"\r\n\r\n")[2]
