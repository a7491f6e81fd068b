"""A conversation marked as deleted in the tables does not exist for the ports."""

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.contracts.books import NOON, TODAY, next_turn, reservation, settlement
from tests.contracts.conftest import sql_storage

from textllm_adapters.sql.tables import conversations
from textllm_core.errors import ConversationNotFoundError


@pytest.fixture(params=["sqlite_engine", "postgres_engine"])
def engine(request: pytest.FixtureRequest) -> AsyncEngine:
    engine: AsyncEngine = request.getfixturevalue(request.param)
    return engine


async def test_a_deleted_conversation_does_not_exist_but_its_entry_stays(engine: AsyncEngine) -> None:
    storage = sql_storage(engine)
    hold = await storage.ledger.reserve(reservation())
    await storage.ledger.settle(hold, settlement())
    turn = await next_turn(storage, hold.conversation_id)
    async with engine.begin() as connection:
        await connection.execute(update(conversations).values(is_deleted=True, deleted_at=NOON))
    assert await storage.conversations.get("tenant", hold.conversation_id) is None
    assert await storage.conversations.thread("tenant", hold.conversation_id) is None
    assert await storage.conversations.latest("tenant", "user") is None
    assert await storage.conversations.last_messages("tenant", "user", hold.conversation_id, limit=None) == []
    with pytest.raises(ConversationNotFoundError):
        await storage.ledger.reserve(turn)
    assert await storage.ledger.entry("tenant", hold.response_id) is not None


async def test_a_conversation_deleted_while_it_answers_is_still_charged(engine: AsyncEngine) -> None:
    storage = sql_storage(engine)
    hold = await storage.ledger.reserve(reservation())
    async with engine.begin() as connection:
        await connection.execute(update(conversations).values(is_deleted=True, deleted_at=NOON))
    settled = await storage.ledger.settle(hold, settlement())
    assert settled is not None
    assert settled.message_number == 1


async def test_statistics_still_count_a_deleted_conversation_and_no_longer_show_it(engine: AsyncEngine) -> None:
    storage = sql_storage(engine)
    await storage.ledger.settle(await storage.ledger.reserve(reservation()), settlement())
    async with engine.begin() as connection:
        await connection.execute(update(conversations).values(is_deleted=True, deleted_at=NOON))
    assert len(await storage.reports.daily("tenant", "user", TODAY)) == 1
    assert await storage.reports.conversation_count("tenant", "user", TODAY) == 1
    assert await storage.reports.newest_conversations("tenant", "user", TODAY, limit=1) == []
