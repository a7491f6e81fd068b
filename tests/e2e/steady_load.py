"""Turns that come at a steady rate whatever becomes of them, and what must be true of the books afterwards."""

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

import aiohttp
from sqlalchemy import func, select
from tests.e2e.conftest import Books, price_of
from tests.http.sse_reader import read_events
from tests.servers.openai import OpenAIStandIn

from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sql.tables import holds, ledger

PER_S = 50
USERS = 200
READY_EVERY_S = 0.1


@dataclass(frozen=True)
class Turn:
    """What became of a turn.

    Attributes:
        at: when it was asked, in seconds since the load began.
        status: of the answer; of a stream that failed, that of the problem it ended with.
        problem: how it failed; None: it was answered.
        reply: as it was told, once it was told to be complete.
    """

    at: float
    took_s: float
    status: int
    problem: dict[str, object] | None = None
    reply: dict[str, object] | None = None


@dataclass
class SteadyLoad:
    """Fifty turns a second, half of them streams, half of them in conversations that go on.

    Attributes:
        urls: of the servers, which are asked one after the other; they may change meanwhile.
        ready: when readiness was answered, in seconds since the load began, and with what.
    """

    urls: list[str]
    chance: random.Random
    turns: list[Turn] = field(default_factory=list)
    ready: list[tuple[float, int]] = field(default_factory=list)
    _begun: float = field(default_factory=time.monotonic)
    _conversations: dict[str, str] = field(default_factory=dict)

    def now(self) -> float:
        return time.monotonic() - self._begun

    async def run(self, seconds: float) -> None:
        """Ask for so long, and wait for all answers."""
        # It costs half of what httpx does, and turns come whether the machine is busy or not.
        timeout = aiohttp.ClientTimeout(total=90)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as client:
            watching = asyncio.create_task(self._watch(client))
            self._begun = time.monotonic()
            async with asyncio.TaskGroup() as turns:
                for number in range(int(seconds * PER_S)):
                    await asyncio.sleep(max(0.0, number / PER_S - self.now()))
                    turns.create_task(self._turn(client, number))
            watching.cancel()

    async def _watch(self, client: aiohttp.ClientSession) -> None:
        while True:
            async with client.get(f"{self.urls[-1]}/health/ready") as answer:
                self.ready.append((self.now(), answer.status))
            await asyncio.sleep(READY_EVERY_S)

    async def _turn(self, client: aiohttp.ClientSession, number: int) -> None:
        user_id = f"user_{self.chance.randrange(USERS)}"
        body: dict[str, object] = {"message": f"turn {number}", "user_id": user_id}
        if user_id in self._conversations and self.chance.random() < 0.5:
            body["conversation_id"] = self._conversations.pop(user_id)  # which nobody else goes on with meanwhile
        ask = self._streamed if self.chance.random() < 0.5 else self._whole
        at = self.now()
        status, problem, reply = await ask(client, self.urls[number % len(self.urls)], body)
        if reply is not None:
            self._conversations[user_id] = str(reply["conversation_id"])
        self.turns.append(Turn(at, self.now() - at, status, problem, reply))

    async def _whole(
        self, client: aiohttp.ClientSession, url: str, body: dict[str, object]
    ) -> tuple[int, dict[str, object] | None, dict[str, object] | None]:
        async with client.post(f"{url}/chat", json=body) as answer:
            told = _read(await answer.text())
            return (200, None, told) if answer.status == 200 else (*_failed(answer, told), None)

    async def _streamed(
        self, client: aiohttp.ClientSession, url: str, body: dict[str, object]
    ) -> tuple[int, dict[str, object] | None, dict[str, object] | None]:
        async with client.post(f"{url}/chat/stream", json=body | {"stream_format": "events"}) as answer:
            content = await answer.read()
        if answer.status != 200:
            return (*_failed(answer, _read(content.decode())), None)
        last = read_events(content)[-1]
        if last.name == "reply.completed":
            return 200, None, _read(last.data)
        problem = _read(last.data)
        return int(str(problem["status"])), problem, None


def _failed(answer: aiohttp.ClientResponse, problem: dict[str, object]) -> tuple[int, dict[str, object]]:
    assert answer.headers.get("retry-after") == str(problem.get("retry_after_s")), answer.headers
    return answer.status, problem


def _read(text: str) -> dict[str, object]:
    read: dict[str, object] = json.loads(text, parse_float=Decimal)
    return read


async def compare(turns: Sequence[Turn], database: str, provider: OpenAIStandIn) -> None:
    """What was told is in the books, what was billed is charged once, and the books balance."""
    engine = Books(database).engine()
    for _ in range(600):
        async with Database(engine).single(EVERYONE) as connection:
            running = (await connection.execute(select(func.count()).select_from(holds))).scalar_one()
            rows = {row.response_id: row for row in await connection.execute(select(ledger))}
        if not running:
            break
        await asyncio.sleep(0.1)
    await engine.dispose()
    assert running == 0
    for turn in turns:
        if turn.reply is not None:
            row = rows[str(turn.reply["response_id"])]
            assert (row.status, row.estimated, row.cost) == ("completed", False, turn.reply["cost"])
    of_provider = {row.provider_response_id: row for row in rows.values() if row.provider_response_id}
    for bill in provider.bills:
        assert of_provider[bill.response_id].cost == price_of(bill)
    assert sum(row.cost for row in rows.values()) == sum(map(price_of, provider.bills))
    assert await Books(database).drifts() == []


def told(turns: Sequence[Turn]) -> str:
    """In one line, for whoever runs it."""
    statuses = {status: sum(turn.status == status for turn in turns) for status in {turn.status for turn in turns}}
    took = sorted(turn.took_s for turn in turns)
    slowest = [(round(turn.at, 1), round(turn.took_s, 1)) for turn in sorted(turns, key=lambda turn: -turn.took_s)[:5]]
    return f"{len(turns)} turns, {statuses}, median {took[len(took) // 2]:.2f} s, the slowest, by time: {slowest}"
