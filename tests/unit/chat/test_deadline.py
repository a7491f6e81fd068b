"""A deadline that is moved with every step ends a block as `asyncio.timeout` does."""

import asyncio

import pytest

from textllm_core.chat.deadline import NEVER, Deadline


def soon() -> float:
    return asyncio.get_running_loop().time() + 0.001


def late() -> float:
    return asyncio.get_running_loop().time() + 3600


async def wait_behind(first: float, *moves: float, pause_s: float = 0.0) -> None:
    """Wait for ever, with a deadline that is moved, after a pause each."""
    with Deadline(first) as deadline:
        for at in moves:
            deadline.move(at)
            await asyncio.sleep(pause_s)
        await asyncio.Event().wait()


async def test_what_takes_too_long_is_ended() -> None:
    with pytest.raises(TimeoutError):
        await wait_behind(soon())
    await asyncio.sleep(0)  # nothing of the cancellation is left


async def test_what_goes_on_may_last() -> None:
    with Deadline(soon()) as deadline:
        deadline.move(late())
        await asyncio.sleep(0.005)


async def test_the_end_may_come_nearer() -> None:
    with pytest.raises(TimeoutError):
        await wait_behind(late(), soon())


async def test_own_work_has_no_end_until_it_is_given_one_again() -> None:
    first = soon()
    with pytest.raises(TimeoutError):
        await wait_behind(first, NEVER, first, pause_s=0.005)


async def test_a_cancellation_by_others_is_none_of_its_own() -> None:
    waiting = asyncio.create_task(wait_behind(late()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_an_error_of_the_block_passes() -> None:
    with pytest.raises(ZeroDivisionError), Deadline(late()):
        1 / 0  # noqa: B018 - it raises
