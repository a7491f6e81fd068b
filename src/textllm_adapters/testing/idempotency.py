"""What every ledger keeps of keys: taken with a reservation, answered by its settlement, given back by a release."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from textllm_adapters.testing.books import NOON, assert_balanced, at_once, reservation, settlement
from textllm_adapters.testing.storage import Storage
from textllm_core.errors import BudgetExceededError, IdempotencyInProgressError, IdempotencyMismatchError
from textllm_core.records.journal import JournalEnd
from textllm_core.records.ledger import AlreadySettledError, Replay
from textllm_core.records.messages import Idempotency
from textllm_core.usage import EntryStatus

KEY = Idempotency("key-1", "POST /chat", "digest")


class IdempotencyContract:
    """What every ledger keeps of keys: taken with a reservation, answered by its settlement, given back by a release.

    Fixture `storage`: a `Storage` over an empty store, of this test alone.
    """

    pytestmark = pytest.mark.asyncio

    async def test_a_repeat_of_a_running_exchange_is_refused_and_leaves_no_trace(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation(idempotency=KEY))
        with pytest.raises(IdempotencyInProgressError) as running:
            await storage.ledger.reserve(reservation(idempotency=KEY))
        assert running.value.response_id == hold.response_id
        await assert_balanced(storage, holds=[hold])

    async def test_a_repeat_of_a_settled_exchange_gets_what_was_remembered(self, storage: Storage) -> None:
        hold = await storage.ledger.reserve(reservation(idempotency=KEY))
        remembered = '{"text":"\N{GRINNING FACE}"}'.encode()
        settled = await storage.ledger.settle(hold, settlement(remembered=remembered))
        assert settled is not None
        with pytest.raises(AlreadySettledError) as repeat:
            await storage.ledger.reserve(reservation(idempotency=KEY, limit="0"))
        assert repeat.value.replay == Replay(remembered, settled.message_number, settled.spent)
        await assert_balanced(storage)

    async def test_a_key_is_looked_up_without_being_taken(self, storage: Storage) -> None:
        assert await storage.ledger.replay("tenant", KEY) is None
        hold = await storage.ledger.reserve(reservation(idempotency=KEY))
        with pytest.raises(IdempotencyInProgressError) as running:
            await storage.ledger.replay("tenant", KEY)
        assert running.value.response_id == hold.response_id
        remembered = '{"text":"\N{GRINNING FACE}"}'.encode()
        settled = await storage.ledger.settle(hold, settlement(remembered=remembered))
        assert settled is not None
        for _ in range(2):
            told = await storage.ledger.replay("tenant", KEY)
            assert told == Replay(remembered, settled.message_number, settled.spent)
        await assert_balanced(storage)

    @pytest.mark.parametrize(
        ("status", "remembered", "is_erased"),
        [
            ("incomplete", b'{"n":2}', False),
            ("incomplete", b"", False),
            ("cancelled", b'{"n":2}', False),
            ("failed", b"{}", True),
        ],
    )
    async def test_a_repeat_and_a_reader_are_told_what_an_estimate_was_corrected_to(
        self, storage: Storage, status: EntryStatus, remembered: bytes, is_erased: bool
    ) -> None:
        ledger = storage.ledger
        others = [
            await ledger.reserve(reservation(idempotency=replace(KEY, key="other"))),
            await ledger.reserve(reservation(idempotency=KEY, tenant_id="other", is_resumable=True)),
        ]
        for other in others:
            await ledger.settle(other, settlement(remembered=b'{"n":0}', end_number=3))
        hold = await ledger.reserve(reservation(idempotency=KEY, is_resumable=True))
        first = settlement(status=status, estimated=True, open_until=NOON + timedelta(days=1), remembered=b'{"n":1}')
        settled = await ledger.settle(hold, replace(first, end_number=3))
        assert settled is not None
        if is_erased:
            await storage.conversations.erase("tenant", "user", hold.conversation_id, at=NOON, remembered=b'{"n":1}')
        await ledger.correct(hold, settlement(cost="0.5", remembered=remembered, end_number=9))
        is_told = bool(remembered) and status == "incomplete"
        told = Replay(b'{"n":2}' if is_told else b'{"n":1}', settled.message_number, settled.spent)
        assert await ledger.replay("tenant", KEY) == told
        page = await storage.journal.read("tenant", "user", hold.response_id, after=0)
        assert (page and page.end) == (None if is_erased else JournalEnd(9 if is_told else 3, told))
        for tenant_id, key in (("tenant", replace(KEY, key="other")), ("other", KEY)):
            untouched = await ledger.replay(tenant_id, key)
            assert untouched is not None
            assert untouched.remembered == b'{"n":0}'

    async def test_a_key_that_was_given_back_is_nobodys(self, storage: Storage) -> None:
        await storage.ledger.release(await storage.ledger.reserve(reservation(idempotency=KEY)))
        assert await storage.ledger.replay("tenant", KEY) is None

    async def test_a_key_is_looked_up_for_its_tenant_and_scope_alone(self, storage: Storage) -> None:
        await storage.ledger.settle(
            await storage.ledger.reserve(reservation(idempotency=KEY)), settlement(remembered=b"{}")
        )
        assert await storage.ledger.replay("tenant", KEY) is not None
        assert await storage.ledger.replay("other", KEY) is None
        assert await storage.ledger.replay("tenant", Idempotency(KEY.key, "POST /chat/stream", KEY.fingerprint)) is None
        assert await storage.ledger.replay("tenant", KEY.within("ann")) is None

    @pytest.mark.parametrize("is_settled", [False, True])
    async def test_a_key_with_another_request_is_refused(self, storage: Storage, is_settled: bool) -> None:
        hold = await storage.ledger.reserve(reservation(idempotency=KEY))
        if is_settled:
            await storage.ledger.settle(hold, settlement())
        with pytest.raises(IdempotencyMismatchError):
            await storage.ledger.reserve(reservation(idempotency=Idempotency(KEY.key, KEY.scope, "other")))
        with pytest.raises(IdempotencyMismatchError):
            await storage.ledger.replay("tenant", Idempotency(KEY.key, KEY.scope, "other"))

    async def test_keys_count_for_their_tenant_and_scope_alone(self, storage: Storage) -> None:
        for asked in (
            reservation(idempotency=KEY),
            reservation(idempotency=KEY, tenant_id="other"),
            reservation(idempotency=Idempotency(KEY.key, "POST /chat/stream", KEY.fingerprint)),
            reservation(idempotency=Idempotency("key-2", KEY.scope, KEY.fingerprint)),
        ):
            assert (await storage.ledger.reserve(asked)).response_id == asked.response_id

    async def test_a_release_gives_the_key_back(self, storage: Storage) -> None:
        await storage.ledger.release(await storage.ledger.reserve(reservation(idempotency=KEY)))
        asked = reservation(idempotency=KEY)
        assert (await storage.ledger.reserve(asked)).response_id == asked.response_id

    async def test_a_refusal_does_not_take_the_key(self, storage: Storage) -> None:
        with pytest.raises(BudgetExceededError):
            await storage.ledger.reserve(reservation(idempotency=KEY, cost="2", limit="1"))
        asked = reservation(idempotency=KEY)
        assert (await storage.ledger.reserve(asked)).response_id == asked.response_id

    async def test_the_same_reservation_again_gets_its_hold(self, storage: Storage) -> None:
        asked = reservation(idempotency=KEY)
        assert await storage.ledger.reserve(asked) == await storage.ledger.reserve(asked)

    async def test_of_many_at_once_one_gets_the_key(self, storage: Storage) -> None:
        holds, refusals = await at_once(*(storage.ledger.reserve(reservation(idempotency=KEY)) for _ in range(5)))
        assert (len(holds), {type(refusal) for refusal in refusals}) == (1, {IdempotencyInProgressError})
        await assert_balanced(storage, holds=holds)

    async def test_old_keys_are_forgotten_once_their_exchanges_are_settled(self, storage: Storage) -> None:
        settled = await storage.ledger.reserve(reservation(idempotency=KEY))
        await storage.ledger.settle(settled, settlement(remembered=b"{}"))
        running = Idempotency("key-2", KEY.scope, KEY.fingerprint)
        await storage.ledger.reserve(reservation(idempotency=running))
        assert await storage.ledger.forget_repeats(before=NOON, limit=9) == 0
        with pytest.raises(AlreadySettledError):
            await storage.ledger.reserve(reservation(idempotency=KEY))
        old = NOON + timedelta(seconds=1)
        assert [await storage.ledger.forget_repeats(before=old, limit=1) for _ in range(2)] == [1, 0]
        await storage.ledger.reserve(reservation(idempotency=KEY))
        with pytest.raises(IdempotencyInProgressError):
            await storage.ledger.reserve(reservation(idempotency=running))
