"""What was deleted long ago is erased."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from tests.unit.conftest import POLICY, Bench

from textllm_adapters.memory.application import memory_conversations
from textllm_adapters.memory.conversation_repository import MemoryConversationRepository
from textllm_adapters.testing.books import reservation, settlement
from textllm_core import Caller, Conversations, Idempotency, InputText, PurgeConversations, Turn, TurnOptions
from textllm_core.events import Removed
from textllm_core.policy import Retention

KEPT = timedelta(days=30)
DELETED = Retention(deleted=KEPT)


def managing(bench: Bench) -> Conversations:
    return memory_conversations(bench.store, bench.clock, bench.running, bench.files, bench.transcript)


def purging(bench: Bench, kept: Retention = DELETED) -> PurgeConversations:
    return PurgeConversations(bench.conversations, bench.files.of_turns(bench.conversations), bench.clock, kept)


async def test_what_was_deleted_long_ago_is_erased_and_its_cost_stays() -> None:
    bench = Bench(policy=replace(POLICY, rate_per_minute=1000))
    old, young, there = [await bench.say("Hi") for _ in range(3)]
    manage, purge = managing(bench), purging(bench)
    await manage.delete(Caller(), old.conversation_id)
    bench.clock.advance(KEPT)
    await manage.delete(Caller(), young.conversation_id)
    bench.clock.advance(timedelta(seconds=1))
    assert await purge.deleted() == 1
    assert await purge.deleted() == 0
    left = {conversation_id for _, _, conversation_id in bench.store.conversations}
    assert left == {young.conversation_id, there.conversation_id}
    assert len(bench.store.entries) == 3
    await manage.restore(Caller(), young.conversation_id)


async def test_what_is_restored_while_a_purge_is_at_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(policy=replace(POLICY, rate_per_minute=1000))
    gone, wanted = [await bench.say("Hi") for _ in range(2)]
    manage = managing(bench)
    for each in (gone, wanted):
        await manage.delete(Caller(), each.conversation_id)
    bench.clock.advance(2 * KEPT)
    find = MemoryConversationRepository.hidden

    async def found(self: MemoryConversationRepository, **asked: Any) -> Sequence[tuple[str, str, str]]:
        listed = await find(self, **asked)
        await manage.restore(Caller(), wanted.conversation_id)
        return listed

    monkeypatch.setattr(MemoryConversationRepository, "hidden", found)
    assert await purging(bench).deleted() == 1
    assert (await manage.get(Caller(), wanted.conversation_id)).message_count == 1


async def test_many_are_erased_in_several_steps() -> None:
    bench = Bench(policy=replace(POLICY, rate_per_minute=1000))
    manage = managing(bench)
    for _ in range(205):
        made = await manage.create(Caller(), user_id="ada")
        await manage.delete(Caller(), made.id)
    bench.clock.advance(2 * KEPT)
    assert await purging(bench).deleted() == 205
    assert not bench.store.conversations


async def test_without_a_time_everything_stays() -> None:
    bench = Bench()
    reply = await bench.say("Hi")
    await managing(bench).delete(Caller(), reply.conversation_id)
    bench.clock.advance(timedelta(days=10_000))
    assert await purging(bench, Retention()).deleted() == 0
    assert await purging(bench, Retention()).idle() == 0
    assert len(bench.store.conversations) == 1


async def test_all_that_is_old_is_removed_by_one_of_many_processes_and_counted() -> None:
    kept = Retention(deleted=KEPT, revoked_keys=timedelta(days=1))
    bench = Bench(policy=replace(POLICY, retention=kept))
    reply = await bench.say("Hi", idempotency=Idempotency("k", "chat", "same"), is_resumable=True)
    await managing(bench).delete(Caller(), reply.conversation_id)
    issued = await bench.textllm.administration.issue_api_key(Caller(role="admin"), role="service")
    await bench.textllm.administration.revoke_api_key(Caller(role="admin"), issued.id)
    bench.clock.advance(timedelta(minutes=59))
    assert set((await bench.remove_expired()).values()) == {0}
    bench.clock.advance(2 * KEPT)
    everything = {"repeats": 1, "journals": 1, "rate_limits": 1, "revoked_keys": 1, "conversations": 1}
    everything |= {"expired_conversations": 0, "idle_conversations": 0}
    assert [await bench.remove_expired(scheduled=True) for _ in range(2)] == [everything, {}]
    told = {event.kind: event.count for event in bench.telemetry.events if isinstance(event, Removed)}
    assert told == {kind: count for kind, count in everything.items() if count}
    bench.clock.advance(timedelta(minutes=1))
    assert set((await bench.remove_expired(scheduled=True)).values()) == {0}


async def test_what_nobody_goes_on_with_goes_each_hour_deleted_or_not_and_its_cost_stays() -> None:
    bench = Bench(policy=replace(POLICY, rate_per_minute=1000, retention=Retention(conversations=KEPT)))
    goes, deleted, goes_on = [await bench.say("Hi") for _ in range(3)]
    await managing(bench).delete(Caller(), deleted.conversation_id)
    bench.clock.advance(KEPT - timedelta(minutes=1))
    await bench.say("Again", goes_on.conversation_id)
    assert (await bench.remove_expired(scheduled=True))["idle_conversations"] == 0
    bench.clock.advance(timedelta(minutes=59))
    assert "idle_conversations" not in await bench.remove_expired(scheduled=True)
    bench.clock.advance(timedelta(minutes=1))
    assert (await bench.remove_expired(scheduled=True))["idle_conversations"] == 2
    assert Removed("idle_conversations", 2) in bench.telemetry.events
    assert [key[2] for key in bench.store.conversations] == [goes_on.conversation_id]
    report = await bench.textllm.administration.report_usage(Caller(), goes.user_id, days=365)
    assert report.total_messages == 4
    bench.clock.advance(KEPT)
    assert (await bench.remove_expired())["idle_conversations"] == 1


async def test_many_that_go_on_are_passed_over_page_by_page() -> None:
    bench = Bench(policy=replace(POLICY, rate_per_minute=1000))
    made = [await managing(bench).create(Caller(), user_id="ada") for _ in range(900)]
    bench.clock.advance(2 * KEPT)
    for each in (*made[:600], made[-1]):
        await bench.say("Hi", each.id)
    assert await purging(bench, Retention(conversations=KEPT)).idle() == 299
    assert await purging(bench, Retention(conversations=KEPT)).idle() == 0


async def test_months_of_the_ledger_go_once_they_are_old_each_hour_by_one_of_many_processes() -> None:
    bench = Bench(policy=replace(POLICY, rate_per_minute=1000, retention=Retention(ledger_months=2)))
    bench.clock.advance(datetime(2026, 12, 31, 12, tzinfo=UTC) - bench.clock.now())
    first = await bench.say("Hi")
    bench.clock.advance(timedelta(hours=12))
    await bench.say("Hi", conversation_id=first.conversation_id)
    bench.clock.advance(datetime(2027, 2, 28, 23, 59, tzinfo=UTC) - bench.clock.now())
    removed = await bench.remove_expired(scheduled=True)
    assert (removed["entries"], removed["sessions"]) == (0, 0)
    bench.clock.advance(timedelta(minutes=1))
    assert "entries" not in await bench.remove_expired(scheduled=True)
    bench.clock.advance(timedelta(minutes=59))
    removed = await bench.remove_expired(scheduled=True)
    assert (removed["entries"], removed["sessions"]) == (1, 1)
    told = {event for event in bench.telemetry.events if isinstance(event, Removed)}
    assert {Removed("entries", 1), Removed("sessions", 1)} <= told
    report = await bench.textllm.administration.report_usage(Caller(), first.user_id, days=365)
    assert (report.total_messages, len(report.by_day)) == (2, 2)
    assert [drift async for drift in bench.textllm.administration.audit()] == []


@pytest.mark.parametrize(
    ("months", "at", "since"),
    [
        (1, datetime(2026, 11, 30, tzinfo=UTC), date(2026, 10, 1)),
        (11, datetime(2026, 11, 30, tzinfo=UTC), date(2025, 12, 1)),
        (12, datetime(2026, 12, 1, tzinfo=UTC), date(2025, 12, 1)),
        (1200, datetime(2026, 1, 1, tzinfo=UTC), date(1926, 1, 1)),
        (None, datetime(2026, 1, 1, tzinfo=UTC), None),
    ],
)
def test_a_month_is_kept_for_so_many_months_after_it(months: int | None, at: datetime, since: date | None) -> None:
    assert Retention(ledger_months=months).ledger_since(at) == since


async def test_much_is_removed_in_steps() -> None:
    bench = Bench()
    for number in range(1001):
        asked = reservation(user_id=f"user{number}", idempotency=Idempotency(str(number), "chat", "same"))
        hold = await bench.ledger.reserve(asked)
        await bench.ledger.settle(hold, settlement(remembered=b"{}"))
    bench.clock.advance(timedelta(days=400))
    assert (await bench.remove_expired())["repeats"] == 1001


async def test_what_was_said_for_a_time_goes_so_long_after_its_last_turn() -> None:
    bench = Bench(policy=replace(POLICY, rate_per_minute=1000, retention=Retention(responses=KEPT)))
    turn = Turn(
        kind="text",
        content=(InputText("Hi"),),
        token_bound=2,
        conversation_id=None,
        user_id="ada",
        options=TurnOptions(),
        expires_in=KEPT,
    )
    one = (await bench.exchange.answer(Caller(), turn))[1].reply
    await bench.exchange.answer(Caller(), turn)
    bench.clock.advance(KEPT - timedelta(days=1))
    await bench.say("Again", one.conversation_id)
    bench.clock.advance(timedelta(days=2))
    assert (await bench.remove_expired())["expired_conversations"] == 1
    assert [key[2] for key in bench.store.conversations] == [one.conversation_id]
    bench.clock.advance(KEPT - timedelta(days=3))
    assert (await bench.remove_expired())["expired_conversations"] == 0
    bench.clock.advance(timedelta(days=2))
    assert (await bench.remove_expired())["expired_conversations"] == 1
    assert len(bench.store.entries) == 3
