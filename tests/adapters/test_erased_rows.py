"""Nothing of what was said is in any row of any table once it is erased: the tables are read, not our own views."""

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from textllm_adapters.sql.conversation_repository import SqlConversationRepository
from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sql.tables import metadata
from textllm_adapters.testing.books import NOON, exchange, reservation, settlement
from textllm_adapters.wiring.storage import ledger_of
from textllm_core.records.conversations import ConversationFilter
from textllm_core.records.messages import Idempotency

CANARY = "canary"
INDEX = {"sqlite": ("message_index_data",), "postgresql": ()}  # of FTS5's own, which keeps marks of what is gone


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest) -> AsyncEngine:
    chosen = request.getfixturevalue(f"{request.param}_engine")
    assert isinstance(chosen, AsyncEngine)
    return chosen


async def test_nothing_of_an_erased_conversation_is_in_any_row(engine: AsyncEngine) -> None:
    ledger = ledger_of(engine)
    idempotency = Idempotency(f"{CANARY}-key", "POST /chat", "digest").within(None)
    hold = await ledger.reserve(reservation(idempotency=idempotency, title=CANARY, is_resumable=True))
    end = settlement(metadata={"topic": CANARY}, messages=exchange(CANARY, CANARY), remembered=CANARY.encode())
    await ledger.settle(hold, end)
    repository = SqlConversationRepository(engine)
    await repository.list("tenant", ConversationFilter(search=CANARY), limit=1, offset=0)  # so that its words are kept
    places = {"ledger", "messages", "message_words", "conversations", "idempotency_keys", *INDEX[engine.dialect.name]}
    assert places <= await _tables_with_canaries(engine)
    await repository.erase("tenant", "user", hold.conversation_id, at=NOON, remembered=b"gone")
    assert await _tables_with_canaries(engine) == set()


async def _tables_with_canaries(engine: AsyncEngine) -> set[str]:
    found = set()
    async with Database(engine).transaction(EVERYONE) as connection:
        for table in metadata.sorted_tables:
            rows = (await connection.execute(select(table))).all()
            if CANARY in repr([tuple(row) for row in rows]):
                found.add(table.name)
        for name in INDEX[engine.dialect.name]:
            blocks = (await connection.execute(text(f"SELECT block FROM {name}"))).scalars()
            if CANARY.encode() in b"".join(blocks):
                found.add(name)
    return found
