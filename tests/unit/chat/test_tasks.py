"""What a turn costs in tasks."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.unit.conftest import Bench

from textllm_core import Caller, ReplyCompleted, TextTurn


@contextmanager
def tasks_started() -> Iterator[list[str]]:
    """The names of what is run as a task of its own, but for the rounds that come with time, not with turns."""
    loop, started = asyncio.get_running_loop(), list[str]()

    def counted(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> asyncio.Task[Any]:
        if work.__qualname__ != "Rounds._do":
            started.append(work.__qualname__)
        return asyncio.Task(work, loop=loop, **more)

    loop.set_task_factory(counted)
    try:
        yield started
    finally:
        loop.set_task_factory(None)


async def test_a_plain_turn_is_one_task(bench: Bench) -> None:
    with tasks_started() as started:
        await bench.say("hi")
    assert started == ["Exchange._carry_out"]


async def test_a_stream_is_one_task(bench: Bench) -> None:
    with tasks_started() as started:
        turn = TextTurn("hi", user_id="ada", is_resumable=True)
        events = [event async for event in bench.send_message.stream(Caller(), turn)]
    assert isinstance(events[-1], ReplyCompleted)
    assert started == ["Exchange._carry_out"]
