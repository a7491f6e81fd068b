"""Clients hang up at every point of a stream, at every door, by a reset: the books stay what the provider bills."""

import asyncio
import json
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

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
DOORS: Final = ("chat", "completions", "responses")


@dataclass(frozen=True)
class Caller:
    """One client: whose stream it is, and how many of its events are read before the connection is reset.

    Attributes:
        door: where it asks; one of OpenAI's clients that asks for completions keeps what is said itself.
    """

    user: str
    events: int
    door: Literal["chat", "completions", "responses"]

    @property
    def keeps(self) -> bool:
        return self.door == "completions"

    @property
    def request(self) -> tuple[str, bytes, bytes]:
        """The path, the body, and how an event of the answer begins."""
        if self.keeps:
            said = [{"role": "user", "content": self.user}]
            asked: dict[str, object] = {"messages": said, "user": self.user, "stream": True}
            return "/v1/chat/completions", json.dumps(asked).encode(), b"data: {"
        if self.door == "responses":
            asked = {"input": self.user, "user": self.user, "stream": True}
            return "/v1/responses", json.dumps(asked).encode(), b"event: response."
        asked = {"message": self.user, "user_id": self.user, "stream_format": "events"}
        return "/chat/stream", json.dumps(asked).encode(), b"\nid: "

    async def hang_up(self, service: Service, provider: OpenAIStandIn) -> None:
        url = httpx.URL(service.url)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        plug: socket.socket = writer.get_extra_info("socket")
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        path, body, begins = self.request
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        if self.events == BEFORE_THE_FIRST_BYTE:
            # A reset may also overtake the request, which then never came.
            while self.user not in asked_for(provider):  # noqa: ASYNC110 - the provider is in another thread
                await asyncio.sleep(0.01)
        received = b""
        while received.count(begins) < self.events:
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
    callers = [
        Caller(f"user_{number}", POINTS[number % len(POINTS)], DOORS[number // len(POINTS) % len(DOORS)])
        for number in range(streams)
    ]
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
        kept_here = [caller.user for caller in callers[::7] if not caller.keeps]
        await asyncio.gather(*[asyncio.to_thread(_go_on, service, entries[user][0]) for user in kept_here])
    assert len(billed) == streams
    assert own_provider.disconnects == []
    assert await books.drifts() == []


def _compare(entries: dict[str, list[LedgerEntry]], provider: OpenAIStandIn) -> None:
    rows = [row for of_user in entries.values() for row in of_user]
    assert [len(of_user) for of_user in entries.values()] == [1] * len(entries)
    assert {(row.status, row.estimated) for row in rows} == {("completed", False)}
    bills = {bill.response_id: price_of(bill) for bill in provider.bills}
    named = {row.provider_response_id: row.cost for row in rows if row.provider_response_id is not None}
    assert named.items() <= bills.items()
    of_others = [row.cost for row in rows if row.provider_response_id is None]  # what is not stored has no name
    assert Counter(of_others) == Counter(cost for name, cost in bills.items() if name not in named)
    assert min(len(named), len(of_others)) > len(rows) // 4
    assert all(row.cost > 0 and row.usage.output_tokens > 0 for row in rows)


def _go_on(service: Service, entry: LedgerEntry) -> None:
    again = service.chat("still there?", conversation_id=entry.conversation_id)
    assert (again.status_code, again.json()["text"]) == (200, "[2] You said: still there?"), again.text
