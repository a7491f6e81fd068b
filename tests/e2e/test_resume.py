"""A stream outlives its worker: it is read on, or cancelled, through another one."""

import asyncio
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from sqlalchemy import update
from tests.e2e.conftest import Books, Service, price_of, serving
from tests.http.sse_reader import Received, read_events
from tests.servers.openai import OpenAIStandIn, Reply

from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sql.tables import holds
from textllm_core.ids import new_id


@pytest.fixture(scope="module")
def one(provider: OpenAIStandIn, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server."""
    with serving(tmp_path_factory.mktemp("one"), provider, database) as service:
        yield service


@pytest.fixture(scope="module")
def other(provider: OpenAIStandIn, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Another server over the same database."""
    with serving(tmp_path_factory.mktemp("other"), provider, database) as service:
        yield service


@pytest.fixture
def doomed(provider: OpenAIStandIn, database: str, tmp_path: Path) -> Iterator[Service]:
    """A third one, of this test alone."""
    with serving(tmp_path, provider, database) as service:
        yield service


class Lost:
    """A stream of `one` that was read to its first piece, and then lost; the model waits for `gate`."""

    def __init__(self, one: Service, provider: OpenAIStandIn) -> None:
        self.user, self.gate = new_id("user"), threading.Event()
        provider.script(Reply(deltas=("Once upon a", " time", "."), gate=self.gate))
        request = {"message": "Tell me.", "user_id": self.user, "stream_format": "events"}
        received = b""
        with httpx.stream("POST", f"{one.url}/chat/stream", json=request, timeout=30) as answer:
            for piece in answer.iter_raw():
                received += piece
                if b' a"' in received:
                    break
        self.events = read_events(received)
        self.response_id = answer.headers["x-response-id"]
        self.conversation_id = answer.headers["x-conversation-id"]

    def resume(self, service: Service) -> list[Received]:
        headers = {"Last-Event-ID": self.events[-1].last_id}
        answer = service.get(f"/chat/stream/{self.response_id}", headers)
        assert answer.status_code == 200
        return read_events(answer.content)


def text_of(events: list[Received]) -> str:
    return "".join(json.loads(event.data)["text"] for event in events if event.name == "reply.delta")


async def test_another_worker_tells_what_was_missed_and_then_what_is_new(
    one: Service, other: Service, provider: OpenAIStandIn, books: Books
) -> None:
    lost = Lost(one, provider)
    threading.Timer(0.5, lost.gate.set).start()
    events = lost.events + lost.resume(other)
    assert [event.last_id for event in events] == [str(number) for number in range(1, 6)]
    assert text_of(events) == "Once upon a time." == json.loads(events[-1].data)["text"]
    assert [event.name for event in events].count("reply.completed") == 1
    (entry,) = await books.entries(lost.user)
    assert (entry.status, entry.cost) == ("completed", price_of(provider.bills[-1]))
    again = one.get(f"/chat/stream/{lost.response_id}")
    assert read_events(again.content) == events


async def test_a_stream_whose_worker_was_killed_ends_in_a_failure_and_the_conversation_goes_on(
    doomed: Service, other: Service, provider: OpenAIStandIn, books: Books
) -> None:
    lost = Lost(doomed, provider)
    await asyncio.sleep(0.6)  # what was read by then is in the journal
    doomed.kill()
    await _let_the_lease_run_out(books, lost.user)
    (end,) = lost.resume(other)
    assert (end.name, json.loads(end.data)["code"]) == ("reply.failed", "provider_error")
    assert int(end.last_id) > int(lost.events[-1].last_id)
    (entry,) = await books.entries(lost.user)
    assert (entry.status, entry.estimated, entry.usage.output_tokens > 0) == ("incomplete", True, True)
    again = other.chat("Go on.", conversation_id=lost.conversation_id)
    assert (again.status_code, again.json()["message_number"]) == (200, 2)
    assert await books.drifts() == []
    lost.gate.set()


async def _let_the_lease_run_out(books: Books, user: str) -> None:
    engine = books.engine()
    async with Database(engine).transaction(EVERYONE) as connection:
        await connection.execute(
            update(holds).where(holds.c.user_id == user).values(lease_until=datetime(2026, 1, 1, tzinfo=UTC))
        )
    await engine.dispose()


async def test_a_reply_is_cancelled_through_another_worker(
    one: Service, other: Service, provider: OpenAIStandIn, books: Books
) -> None:
    lost = Lost(one, provider)
    answer = other.post(f"/chat/stream/{lost.response_id}/cancel")
    lost.gate.set()
    reply = answer.json()
    assert (answer.status_code, reply["text"], reply["finish_reason"]) == (200, "Once upon a", "cancelled")
    assert json.loads(lost.resume(one)[-1].data) == reply
    (entry,) = await books.entries(lost.user)
    assert (entry.status, float(entry.cost), entry.estimated) == ("cancelled", reply["cost"], True)
    assert entry.cost > 0
    again = other.chat("Go on.", conversation_id=lost.conversation_id)
    assert (again.json()["text"], again.json()["message_number"]) == ("[2] You said: Go on.", 2)
