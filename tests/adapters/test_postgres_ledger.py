"""Which way the books go in a turn; what they do is the contract of every ledger."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.contracts.accounts import FEW_ODDS, Books, prove, ruled, states

from textllm_adapters.postgres.engine import PostgresEngine, open_engine
from textllm_adapters.postgres.ledger import PostgresLedger
from textllm_adapters.testing.books import NOON, reservation, settlement
from textllm_core.errors import BudgetExceededError, TextLLMError
from textllm_core.records.accounts import ConversationAccount, SessionAccount
from textllm_core.records.ledger import Reservation
from textllm_core.records.messages import Idempotency
from textllm_core.rules.books import Opening


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
    key = Idempotency("key", "POST /chat", "digest")
    asked = reservation(idempotency=key)
    if revision is not None:
        await ledger.settle(await ledger.reserve(asked), settlement())
        other = replace(key, key="other")
        asked = reservation(conversation_id=asked.conversation_id, revision=revision, idempotency=other)
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


def test_a_turn_that_opens_nothing_out_of_the_ordinary_takes_one_statement_and_all_others_the_rules(
    postgres_url: str,
) -> None:
    ways: set[bool] = set()

    async def law(state: tuple[ConversationAccount | None, SessionAccount | None, bool, Reservation]) -> None:
        conversation, session, has_entry, asked = state
        books = Books(engine, asked)
        await books.put(conversation, session)
        if has_entry:
            await books.put_earlier_entry()
        says = ruled(asked, conversation, session, has_entry=has_entry)
        with statements_of(engine) as sent, suppress(TextLLMError):
            await books.ledger.reserve(asked)
        is_ordinary = (
            isinstance(says, Opening)
            and says.hold.amount == asked.demand.most
            and (session is None or session.is_active)
            and says.before is None
            and (conversation is None or conversation.title is not None or conversation.message_count > 0)
        )
        assert (sent == []) == is_ordinary
        ways.add(is_ordinary)

    with asyncio.Runner() as runner:
        engine = open_engine(postgres_url)
        for odd in FEW_ODDS:
            prove(runner, 2, law, state=states(odd))
        runner.run(engine.dispose())
    assert ways == {True, False}


async def test_what_has_no_room_is_refused_by_the_general_ledger(postgres_engine: PostgresEngine) -> None:
    ledger = PostgresLedger(postgres_engine)
    await ledger.reserve(reservation(cost="4", limit="5"))
    with statements_of(postgres_engine) as sent, pytest.raises(BudgetExceededError):
        await ledger.reserve(reservation(cost="2", limit="5"))
    assert sent != []
