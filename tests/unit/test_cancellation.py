"""Work that must not be broken off runs to its end, and who was cancelled meanwhile hears of it."""

import asyncio

import pytest

from textllm_core.cancellation import carried_through


class Work:
    """Waits until it may end."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()
        self.has_ended, self.failure = False, failure

    async def run(self) -> str:
        self.begun.set()
        await self.may_end.wait()
        self.has_ended = True
        if self.failure is not None:
            raise self.failure
        return "done"


async def test_its_result_is_handed_on() -> None:
    work = Work()
    work.may_end.set()
    assert await carried_through(work.run()) == "done"


async def test_its_failure_is_handed_on() -> None:
    work = Work(ValueError("broken"))
    work.may_end.set()
    with pytest.raises(ValueError, match="broken"):
        await carried_through(work.run())


@pytest.mark.parametrize("failure", [None, ValueError("broken")])
async def test_however_often_it_is_cancelled_it_ends_and_the_cancellation_goes_on(failure: Exception | None) -> None:
    work = Work(failure)
    waiting = asyncio.create_task(carried_through(work.run()))
    await work.begun.wait()
    for _ in range(3):
        waiting.cancel()
        await asyncio.sleep(0)
        assert not waiting.done()
    work.may_end.set()
    with pytest.raises(asyncio.CancelledError) as cancellation:
        await waiting
    assert work.has_ended
    assert cancellation.value.__cause__ is failure
