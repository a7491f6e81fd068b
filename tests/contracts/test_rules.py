"""Each ledger in SQL does what the rules of the books say: the same state, the same call, the same outcome."""

import asyncio
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import strategies as st
from msgspec.structs import replace
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.contracts.accounts import (
    FEW_ODDS,
    MODEL,
    Books,
    befores,
    conversations,
    last_activities,
    money,
    prove,
    reservations,
    ruled,
    sessions,
    settlements,
    states,
    usages,
)

from textllm_adapters.postgres.engine import PostgresEngine
from textllm_adapters.postgres.engine import open_engine as open_postgres_engine
from textllm_adapters.postgres.rate_limiter import PostgresRateLimiter
from textllm_adapters.sql import tables
from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sqlite.engine import SqliteEngine
from textllm_adapters.sqlite.engine import open_engine as open_sqlite_engine
from textllm_adapters.sqlite.rate_limiter import SqliteRateLimiter
from textllm_adapters.testing.books import NOON, TODAY
from textllm_adapters.wiring.storage import turnstile_of
from textllm_core.errors import RateLimitedError, TextLLMError
from textllm_core.ids import new_id
from textllm_core.ports.rate_limiter import RateLimiter
from textllm_core.records.accounts import ConversationAccount, SessionAccount
from textllm_core.records.ledger import Hold, Reservation, Settled, Settlement
from textllm_core.records.usage_reports import DailyUsage
from textllm_core.rules.bookkeeping import Before, booked, corrected, settled
from textllm_core.rules.books import (
    Opening,
    added,
    closing,
    corrected_accounts,
    corrected_entry,
    model_of_day,
    pending_entry,
    released,
    settled_entry,
)
from textllm_core.rules.buckets import TOKEN, allowance, given_back, refilled, refusal, taken

EXAMPLES = 30  # of states that mostly differ in all that a statement looks at


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest, runner: asyncio.Runner) -> Iterator[AsyncEngine]:
    opening = open_sqlite_engine if request.param == "sqlite" else open_postgres_engine
    engine = opening(request.getfixturevalue(f"{request.param}_url"))
    yield engine
    runner.run(engine.dispose())


def limiter_of(engine: AsyncEngine) -> RateLimiter:
    if isinstance(engine, SqliteEngine):
        return SqliteRateLimiter(engine)
    assert isinstance(engine, PostgresEngine)
    return PostgresRateLimiter(engine)


def storable(text: str) -> str:
    return text.replace("\0", "")


def test_a_reservation_opens_what_the_rules_open_or_is_refused_as_they_refuse(
    runner: asyncio.Runner, engine: AsyncEngine
) -> None:
    outcomes: set[type] = set()

    async def law(state: tuple[Any, Any, bool, Reservation]) -> None:
        conversation, session, has_entry, asked = state
        books = Books(engine, asked)
        await books.put(conversation, session)
        if has_entry:
            await books.put_earlier_entry()
        says = ruled(asked, conversation, session, has_entry=has_entry)
        outcomes.add(type(says))
        if isinstance(says, TextLLMError):
            with pytest.raises(type(says)) as refusal:
                await books.ledger.reserve(asked)
            assert refusal.value.details() == says.details()
            assert await books.accounts() == (conversation, session)
            assert await books.rows_of("holds") == await books.rows_of("idempotency_keys") == []
            return
        await check_opened(books, says, await books.ledger.reserve(asked), conversation, session)

    for odd in FEW_ODDS:
        prove(runner, 2, law, state=states(odd))
    assert {kind.__name__ for kind in outcomes} == {
        "Opening",
        "BudgetExceededError",
        "ConversationBusyError",
        "ConversationNotFoundError",
    }


async def check_opened(
    books: Books, says: Opening, hold: Hold, before: ConversationAccount | None, session_before: SessionAccount | None
) -> None:
    found, today = await books.accounts()
    assert today is not None
    made = today.id if session_before is None else says.session.id  # whoever makes it, names it
    assert hold == replace(says.hold, session_id=made)
    assert today == replace(says.session, id=made)
    assert found == replace(says.conversation, session_id=made)
    (kept,) = await books.rows_of("holds")
    assert kept["made_conversation"] == (before is None)
    assert kept["before"] == says.before
    assert kept["session_last_activity"] == says.last_activity
    assert len(await books.rows_of("idempotency_keys")) == (books.asked.idempotency is not None)


def test_a_turnstile_takes_a_token_and_opens_what_the_rules_open_or_nothing(
    runner: asyncio.Runner, engine: AsyncEngine
) -> None:
    limiter, turnstile = limiter_of(engine), turnstile_of(engine)
    ways: set[str] = set()

    async def law(state: tuple[Any, Any, bool, Reservation], has_token: bool) -> None:
        conversation, session, has_entry, asked = state
        books, hold = Books(engine, asked), None
        await books.put(conversation, session)
        if has_entry:
            await books.put_earlier_entry()
        if has_token:
            left, hold = await turnstile.admit(asked, per_minute=3)
            assert left == allowance(2 * TOKEN, per_minute=3)
        else:
            await limiter.take(asked.tenant_id, asked.payer, per_minute=1)
            with pytest.raises(RateLimitedError):
                await turnstile.admit(asked, per_minute=1)
        if hold is None:
            assert await books.accounts() == (conversation, session)
            assert await books.rows_of("holds") == await books.rows_of("idempotency_keys") == []
        else:
            says = ruled(asked, conversation, session, has_entry=has_entry)
            assert isinstance(says, Opening)
            await check_opened(books, says, hold, conversation, session)
            ways.add("new" if conversation is None else "further")

    for odd in FEW_ODDS:
        prove(runner, 2, law, state=states(odd), has_token=st.sampled_from([True, True, False]))
    assert ways == {"new", "further"}


def test_a_pending_exchange_has_the_entry_of_the_rules(runner: asyncio.Runner, engine: AsyncEngine) -> None:
    async def law(asked: Reservation, conversation: ConversationAccount, amount: Decimal) -> None:
        books = Books(engine, asked)
        await books.put(conversation, None)
        await books.put_hold(books.hold(amount))
        for name in ("resp_theirs", "resp_newer"):
            hold = await books.ledger.pend(books.hold(amount), provider_response_id=name, model=MODEL)
            assert await books.ledger.entry(asked.tenant_id, asked.response_id) == pending_entry(hold, MODEL)
        (row,) = await books.rows_of("ledger")
        assert row["held"] == amount

    prove(runner, 10, law, asked=reservations(), conversation=conversations, amount=money)


def test_a_settlement_moves_what_the_rules_move(runner: asyncio.Runner, engine: AsyncEngine) -> None:
    async def law(
        asked: Reservation,
        conversation: ConversationAccount,
        is_running: bool,
        session: SessionAccount,
        used: DailyUsage | None,
        amount: Decimal,
        was_ended: bool,
        named: tuple[str | None, str | None],
        end: Settlement,
    ) -> None:
        books, known = Books(engine, asked), named[0] or named[1]
        if is_running:
            conversation = replace(conversation, turn_id=asked.response_id)
        session = replace(session, reserved=session.reserved + amount)
        await books.put(conversation, session, used)
        hold = books.hold(amount)
        await books.put_hold(hold, was_ended=was_ended)
        if named[0]:
            await books.ledger.pend(hold, provider_response_id=named[0], model=MODEL)
        came_to = await books.ledger.settle(replace(hold, provider_response_id=named[1]), end)

        says = closing(conversation, session, hold, end, was_ended=was_ended)
        assert came_to == says.settled
        assert await books.accounts() == (says.conversation, says.session)
        model = model_of_day(end.model)
        assert await books.used(model) == added(used if model == MODEL else None, TODAY, model, settled(end))
        entry = settled_entry(replace(hold, provider_response_id=known), end)
        found = await books.ledger.entry(asked.tenant_id, asked.response_id)
        assert found == replace(entry, model=storable(entry.model))
        (row,) = await books.rows_of("ledger")
        assert (row["held"], row["rates"], row["metadata"]) == (amount, end.rates, end.metadata)
        assert {row["provider_id"] for row in await books.rows_of("erasures")} == set(says.dropped)
        numbers = [row["number"] for row in await books.rows_of("messages")]
        last = says.conversation.last_message
        assert sorted(numbers) == list(range(last - len(end.messages) + 1, last + 1))
        told = [*await books.rows_of("idempotency_keys"), *await books.rows_of("reply_ends")]
        assert len(told) == (asked.idempotency is not None) + asked.is_resumable
        for row in told:
            assert (row["remembered"], Settled(row["message_number"], row["spent"])) == ("{}", says.settled)
        assert len(await books.rows_of("estimates")) == (end.open_until is not None)
        assert await books.rows_of("holds") == []

    for is_running in (True, False):
        prove(
            runner,
            EXAMPLES,
            law,
            asked=reservations(),
            conversation=conversations,
            is_running=st.just(is_running),
            session=sessions,
            used=st.none() | usages,
            amount=money,
            was_ended=st.booleans(),
            named=st.tuples(*[st.sampled_from([None, "resp_theirs"]), st.sampled_from([None, "resp_given"])]),
            end=settlements(),
        )


def test_a_release_leaves_what_the_rules_leave(runner: asyncio.Runner, engine: AsyncEngine) -> None:
    async def law(
        asked: Reservation,
        conversation: ConversationAccount,
        is_running: bool,
        session: SessionAccount,
        is_alone: bool,
        amount: Decimal,
        before: Before | None,
        last_activity: datetime | None,
    ) -> None:
        books = Books(engine, replace(asked, revision=None if before is None else 0))
        if is_running:
            conversation = replace(conversation, turn_id=asked.response_id)
        if is_alone:
            session = SessionAccount(id=session.id, last_activity=NOON, conversation_count=1)
        session = replace(session, reserved=session.reserved + amount)
        await books.put(conversation, session)
        hold = books.hold(amount)
        await books.put_hold(hold, before=before, last_activity=last_activity)
        await books.put_entry(pending_entry(hold, MODEL), held=amount)
        await books.ledger.release(hold, transcripts=["conv_made"])

        assert await books.accounts() == released(
            conversation,
            session,
            hold,
            made_conversation=before is None,
            before=before,
            last_activity=last_activity,
            has_others=False,
        )
        assert await books.rows_of("holds") == await books.rows_of("ledger") == []
        assert await books.rows_of("idempotency_keys") == []
        assert [row["provider_id"] for row in await books.rows_of("erasures")] == ["conv_made"]

    prove(
        runner,
        EXAMPLES,
        law,
        asked=reservations(),
        conversation=conversations,
        is_running=st.booleans(),
        session=sessions,
        is_alone=st.booleans(),
        amount=money,
        before=befores,
        last_activity=last_activities,
    )


def test_a_correction_moves_what_the_rules_move(runner: asyncio.Runner, engine: AsyncEngine) -> None:
    async def law(
        asked: Reservation,
        conversation: ConversationAccount | None,
        session: SessionAccount,
        used: DailyUsage,
        old: Settlement,
        end: Settlement,
    ) -> None:
        books = Books(engine, asked)
        hold = books.hold()
        old = replace(old, model=MODEL)
        entry = settled_entry(hold, old)
        await books.put(conversation, session, used)
        await books.put_entry(entry)
        came_to = await books.ledger.correct(hold, end)

        change = corrected(entry, end)
        if change is None:
            assert came_to is None
            assert await books.accounts() == (conversation, session)
            assert await books.used(MODEL) == used
            assert await books.ledger.entry(asked.tenant_id, asked.response_id) == entry
            return
        told, paid = corrected_accounts(conversation, session, entry, change)
        assert came_to == Settled(0 if told is None else told.message_count, paid.total_cost)
        assert await books.accounts() == (told, paid)
        after = corrected_entry(entry, change)
        found = await books.ledger.entry(asked.tenant_id, asked.response_id)
        assert found == replace(after, model=storable(after.model))
        without, model = added(used, TODAY, MODEL, -booked(entry)), model_of_day(change.model)
        assert await books.used(model) == added(without if model == MODEL else None, TODAY, model, settled(change))
        if model != MODEL:
            assert await books.used(MODEL) == without

    prove(
        runner,
        EXAMPLES,
        law,
        asked=reservations(),
        conversation=st.none() | conversations,
        session=sessions,
        used=usages,
        old=settlements(),
        end=settlements(),
    )


def test_a_bucket_has_what_the_rules_leave_in_it(runner: asyncio.Runner, engine: AsyncEngine) -> None:
    limiter, database, buckets = limiter_of(engine), Database(engine), tables.rate_buckets

    async def bucket(tenant_id: str) -> Any:
        async with database.single(EVERYONE) as connection:
            return (await connection.execute(select(buckets).where(buckets.c.tenant_id == tenant_id))).one()

    async def law(level: int, per_minute: int, ago_us: int) -> None:
        tenant_id = new_id("tenant")
        of = {"per_minute": per_minute}
        assert await limiter.take(tenant_id, "user", **of) == allowance((per_minute - 1) * TOKEN, **of)
        old = {"level": level, "updated_at": (await bucket(tenant_id)).updated_at - ago_us}
        async with database.transaction(EVERYONE) as connection:
            await connection.execute(buckets.update().where(buckets.c.tenant_id == tenant_id).values(old))
        try:
            told: object = await limiter.take(tenant_id, "user", **of)
        except RateLimitedError as refused:
            told = refused.retry_after_s
        now = await bucket(tenant_id)
        elapsed_us = now.updated_at - old["updated_at"]
        after, admitted = taken(refilled(level, elapsed_us=elapsed_us, **of))
        assert (now.level, now.admitted) == (after, admitted)
        assert told == (allowance(after, **of) if admitted else refusal(after, **of).retry_after_s)
        assert await limiter.give_back(tenant_id, "user", **of) == allowance(given_back(after, **of), **of)
        assert (await bucket(tenant_id)).level == given_back(after, **of)

    prove(
        runner,
        EXAMPLES,
        law,
        level=st.integers(0, 12 * TOKEN),
        per_minute=st.integers(1, 12),
        ago_us=st.sampled_from([0, 1, 1_000_000, 59_999_999, 60_000_000, 10**12, -1_000_000, -(10**12)]),
    )
