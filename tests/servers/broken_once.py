"""A way to a server that breaks once, in the midst of a stream."""

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

MARK = b"id: 3\n"


@contextmanager
def broken_once(url: str) -> Iterator[str]:
    """The address of a proxy that closes the first stream once its third event has begun."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = threading.Thread(target=_pass_on, args=(listener, url), daemon=True)
        proxy.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        proxy.join(30)


def _pass_on(listener: socket.socket, url: str) -> None:
    server, is_broken = httpx.URL(url), False
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        with client, socket.create_connection((server.host, server.port or 0)) as upstream:
            request = b""
            while not _is_whole(request):
                request += client.recv(65536)
            upstream.sendall(
                re.sub(rb"(?i)\r\nconnection: [^\r]*", b"", request).replace(
                    b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1
                )
            )
            answered = b""
            while piece := upstream.recv(65536):
                sent, answered = len(answered), answered + piece
                if MARK in answered and not is_broken:
                    is_broken = True
                    client.sendall(answered[sent : max(sent, answered.index(MARK))])
                    break
                client.sendall(piece)


def _is_whole(request: bytes) -> bool:
    head, blank, body = request.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return bool(blank) and len(body) >= (int(length[1]) if length else 0)
