"""A server that hears a request, whatever it is, and has one answer to all of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came: its first line, its headers by their names in lower case, its body."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Answering:
    """Where it listens, and what it was asked."""

    address: str = ""
    asked: list[Asked] = field(default_factory=list)


@asynccontextmanager
async def answering(
    body: bytes, *headers: str, status: str = "200 OK", length: int | None = None
) -> AsyncIterator[Answering]:
    """
    Args:
        headers: of each answer, beside its length.
        length: that it states, where that is not the true one.
    """
    length = len(body) if length is None else length

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
        named = {name.lower(): value for name, _, value in (header.partition(": ") for header in lines)}
        sent = await reader.readexactly(int(named.get("content-length", "0")))
        server.asked.append(Asked(line, named, sent))
        head = "\r\n".join([f"HTTP/1.1 {status}", f"content-length: {length}", "connection: close", *headers])
        writer.write(head.encode() + b"\r\n\r\n" + body)
        writer.close()

    server = Answering()
    async with asyncio.timeout(30), await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        server.address = "127.0.0.1:{1}".format(*listening.sockets[0].getsockname())
        yield server
