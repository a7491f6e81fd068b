"""Calls that come together go together, and each is answered as if it had gone alone."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from tests.contracts.conftest import sql_storage

from textllm_adapters.postgres.engine import PostgresEngine, open_engine
from textllm_adapters.postgres.lanes import Statement
from textllm_adapters.sql.database import SETTING
from textllm_adapters.testing.books import reservation, settlement


@pytest.fixture
async def other_engine(postgres_url: str) -> AsyncIterator[PostgresEngine]:
    """Of another process on the same database."""
    engine = open_engine(postgres_url)
    yield engine
    await engine.dispose()


TRANSACTION = Statement("SELECT pg_current_xact_id()::text, :user::text")
PLACE = Statement("SELECT nextval('places'), :user::text")
DIVIDE = Statement("SELECT 12 / :by::integer, :user::text")
SHOWN = Statement(f"SELECT current_setting('{SETTING}'), :user::text")
LOCK = Statement("SELECT pg_advisory_xact_lock_shared(1)::text, :user::text")


async def test_what_comes_together_goes_in_one_transaction_and_each_gets_its_own_answer(
    postgres_engine: PostgresEngine,
) -> None:
    users = [f"user {n}" for n in range(50)]
    rows = await asyncio.gather(
        *[postgres_engine.lanes.ask(TRANSACTION, "tenant", {"user": user}) for user in reversed(users)]
    )
    assert [row[1] for row in rows] == list(reversed(users))
    assert len({row[0] for row in rows}) == 1


async def test_a_batch_has_its_bound(postgres_engine: PostgresEngine) -> None:
    asked = [postgres_engine.lanes.ask(TRANSACTION, "tenant", {"user": str(n)}) for n in range(130)]
    assert len({row[0] for row in await asyncio.gather(*asked)}) == 3


async def test_a_batch_goes_in_the_order_of_its_users_whoever_came_first(postgres_engine: PostgresEngine) -> None:
    async with postgres_engine.begin() as connection:
        await connection.execute(text("CREATE SEQUENCE places"))
    users = [f"user {n}" for n in range(10, 40)]
    random.Random(3).shuffle(users)
    rows = await asyncio.gather(*[postgres_engine.lanes.ask(PLACE, "tenant", {"user": user}) for user in users])
    async with postgres_engine.begin() as connection:
        await connection.execute(text("DROP SEQUENCE places"))
    assert [row[1] for row in sorted(rows)] == sorted(users)


@pytest.mark.parametrize("wrong", [0, 2**40])  # the server refuses the one, asyncpg the other
async def test_one_that_fails_does_not_take_the_others_with_it(postgres_engine: PostgresEngine, wrong: int) -> None:
    asked = [{"by": by, "user": "user"} for by in (1, 2, wrong, 3, 4)]
    answers = await asyncio.gather(
        *[postgres_engine.lanes.ask(DIVIDE, "tenant", each) for each in asked], return_exceptions=True
    )
    assert isinstance(answers[2], DBAPIError)
    assert [tuple(answer) for answer in answers if not isinstance(answer, BaseException)] == [
        (12, "user"),
        (6, "user"),
        (4, "user"),
        (3, "user"),
    ]


async def test_each_sees_the_rows_of_its_own_tenant(postgres_engine: PostgresEngine) -> None:
    tenants = [random.Random(n).choice(["one", "two", "three", "*", "fi\0ve", "six", "seven"]) for n in range(200)]
    rows = await asyncio.gather(*[postgres_engine.lanes.ask(SHOWN, tenant, {"user": "user"}) for tenant in tenants])
    assert [row[0] for row in rows] == [tenant.replace("\0", "\ufffd") for tenant in tenants]


async def test_who_is_cancelled_before_it_is_asked_is_not_asked(postgres_engine: PostgresEngine) -> None:
    asked = [asyncio.create_task(postgres_engine.lanes.ask(TRANSACTION, "tenant", {"user": "user"})) for _ in range(3)]
    await asyncio.sleep(0)  # they wait for the lane, which has not begun
    asked[0].cancel()
    assert [len(await answer) for answer in asked[1:]] == [2, 2]
    assert asked[0].cancelled()


async def test_who_is_cancelled_meanwhile_disturbs_nobody(postgres_engine: PostgresEngine) -> None:
    async with postgres_engine.begin() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(1)"))
        asked = [
            asyncio.create_task(postgres_engine.lanes.ask(LOCK, "tenant", {"user": str(user)})) for user in range(3)
        ]
        waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        while not (await connection.execute(waiting)).scalar():  # noqa: ASYNC110 - the server is waited for
            await asyncio.sleep(0)
        asked[0].cancel()
    assert [(await answer)[1] for answer in asked[1:]] == ["1", "2"]
    assert asked[0].cancelled()


async def test_a_row_that_somebody_keeps_locked_stops_nobody_else(postgres_engine: PostgresEngine) -> None:
    ledger = sql_storage(postgres_engine).ledger
    holds = [await ledger.reserve(reservation(user_id=user)) for user in ("ada", "bob", "eve")]
    async with postgres_engine.begin() as connection:
        await connection.execute(text("SET textllm.tenant = '*'"))
        await connection.execute(text("SELECT FROM sessions WHERE user_id = 'ada' FOR UPDATE"))
        settling = [asyncio.create_task(ledger.settle(hold, settlement())) for hold in holds]
        assert None not in await asyncio.gather(*settling[1:])
        assert not settling[0].done()
        await connection.execute(text("RESET textllm.tenant"))
    assert await settling[0] is not None


async def test_turns_of_the_same_users_in_two_processes_do_not_wait_in_a_circle(
    postgres_engine: PostgresEngine, other_engine: PostgresEngine
) -> None:
    users = [f"user {n}" for n in range(20)]
    ledgers = [sql_storage(engine).ledger for engine in (postgres_engine, other_engine)]
    for _ in range(5):
        holds = [
            await asyncio.gather(*[ledger.reserve(reservation(user_id=user)) for user in order])
            for ledger, order in zip(ledgers, (users, users[::-1]), strict=True)
        ]
        settled = await asyncio.gather(
            *[ledger.settle(hold, settlement()) for ledger, of_it in zip(ledgers, holds, strict=True) for hold in of_it]
        )
        assert None not in settled
