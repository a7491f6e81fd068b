"""What every schedule keeps of the port `Schedule`."""

from datetime import timedelta

import pytest

from textllm_adapters.testing.books import NOON, at_once
from textllm_core.ports.schedule import Schedule

MINUTE = timedelta(minutes=1)


class ScheduleContract:
    """What every schedule keeps of the port `Schedule`.

    Fixture `schedule`: a `Schedule` over an empty store, of this test alone.
    """

    pytestmark = pytest.mark.asyncio

    async def test_a_job_is_done_once_until_it_is_due_again(self, schedule: Schedule) -> None:
        assert await schedule.take("tidy", at=NOON, next_at=NOON + MINUTE)
        just_before = NOON + MINUTE - timedelta(microseconds=1)
        assert not await schedule.take("tidy", at=just_before, next_at=just_before + MINUTE)
        assert await schedule.take("tidy", at=NOON + MINUTE, next_at=NOON + 2 * MINUTE)

    async def test_of_all_that_ask_at_once_one_does_it(self, schedule: Schedule) -> None:
        told, errors = await at_once(*(schedule.take("tidy", at=NOON, next_at=NOON + MINUTE) for _ in range(6)))
        assert (sorted(told), errors) == ([False] * 5 + [True], [])

    async def test_jobs_do_not_wait_for_each_other(self, schedule: Schedule) -> None:
        assert await schedule.take("tidy", at=NOON, next_at=NOON + MINUTE)
        assert await schedule.take("count", at=NOON, next_at=NOON + MINUTE)

    async def test_a_clock_that_was_wrong_puts_nothing_off(self, schedule: Schedule) -> None:
        ahead = NOON + timedelta(hours=5)
        assert await schedule.take("tidy", at=ahead, next_at=ahead + MINUTE)
        assert await schedule.take("tidy", at=NOON, next_at=NOON + MINUTE)
