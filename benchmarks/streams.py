"""How much memory a live stream takes, and whether others are still answered, with thousands of slow ones in a worker.

    python -m benchmarks.streams [STREAMS]

Starts `textllm serve` with one worker on a PostgreSQL of its own before the stand-in provider, opens STREAMS streams
(2,000 unless said otherwise) of one delta a second, and prints the worker's memory a stream and the latencies of
`/health/live` and `/chat`. Then 500 clients read long replies at 100 bytes a second while 50 never read, and the
worker's memory is printed, and how many of the turns are settled, until they have gone. Figures of memory hold on any
machine of the same kind; latencies only beside each other.
"""

import asyncio
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from benchmarks.processes import own_memory
from tests.e2e.conftest import API_KEY, Service, serving
from tests.servers.openai import OpenAIStandIn, Reply
from tests.servers.postgres import open_postgres

from textllm_adapters.postgres.engine import open_engine
from textllm_adapters.sql import migrations

DELTAS_OF_LIVE_STREAM = 180
OPENING_AT_ONCE = 20
PROBLEM = re.compile(rb'"code":"([a-z_]+)"')
LONG_REPLY = Reply(deltas=(" word" * 200,) * 400)
SETTLED = re.compile(r'^textllm_turns_total\{.*status="(\w+)".*\} (\S+)$', re.MULTILINE)


@contextmanager
def worker(provider: OpenAIStandIn) -> Iterator[tuple[Service, psutil.Process]]:
    """A server of one worker over PostgreSQL."""
    with tempfile.TemporaryDirectory() as folder, open_postgres() as postgres:
        url = postgres.create_database()
        asyncio.run(migrate(url))
        with serving(Path(folder), provider, url, TEXTLLM_COST_LIMIT_PER_SESSION="100000") as service:
            yield service, psutil.Process(service.workers()[0])


async def migrate(url: str) -> None:
    """Give the database all tables."""
    engine = open_engine(url, command_timeout_s=None)
    await migrations.upgrade(engine)
    await engine.dispose()


async def ask(
    service: Service, path: str, body: dict[str, object]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a request; the reader holds no more of the answer than 4 KiB."""
    port = int(service.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    writer.write(head.encode() + content)
    return reader, writer


async def live_stream(service: Service, opening: asyncio.Semaphore, n: int) -> asyncio.Task[str]:
    """Open a stream in its turn; it is read from its first event on."""
    async with opening:
        reader, writer = await ask(service, "/chat/stream", {"message": f"stream {n}"})
        await reader.readuntil(b"data: ")
    return asyncio.create_task(read_to_end(reader, writer))


async def read_to_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """How it ended: `whole`, or the status and the code of the problem."""
    received = b""
    try:
        while b"[DONE]" not in received[-64:] and (piece := await reader.read(4096)):
            received += piece
            if b"\r\n0\r\n" in received or PROBLEM.search(received):
                break
    except ConnectionError as error:
        return repr(error)
    finally:
        writer.close()
    if b"[DONE]" in received:
        return "whole"
    problem = PROBLEM.search(received)
    return f"{received[9:12].decode()} {problem[1].decode() if problem else received[-80:]!r}"


async def latency(service: Service, method: str, path: str, body: bytes = b"") -> float:
    """Milliseconds of one request on a connection of its own."""
    port = int(service.url.rpartition(":")[2])
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
    writer.write(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    answer = await reader.read()
    writer.close()
    assert b" 200 " in answer[:20], answer[:200]
    return (time.perf_counter() - began) * 1000


async def latencies(call: Callable[[], Awaitable[float]], times: int) -> str:
    taken = sorted([await call() for _ in range(times)])
    return f"median {statistics.median(taken):.1f} ms, worst of {times} {taken[-1]:.1f} ms"


async def live_streams(service: Service, process: psutil.Process, provider: OpenAIStandIn, streams: int) -> None:
    provider.default = Reply(text="Paris.")
    for _ in range(20):
        await latency(service, "POST", "/chat", b'{"message": "warm up"}')
    print("load average:", os.getloadavg())
    print("idle: /chat", await latencies(lambda: latency(service, "POST", "/chat", b'{"message": "x"}'), 20))
    before = own_memory(process)
    provider.default = Reply(deltas=("word ",) * DELTAS_OF_LIVE_STREAM, pause_s=1.0)
    began = time.perf_counter()
    opening = asyncio.Semaphore(OPENING_AT_ONCE)
    reading = await asyncio.gather(*(live_stream(service, opening, n) for n in range(streams)))
    print(f"opened in {time.perf_counter() - began:.0f} s, {OPENING_AT_ONCE} at once")
    await asyncio.sleep(5)
    provider.default = Reply(text="Paris.")
    grown, live = own_memory(process) - before, sum(not stream.done() for stream in reading)
    busy = process.cpu_percent(10)
    if live < streams:
        raise RuntimeError(f"{streams - live} ended before all were open: this machine is too slow for {streams}")
    print(f"{streams} streams: {grown / streams / 1024:.1f} KB each ({grown / 2**20:.0f} MB); {busy:.0f} % of a core")
    print("  /health/live", await latencies(lambda: latency(service, "GET", "/health/live"), 50))
    print("  /chat", await latencies(lambda: latency(service, "POST", "/chat", b'{"message": "x"}'), 20))
    ended = await asyncio.gather(*reading)
    print("  ends:", dict(Counter(ended)))
    await asyncio.sleep(2)
    print(f"  afterwards: {(own_memory(process) - before) / 2**20:.0f} MB more than before")


async def slow_readers(service: Service, process: psutil.Process, provider: OpenAIStandIn) -> None:
    provider.default = LONG_REPLY
    before, settled_before = own_memory(process), settled(service)
    clients = []
    for n in range(550):
        clients.append(await ask(service, "/chat/stream", {"message": f"slow {n}", "stream_format": "events"}))
        if n % 10 == 0:
            await asyncio.sleep(0.2)

    async def sip(reader: asyncio.StreamReader) -> None:
        while await reader.read(100):  # noqa: ASYNC110 - a pace, not a wait
            await asyncio.sleep(1)

    sipping = [asyncio.create_task(sip(reader)) for reader, _ in clients[50:]]
    for second in range(0, 90, 10):
        grown, ended = own_memory(process) - before, settled(service) - settled_before
        print(f"  after {second} s: {grown / 2**20:.0f} MB more than before; settled: {dict(ended)}")
        await asyncio.sleep(10)
    for task in sipping:
        task.cancel()
    for _, writer in clients:
        writer.transport.abort()
    await asyncio.sleep(5)
    print(f"  all gone: {(own_memory(process) - before) / 2**20:.0f} MB more than before")
    print(f"  settled in all: {dict(settled(service) - settled_before)} of {len(clients)}")


def settled(service: Service) -> Counter[str]:
    """Turns in the ledger by how they ended."""
    found = SETTLED.findall(service.get("/metrics").text)
    return Counter({status: int(float(count)) for status, count in found})


def main(streams: int) -> None:
    with OpenAIStandIn(api_key=API_KEY) as provider, worker(provider) as (service, process):
        asyncio.run(live_streams(service, process, provider, streams))
        print("500 clients of 100 bytes a second, and 50 that never read:")
        asyncio.run(slow_readers(service, process, provider))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
