"""Starting the application settles what a dead process left behind."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from tests.http.conftest import serving
from tests.unit.conftest import GPT, NOON, Bench

from textllm_adapters.memory.ledger import MemoryLedger
from textllm_core.chat.remains import OUTCOME_WITHIN_S
from textllm_core.chat.running import LEASE
from textllm_core.errors import StorageUnavailableError
from textllm_core.money import ZERO
from textllm_core.reconcile import RECOVER_EVERY_S
from textllm_core.records.ledger import Demand, Hold, Reservation


async def abandon_an_exchange(bench: Bench) -> None:
    demand = Demand(least=ZERO, most=ZERO, limit=bench.policy.daily_limit)
    await bench.ledger.reserve(
        Reservation(
            tenant_id="default",
            user_id="ada",
            conversation_id="conv_1",
            revision=None,
            title="Hi",
            response_id="resp_1",
            kind="text",
            model="gpt-4o",
            price=GPT,
            input_estimate=4,
            keeps_messages=True,
            demand=demand,
            at=NOON - timedelta(hours=1),
            lease_until=NOON - timedelta(minutes=59),
        )
    )


async def test_an_abandoned_exchange_is_settled_at_the_start(bench: Bench) -> None:
    await abandon_an_exchange(bench)
    async with serving(bench), asyncio.timeout(20):
        while bench.store.holds:  # noqa: ASYNC110 - until it is settled
            await asyncio.sleep(0.001)
    await bench.check_books()


async def test_settling_goes_on_after_storage_was_away_and_after_a_defect(caplog: pytest.LogCaptureFixture) -> None:
    faults: list[Exception] = [KeyError("canary"), StorageUnavailableError()]

    class FaultyLedger(MemoryLedger):
        async def abandoned(self, *, at: datetime, lease_until: datetime, limit: int) -> Sequence[Hold]:
            if faults:
                raise faults.pop()
            return await MemoryLedger.abandoned(self, at=at, lease_until=lease_until, limit=limit)

    bench = Bench(ledger_type=FaultyLedger)
    await abandon_an_exchange(bench)
    async with serving(bench, recover_every_s=0.001), asyncio.timeout(20):
        while bench.store.holds:  # noqa: ASYNC110 - until it is settled
            await asyncio.sleep(0.001)
    assert [record.levelname for record in caplog.records if record.name == "textllm"] == ["WARNING", "ERROR"]
    assert "KeyError" in caplog.text
    assert "canary" not in caplog.text


async def test_what_is_still_to_be_erased_is_erased_at_the_start(bench: Bench) -> None:
    assert bench.transcript is not None
    bench.store.to_erase("default", "ada", "transcript", await bench.transcript.create([]), at=bench.clock.now())
    async with serving(bench), asyncio.timeout(20):
        while bench.store.erasures:  # noqa: ASYNC110 - until it is erased
            await asyncio.sleep(0.001)
    assert bench.transcript.ids == set()


def test_what_a_dead_process_holds_is_free_within_30_seconds() -> None:
    runs_s = 2 * 2 * OUTCOME_WITHIN_S  # one that is under way, and the one that settles: each asks the provider twice
    assert LEASE.total_seconds() + RECOVER_EVERY_S + runs_s < 30
