"""The time that all processes on one database share."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from textllm_adapters.postgres import clock as module
from textllm_adapters.postgres.clock import PostgresClock
from textllm_adapters.postgres.engine import PostgresEngine


async def test_a_clock_whose_machine_slept_is_set_right(
    postgres_engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ASK_EVERY_S", 0.0)
    clock, counted = await PostgresClock.of(postgres_engine), module._counted
    monkeypatch.setattr(module, "_counted", lambda: counted() - timedelta(minutes=5))
    assert datetime.now(UTC) - clock.now() > timedelta(minutes=4)
    keeping = asyncio.create_task(clock.kept())
    async with asyncio.timeout(60):
        while datetime.now(UTC) - clock.now() > timedelta(minutes=1):  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping
