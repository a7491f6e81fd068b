"""What every rate limiter keeps of the port `RateLimiter`."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest

from textllm_core.errors import Allowance, RateLimitedError
from textllm_core.ports.rate_limiter import RateLimiter


@dataclass(frozen=True, slots=True)
class Limiting:
    """A rate limiter, and a way to let time pass by its clock."""

    limiter: RateLimiter
    wait: Callable[[timedelta], Awaitable[None]]


async def admitted(*takes: Awaitable[Allowance]) -> int:
    results = await asyncio.gather(*takes, return_exceptions=True)
    assert {type(result) for result in results} <= {Allowance, RateLimitedError}
    return sum(isinstance(result, Allowance) for result in results)


class RateLimiterContract:
    """What every rate limiter keeps of the port `RateLimiter`.

    Fixture `limiting`: a `Limiting`, all of whose buckets are full.
    """

    pytestmark = pytest.mark.asyncio

    async def test_what_is_left_is_told(self, limiting: Limiting) -> None:
        left = [await limiting.limiter.take("tenant", "user", per_minute=3) for _ in range(3)]
        assert [allowance.remaining for allowance in left] == [2, 1, 0]
        assert left[0] == Allowance(limit=3, remaining=2, resets_in_s=20)
        assert 59 <= left[2].resets_in_s <= 60

    async def test_a_new_bucket_is_full(self, limiting: Limiting) -> None:
        for _ in range(3):
            await limiting.limiter.take("tenant", "user", per_minute=3)
        with pytest.raises(RateLimitedError):
            await limiting.limiter.take("tenant", "user", per_minute=3)

    async def test_thirty_at_once_get_what_the_bucket_holds(self, limiting: Limiting) -> None:
        takes = [limiting.limiter.take("tenant", "user", per_minute=7) for _ in range(30)]
        assert await admitted(*takes) == 7

    @pytest.mark.parametrize("per_minute", [1, 2, 7, 13])
    async def test_waiting_as_long_as_told_suffices(self, limiting: Limiting, per_minute: int) -> None:
        for _ in range(per_minute):
            await limiting.limiter.take("tenant", "user", per_minute=per_minute)
        with pytest.raises(RateLimitedError) as refusal:
            await limiting.limiter.take("tenant", "user", per_minute=per_minute)
        assert refusal.value.limit == per_minute
        assert 1 <= refusal.value.retry_after_s <= 60 // per_minute + 1
        await limiting.wait(timedelta(seconds=refusal.value.retry_after_s))
        await limiting.limiter.take("tenant", "user", per_minute=per_minute)

    async def test_a_refusal_takes_nothing(self, limiting: Limiting) -> None:
        await limiting.limiter.take("tenant", "user", per_minute=1)
        for _ in range(5):
            with pytest.raises(RateLimitedError):
                await limiting.limiter.take("tenant", "user", per_minute=1)
            await limiting.wait(timedelta(seconds=12))
        await limiting.limiter.take("tenant", "user", per_minute=1)

    async def test_a_bucket_never_holds_more_than_a_minutes_worth(self, limiting: Limiting) -> None:
        await limiting.limiter.take("tenant", "user", per_minute=4)
        await limiting.wait(timedelta(days=3650))
        assert await admitted(*[limiting.limiter.take("tenant", "user", per_minute=4) for _ in range(9)]) == 4

    async def test_a_lower_limit_holds_at_once(self, limiting: Limiting) -> None:
        await limiting.limiter.take("tenant", "user", per_minute=50)
        assert await admitted(*[limiting.limiter.take("tenant", "user", per_minute=2) for _ in range(9)]) == 2

    async def test_a_huge_limit_is_only_a_number(self, limiting: Limiting) -> None:
        for _ in range(2):
            await limiting.limiter.take("tenant", "user", per_minute=1_000_000)
            await limiting.wait(timedelta(days=3650))

    async def test_users_and_tenants_have_buckets_of_their_own(self, limiting: Limiting) -> None:
        for tenant, user in [("tenant", "user"), ("tenant", "other"), ("other", "user")]:
            await limiting.limiter.take(tenant, user, per_minute=1)
            with pytest.raises(RateLimitedError):
                await limiting.limiter.take(tenant, user, per_minute=1)

    async def test_what_is_given_back_can_be_taken_again(self, limiting: Limiting) -> None:
        for _ in range(3):
            await limiting.limiter.take("tenant", "user", per_minute=3)
        assert (await limiting.limiter.give_back("tenant", "user", per_minute=3)).remaining == 1
        assert await admitted(*[limiting.limiter.take("tenant", "user", per_minute=3) for _ in range(5)]) == 1

    @pytest.mark.parametrize("taken", [0, 1])
    async def test_giving_back_fills_no_bucket_over_its_brim(self, limiting: Limiting, taken: int) -> None:
        for _ in range(taken):
            await limiting.limiter.take("tenant", "user", per_minute=2)
        for _ in range(3):
            left = await limiting.limiter.give_back("tenant", "user", per_minute=2)
            assert left == Allowance(limit=2, remaining=2, resets_in_s=0)
        assert await admitted(*[limiting.limiter.take("tenant", "user", per_minute=2) for _ in range(5)]) == 2

    @pytest.mark.parametrize("back", [timedelta(seconds=2), timedelta(hours=5), timedelta(days=3650)])
    async def test_a_clock_that_is_set_back_refills_nothing_and_is_not_waited_for(
        self, limiting: Limiting, back: timedelta
    ) -> None:
        for _ in range(3):
            await limiting.limiter.take("tenant", "user", per_minute=3)
        await limiting.wait(-back)
        for _ in range(2):
            with pytest.raises(RateLimitedError) as refusal:
                await limiting.limiter.take("tenant", "user", per_minute=3)
        await limiting.wait(timedelta(seconds=refusal.value.retry_after_s))
        assert await admitted(*[limiting.limiter.take("tenant", "user", per_minute=3) for _ in range(3)]) == 1

    async def test_buckets_of_users_long_gone_are_removed_step_by_step(self, limiting: Limiting) -> None:
        for user in ("ada", "bob", "eve"):
            await limiting.limiter.take("tenant", user, per_minute=1)
        await limiting.wait(timedelta(minutes=59))
        assert await limiting.limiter.forget(limit=9) == 0
        await limiting.wait(timedelta(minutes=2))
        await limiting.limiter.take("tenant", "eve", per_minute=1)
        assert [await limiting.limiter.forget(limit=1) for _ in range(3)] == [1, 1, 0]
        with pytest.raises(RateLimitedError):
            await limiting.limiter.take("tenant", "eve", per_minute=1)
        await limiting.limiter.take("tenant", "ada", per_minute=1)
