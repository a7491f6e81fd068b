"""The socket that all workers accept from."""

import socket
import sys
from typing import Final

from textllm_core.errors import ConfigurationError
from textllm_http.control import BACKLOG

# What a client may leave unread costs kernel memory: the system doubles this, and would else let it grow to megabytes.
_SEND_BUFFER_BYTES: Final = 64 * 1024


def listen(address: str, port: int, *, unread_timeout_s: float) -> socket.socket:
    """A socket for all workers. What is queued in it outlives any of them.

    Args:
        unread_timeout_s: until a client that takes nothing of what waits for it is cut off.

    Raises:
        ConfigurationError: it is no address of this machine, or not free.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of a former server may linger
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)  # accepted ones inherit it
        # And this: a piece of a reply leaves at once, and not when the client has acknowledged the one before (40 ms).
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if sys.platform == "linux":  # and this, which ends those whose clients do not read what they asked for
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * unread_timeout_s))
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigurationError(f"Cannot listen on {address}, port {port}: {error.strerror or error}") from error
    listener.setblocking(False)
    return listener
