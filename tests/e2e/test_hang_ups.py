"""Clients hang up at every point of a stream, by a reset: the books stay what the provider bills."""

import asyncio
import json
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tests.e2e.conftest import API_KEY, Books, Service, price_of, serving
from tests.servers.openai import OpenAIStandIn, Reply

from textllm_core.usage import LedgerEntry

DELTAS = tuple(f"<{number}>" for number in range(12))
BEFORE_THE_FIRST_BYTE = -1
# After none of the answer, after the first event that begins and so on, and after the end.
POINTS = (BEFORE_THE_FIRST_BYTE, *range(1, len(DELTAS) + 3))
AT_ONCE = 20


@dataclass(frozen=True)
class Caller:
    """One client: whose stream it is, and how many of its events are read before the connection is reset."""

    user: str
    events: int

    async def hang_up(self, service: Service, provider: OpenAIStandIn) -> None:
        url = httpx.URL(service.url)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        plug: socket.socket = writer.get_extra_info("socket")
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        body = json.dumps({"message": self.user, "user_id": self.user, "stream_format": "events"}).encode()
        head = "POST /chat/stream HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        if self.events == BEFORE_THE_FIRST_BYTE:
            # A reset may also overtake the request, which then never came.
            while self.user not in asked_for(provider):  # noqa: ASYNC110 - the provider is in another thread
                await asyncio.sleep(0.01)
        received = b""
        while received.count(b"\nid: ") < self.events:
            piece = await reader.read(4096)
            assert piece, received
            received += piece
        writer.transport.abort()


def asked_for(provider: OpenAIStandIn) -> set[str]:
    """The users whose turns have come to the provider."""
    return {request.body["input"][-1]["content"] for request in provider.requests if request.path == "/v1/responses"}


@pytest.fixture
def own_provider() -> Iterator[OpenAIStandIn]:
    with OpenAIStandIn(api_key=API_KEY) as provider:
        provider.default = Reply(deltas=DELTAS, pause_s=0.02)
        yield provider


@pytest.mark.parametrize("streams", [100, pytest.param(1_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
async def test_streams_that_are_hung_up_anywhere_cost_what_the_provider_bills_and_go_on(
    request: pytest.FixtureRequest, own_provider: OpenAIStandIn, tmp_path: Path, store: str, streams: int
) -> None:
    database: str = request.getfixturevalue(f"{store}_url")
    callers = [Caller(f"user_{number}", POINTS[number % len(POINTS)]) for number in range(streams)]
    free = asyncio.Semaphore(AT_ONCE)

    async def call(caller: Caller) -> None:
        async with free:
            await caller.hang_up(service, own_provider)

    with serving(tmp_path, own_provider, database, "--workers", "2") as service:
        await asyncio.gather(*map(call, callers))
        books = Books(database)
        entries = {caller.user: await books.entries(caller.user) for caller in callers}
        billed = list(own_provider.bills)
        _compare(entries, own_provider)
        own_provider.default = Reply()  # which tells how many messages came before
        await asyncio.gather(*[asyncio.to_thread(_go_on, service, entries[caller.user][0]) for caller in callers[::7]])
    assert len(billed) == streams
    assert own_provider.disconnects == []
    assert await books.drifts() == []


def _compare(entries: dict[str, list[LedgerEntry]], provider: OpenAIStandIn) -> None:
    rows = [row for of_user in entries.values() for row in of_user]
    assert [len(of_user) for of_user in entries.values()] == [1] * len(entries)
    assert {(row.status, row.estimated) for row in rows} == {("completed", False)}
    bills = {bill.response_id: price_of(bill) for bill in provider.bills}
    assert {row.provider_response_id: row.cost for row in rows} == bills
    assert all(row.cost > 0 and row.usage.output_tokens > 0 for row in rows)


def _go_on(service: Service, entry: LedgerEntry) -> None:
    again = service.chat("still there?", conversation_id=entry.conversation_id)
    assert (again.status_code, again.json()["text"]) == (200, "[2] You said: still there?"), again.text
