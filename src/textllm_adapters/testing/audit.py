"""What every `Audit` does: name each counter that has drifted, by how much, and set it right."""

import asyncio
from decimal import Decimal

import pytest
from msgspec.structs import replace

from textllm_adapters.testing.books import NOON, empty_conversation, exchange, next_turn, reservation, settlement, usd
from textllm_adapters.testing.storage import Auditing
from textllm_core.audit import AuditBooks
from textllm_core.records.audit import BooksSize, Drift
from textllm_core.records.ledger import Hold

COUNTERS: list[tuple[str, str, Decimal | int]] = [
    ("conversations", "total_cost", usd("0.0000000001")),
    ("conversations", "total_cost", usd("-0.25")),
    ("conversations", "total_tokens_input", 7),
    ("conversations", "total_tokens_output", -3),
    ("conversations", "message_count", 1),
    ("sessions", "total_cost", usd("1234567.0123456789")),
    ("sessions", "total_tokens", -120),
    ("sessions", "reserved", usd("0.5")),
    ("sessions", "conversation_count", -1),
    ("daily_usage", "messages", -1),
    ("daily_usage", "input_tokens", 1),
    ("daily_usage", "output_tokens", -20),
    ("daily_usage", "cost", usd("-0.0000000001")),
    ("daily_usage", "estimated_cost", usd("0.0000000001")),
]


async def drifts(auditing: Auditing) -> list[Drift]:
    return [drift async for drift in auditing.audit.drifts()]


async def one_answer_one_failure_one_running(auditing: Auditing) -> Hold:
    """Two conversations of one user; what runs is in the second, and already has its pending entry."""
    ledger = auditing.storage.ledger
    first = await ledger.reserve(reservation())
    await ledger.settle(first, settlement(cost="0.25"))
    failed = await ledger.reserve(await next_turn(auditing.storage, first.conversation_id))
    await ledger.settle(failed, settlement(cost="0.1", estimated=True, status="failed", answered=False, messages=()))
    await ledger.release(await ledger.reserve(reservation()))
    running = await ledger.reserve(reservation(cost="0.75"))
    return await ledger.pend(running, provider_response_id="resp_theirs", model="gpt-4o")


class AuditContract:
    """What every `Audit` does: name each counter that has drifted, by how much, and set it right.

    Fixture `auditing`: an `Auditing` over an empty store, of this test alone.
    """

    pytestmark = pytest.mark.asyncio

    async def test_books_that_balance_show_no_drift(self, auditing: Auditing) -> None:
        assert await drifts(auditing) == []
        await one_answer_one_failure_one_running(auditing)
        assert await drifts(auditing) == []
        assert await auditing.audit.repair("tenant", "user") == []

    async def test_the_size_counts_all_rows(self, auditing: Auditing) -> None:
        await one_answer_one_failure_one_running(auditing)
        assert await auditing.audit.size() == BooksSize(entries=3, holds=1, sessions=1, conversations=2)

    @pytest.mark.parametrize(("table", "counter", "by"), COUNTERS)
    async def test_a_counter_that_was_moved_by_hand_is_named_with_its_amounts_and_set_right(
        self, auditing: Auditing, table: str, counter: str, by: Decimal | int
    ) -> None:
        await one_answer_one_failure_one_running(auditing)
        await auditing.move(table, counter, by)
        found = await drifts(auditing)
        assert len(found) == (2 if table == "conversations" else 1)
        assert {(drift.table, drift.tenant_id, drift.user_id, drift.counter) for drift in found} == {
            (table, "tenant", "user", counter)
        }
        assert {drift.recorded - drift.actual for drift in found} == {by}
        assert sorted(await auditing.audit.repair("tenant", "user"), key=str) == sorted(found, key=str)
        assert await drifts(auditing) == []

    async def test_what_is_recorded_and_what_is_right_are_exact(self, auditing: Auditing) -> None:
        await one_answer_one_failure_one_running(auditing)
        session = await auditing.storage.sessions.of_day("tenant", "user", NOON.date())
        assert session is not None
        await auditing.move("sessions", "total_cost", usd("0.1"))
        assert await drifts(auditing) == [
            Drift(
                table="sessions",
                tenant_id="tenant",
                user_id="user",
                key=session.id,
                counter="total_cost",
                recorded=usd("0.45"),
                actual=usd("0.35"),
            )
        ]

    async def test_everything_at_once_is_found_and_set_right_for_every_user(self, auditing: Auditing) -> None:
        for user_id in ("ada", "bob", "eve"):
            hold = await auditing.storage.ledger.reserve(reservation(user_id=user_id))
            await auditing.storage.ledger.settle(hold, settlement())
        for table, counter, by in COUNTERS[1:]:
            await auditing.move(table, counter, by)
        books = AuditBooks(auditing.audit)
        found = [drift async for drift in books()]
        assert len(found) == 3 * len(COUNTERS[1:])
        assert sorted([drift async for drift in books.repair()], key=str) == sorted(found, key=str)
        assert [drift async for drift in books()] == []

    async def test_turns_that_were_imported_are_no_drift_and_survive_a_repair(self, auditing: Auditing) -> None:
        given = replace(empty_conversation("Rivers"), message_count=1)
        said = exchange("Hello", "Hi")
        await auditing.storage.conversations.add_imported("tenant", given, said, context_tokens=9, at_most=9)
        turn = await auditing.storage.ledger.reserve(await next_turn(auditing.storage, given.id))
        await auditing.storage.ledger.settle(turn, settlement())
        assert await drifts(auditing) == []
        await auditing.move("conversations", "message_count", 5)
        assert [drift.actual for drift in await auditing.audit.repair("tenant", "user")] == [2]
        assert await drifts(auditing) == []

    async def test_repairing_one_user_leaves_others_alone(self, auditing: Auditing) -> None:
        for user_id in ("ada", "bob"):
            hold = await auditing.storage.ledger.reserve(reservation(user_id=user_id))
            await auditing.storage.ledger.settle(hold, settlement())
        await auditing.move("sessions", "total_tokens", 1)
        await auditing.audit.repair("tenant", "ada")
        assert [drift.user_id for drift in await drifts(auditing)] == ["bob"]

    async def test_daily_usage_that_is_gone_is_made_anew(self, auditing: Auditing) -> None:
        await one_answer_one_failure_one_running(auditing)
        await auditing.forget_usage()
        found = {(drift.table, drift.counter, drift.recorded, drift.actual) for drift in await drifts(auditing)}
        tokens = {("daily_usage", "input_tokens", 0, 200), ("daily_usage", "output_tokens", 0, 40)}
        costs = {("daily_usage", "cost", 0, usd("0.35")), ("daily_usage", "estimated_cost", 0, usd("0.1"))}
        assert found == tokens | costs | {("daily_usage", "messages", 0, 1)}
        await auditing.audit.repair("tenant", "user")
        assert await drifts(auditing) == []
        (used,) = await auditing.storage.reports.daily("tenant", "user", NOON.date())
        assert (used.cost, used.estimated_cost, used.messages) == (usd("0.35"), usd("0.1"), 1)

    async def test_a_lost_hold_is_seen_in_its_sum_its_conversation_and_its_entry(self, auditing: Auditing) -> None:
        hold = await one_answer_one_failure_one_running(auditing)
        await auditing.forget(hold)
        found = {(drift.table, drift.counter, drift.recorded, drift.actual) for drift in await drifts(auditing)}
        of_the_entry = ("ledger", "running", 1, 0)
        assert found == {("sessions", "reserved", usd("0.75"), 0), ("conversations", "running", 1, 0), of_the_entry}
        assert {drift.table for drift in await auditing.audit.repair("tenant", "user")} == {"sessions", "conversations"}
        left = [(drift.table, drift.counter, drift.recorded, drift.actual) for drift in await drifts(auditing)]
        assert left == [of_the_entry]  # nobody knows what it cost
        await auditing.storage.ledger.reserve(await next_turn(auditing.storage, hold.conversation_id))

    async def test_turns_that_run_meanwhile_raise_no_alarm_and_lose_nothing_to_a_repair(
        self, auditing: Auditing
    ) -> None:
        ledger = auditing.storage.ledger
        first = await ledger.reserve(reservation())
        await ledger.settle(first, settlement())

        async def talk() -> None:
            for number in range(15):
                hold = await ledger.reserve(reservation())
                hold = await ledger.pend(hold, provider_response_id=f"resp_{number}", model="gpt-4o")
                if number % 5 == 4:
                    await ledger.release(hold)
                else:
                    await ledger.settle(hold, settlement(cost="0.0000000003", messages=exchange("Hello", "Hi")))

        async def check() -> list[Drift]:
            found: list[Drift] = []
            while not talking.done():
                assert await drifts(auditing) == []
                await auditing.move("sessions", "total_tokens", 1)
                found += await auditing.audit.repair("tenant", "user")
                await asyncio.sleep(0)
            return found

        talking = asyncio.gather(*[talk() for _ in range(4)])
        found = await check()
        await talking
        assert {(drift.counter, drift.recorded - drift.actual) for drift in found} == {("total_tokens", 1)}
        assert await drifts(auditing) == []
