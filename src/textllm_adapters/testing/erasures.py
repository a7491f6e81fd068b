"""What every list of erasures keeps of the port `Erasures`, and what the books put on it."""

from collections import Counter
from datetime import datetime, timedelta

import pytest
from msgspec.structs import replace

from textllm_adapters.testing.books import LEASE, NOON, at_once, reservation, settlement
from textllm_adapters.testing.storage import Storage
from textllm_core.events import ErasuresWaiting
from textllm_core.records.erasures import Erasure
from textllm_core.records.ledger import Hold

LATER = NOON + timedelta(hours=1)

LATEST = timedelta(days=1)


async def due(storage: Storage, at: datetime = LATER, limit: int = 100) -> list[Erasure]:
    return list(await storage.erasures.due(at=at, latest=at + LATEST, lease_until=at + LEASE, limit=limit))


async def dropping(storage: Storage, *transcripts: str) -> Hold:
    """An exchange that leaves `transcripts` behind."""
    hold = await storage.ledger.reserve(reservation())
    await storage.ledger.settle(hold, settlement(transcript_id=None, transcripts=transcripts))
    return hold


def ready(*provider_ids: str) -> list[Erasure]:
    return [
        Erasure(tenant_id="*", user_id="*", id=f"ready_{it}", kind="ready", provider_id=it, attempts=0)
        for it in provider_ids
    ]


class ErasuresContract:
    """What every list of erasures keeps of the port `Erasures`, and what the books put on it.

    Fixture `storage`: a `Storage` over an empty store, of this test alone.
    """

    pytestmark = pytest.mark.asyncio

    async def test_at_first_there_is_nothing_to_erase(self, storage: Storage) -> None:
        assert await due(storage) == []

    async def test_what_a_conversation_does_not_go_on_with_is_to_be_erased(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        await storage.ledger.settle(hold, settlement(transcript_id="conv_b", transcripts=("conv_a", "conv_b")))
        (erasure,) = await due(storage)
        assert (erasure.tenant_id, erasure.user_id, erasure.kind) == ("tenant", "user", "transcript")
        assert (erasure.provider_id, erasure.attempts) == ("conv_a", 1)

    async def test_a_reply_of_a_released_exchange_is_to_be_erased(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        await storage.ledger.release(hold, replies=("resp_a",))
        (erasure,) = await due(storage)
        assert (erasure.kind, erasure.provider_id) == ("reply", "resp_a")

    async def test_what_a_released_exchange_had_made_is_to_be_erased(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation())
        await storage.ledger.release(hold, transcripts=("conv_a",))
        await storage.ledger.release(hold, transcripts=("conv_a",))
        assert [erasure.provider_id for erasure in await due(storage)] == ["conv_a"]

    async def test_a_settlement_that_is_repeated_adds_nothing(self, storage: Storage) -> None:
        hold = await dropping(storage, "conv_a")
        await storage.ledger.settle(hold, settlement(transcript_id=None, transcripts=("conv_a",)))
        assert len(await due(storage)) == 1

    async def test_it_is_not_due_before_its_time(self, storage: Storage) -> None:
        await dropping(storage, "conv_a")
        assert await due(storage, NOON) == []
        assert len(await due(storage)) == 1

    async def test_who_gets_it_has_it_until_the_lease_ends(self, storage: Storage) -> None:
        await dropping(storage, "conv_a")
        (first,) = await due(storage, LATER)
        assert await due(storage, LATER + LEASE / 2) == []
        assert await due(storage, LATER + LEASE) == [replace(first, attempts=2)]

    async def test_what_is_done_never_comes_again(self, storage: Storage) -> None:
        await dropping(storage, "conv_a", "conv_b")
        done, other = await due(storage)
        await storage.erasures.done(done)
        await storage.erasures.done(done)
        assert [erasure.id for erasure in await due(storage, LATER + LEASE)] == [other.id]

    async def test_what_is_put_off_comes_when_it_is_time(self, storage: Storage) -> None:
        await dropping(storage, "conv_a")
        (erasure,) = await due(storage)
        await storage.erasures.put_off(erasure, until=LATER + 9 * LEASE)
        assert await due(storage, LATER + 8 * LEASE) == []
        assert await due(storage, LATER + 9 * LEASE) == [replace(erasure, attempts=2)]

    async def test_what_is_done_meanwhile_is_not_brought_back(self, storage: Storage) -> None:
        await dropping(storage, "conv_a")
        (erasure,) = await due(storage)
        await storage.erasures.done(erasure)
        await storage.erasures.put_off(erasure, until=LATER)
        assert await due(storage, LATER + LEASE) == []

    async def test_what_waits_is_counted_and_what_was_tried_before(self, storage: Storage) -> None:
        assert await storage.erasures.waiting() == ErasuresWaiting(pending=0, failing=0)
        await dropping(storage, "conv_a", "conv_b", "conv_c")
        assert await storage.erasures.waiting() == ErasuresWaiting(pending=3, failing=0, by_provider={"": 3})
        done, failed = await due(storage, limit=2)
        await storage.erasures.done(done)
        await storage.erasures.put_off(failed, until=LATER)
        assert await storage.erasures.waiting() == ErasuresWaiting(pending=2, failing=1, by_provider={"": 2})

    async def test_what_waits_is_counted_by_the_names_of_providers(self, storage: Storage) -> None:
        await dropping(storage, "conv_a", "two/conv_b", "two/conv_c", "three/conv_d")
        (failed,) = await due(storage, limit=1)
        await storage.erasures.put_off(failed, until=LATER)
        counts = {"": 1, "two": 2, "three": 1}
        assert await storage.erasures.waiting() == ErasuresWaiting(pending=4, failing=1, by_provider=counts)

    @pytest.mark.parametrize("limit", [1, 3, 7])
    async def test_no_two_workers_get_the_same(self, storage: Storage, limit: int) -> None:
        for number in range(3):
            await dropping(storage, *(f"conv_{number}_{n}" for n in range(4)))
        batches, errors = await at_once(*(due(storage, limit=limit) for _ in range(4)))
        assert errors == []
        assert all(len(batch) <= limit for batch in batches)
        counted = Counter(erasure.provider_id for batch in batches for erasure in batch)
        assert set(counted.values()) == {1}
        assert counted.total() == min(12, 4 * limit)

    async def test_a_clock_that_is_set_back_is_not_waited_for(self, storage: Storage) -> None:
        await dropping(storage, "conv_a")
        (erasure,) = await due(storage)
        await storage.erasures.put_off(erasure, until=LATER + LATEST)
        assert await due(storage) == []
        assert [again.provider_id for again in await due(storage, at=LATER - timedelta(hours=5))] == ["conv_a"]

    async def test_what_is_foreseen_is_due_at_its_time_unless_it_was_struck_off(self, storage: Storage) -> None:
        one, two, three = ready("conv_1", "conv_2", "conv_3")
        await storage.erasures.foresee([one, two, three], at=LATER)
        await storage.erasures.done(one, three)
        await storage.erasures.done()
        assert await storage.erasures.waiting() == ErasuresWaiting(pending=0, failing=0)
        assert await due(storage, at=LATER - timedelta(seconds=1)) == []
        assert await due(storage) == [replace(two, attempts=1)]
        assert await storage.erasures.waiting() == ErasuresWaiting(pending=1, failing=1, by_provider={"": 1})
