"""The database goes away under load, and comes back."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.e2e.conftest import API_KEY, Books, price_of, serving
from tests.servers.openai import OpenAIStandIn, Reply
from tests.servers.postgres import PostgresServer

from textllm_adapters.postgres.engine import open_engine
from textllm_adapters.sql import migrations
from textllm_adapters.sql.conversation_repository import SqlConversationRepository
from textllm_core.usage import LedgerEntry

USERS = ("ada", "bob", "eve")
PROMPTLY_S = 5
PIECES = tuple(f"<{number}>" for number in range(10))


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server of this test alone, to be stopped at will."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
async def own_database(own_server: PostgresServer) -> str:
    url = own_server.create_database()
    engine = open_engine(url, command_timeout_s=None)
    await migrations.upgrade(engine)
    await engine.dispose()
    return url


async def test_without_its_database_the_service_says_503_soon_asks_nothing_and_recovers_by_itself(
    own_server: PostgresServer, own_database: str, tmp_path: Path
) -> None:
    with OpenAIStandIn(api_key=API_KEY) as provider:
        provider.default = Reply(deltas=PIECES, pause_s=0.02)
        with serving(tmp_path, provider, own_database) as service:
            running = [asyncio.create_task(_chat(service.url, user)) for user in USERS * 4]
            while _asked(provider) < len(running):  # noqa: ASYNC110 - it is another thread that is asked
                await asyncio.sleep(0.01)
            await asyncio.to_thread(own_server.stop_now)
            asked = _asked(provider)
            refused = [await _chat(service.url, user) for user in USERS]
            assert [answer.status_code for answer, _ in refused] == [503] * len(USERS)
            assert {answer.json()["code"] for answer, _ in refused} == {"storage_unavailable"}
            assert all("database" in answer.json()["detail"] for answer, _ in refused)
            assert "(database)" in service.log.read_text()
            assert all(took < PROMPTLY_S for _, took in refused)
            assert _asked(provider) == asked
            await asyncio.to_thread(own_server.start)
            deadline = time.monotonic() + 30
            while (await _chat(service.url, "ada"))[0].status_code != 200:
                assert time.monotonic() < deadline
            answers = [answer for answer, _ in await asyncio.gather(*running)]
            service.stop()
        books = Books(own_database)
        entries = [entry for user in USERS for entry in await books.entries(user)]
        assert {answer.status_code for answer in answers} <= {200, 503}
        assert await books.drifts() == []
        rows = {entry.provider_response_id: entry for entry in entries}
        assert sum(entry.cost for entry in entries) == sum(map(price_of, provider.bills))
        assert all(rows[bill.response_id].cost == price_of(bill) for bill in provider.bills)
        await _find_what_was_paid_for(books, entries, "".join(PIECES))


async def _find_what_was_paid_for(books: Books, entries: list[LedgerEntry], text: str) -> None:
    """Each turn was the only one of its conversation."""
    engine = books.engine()
    conversations = SqlConversationRepository(engine)
    for entry in entries:
        said = await conversations.last_messages("default", entry.user_id, entry.conversation_id, limit=None)
        assert [message.text for message in said] == ["hi", text]
    await engine.dispose()


def _asked(provider: OpenAIStandIn) -> int:
    return sum(request.path == "/v1/responses" for request in provider.requests)


async def _chat(url: str, user_id: str) -> tuple[httpx.Response, float]:
    """The answer, and how long it took in seconds."""
    begun = time.monotonic()
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        answer = await client.post("/chat", json={"message": "hi", "user_id": user_id})
    return answer, time.monotonic() - begun
