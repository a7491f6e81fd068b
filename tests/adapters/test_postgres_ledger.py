"""Which way the books go in a turn; what they do is the contract of every ledger."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.contracts.books import NOON, reservation, settlement

from textllm_adapters.postgres.engine import PostgresEngine
from textllm_adapters.postgres.ledger import PostgresLedger
from textllm_core.errors import BudgetExceededError


@contextmanager
def statements_of(engine: AsyncEngine) -> Iterator[list[str]]:
    """Those that the block sends."""
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", note)


@pytest.mark.parametrize("revision", [None, 1])
async def test_an_ordinary_turn_asks_nothing_but_the_lanes(
    postgres_engine: PostgresEngine, revision: int | None
) -> None:
    ledger = PostgresLedger(postgres_engine)
    asked = reservation()
    if revision is not None:
        await ledger.settle(await ledger.reserve(asked), settlement())
        asked = reservation(conversation_id=asked.conversation_id, revision=revision)
    with statements_of(postgres_engine) as sent:
        hold = await ledger.reserve(asked)
        hold = await ledger.ask(hold, transcript_id="conv_theirs")
        hold = await ledger.pend(hold, provider_response_id="theirs", model="gpt-4o-2024-11-20")
        assert await ledger.settle(hold, settlement()) is not None
    assert sent == []


async def test_the_first_turn_of_a_day_moves_the_conversation_to_its_session(postgres_engine: PostgresEngine) -> None:
    ledger = PostgresLedger(postgres_engine)
    asked = reservation()
    first = await ledger.reserve(asked)
    await ledger.settle(first, settlement())
    tomorrow = reservation(conversation_id=asked.conversation_id, revision=1, at=NOON + timedelta(days=1))
    with statements_of(postgres_engine) as sent:
        second = await ledger.reserve(tomorrow)
    assert second.session_id != first.session_id
    assert sent != []


async def test_what_has_no_room_is_refused_by_the_general_ledger(postgres_engine: PostgresEngine) -> None:
    ledger = PostgresLedger(postgres_engine)
    await ledger.reserve(reservation(cost="4", limit="5"))
    with statements_of(postgres_engine) as sent, pytest.raises(BudgetExceededError):
        await ledger.reserve(reservation(cost="2", limit="5"))
    assert sent != []
