"""One time for all processes on one database, whatever the clocks of their machines say."""

import asyncio
import time
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final, Self

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sql.errors import STORAGE_ERRORS
from textllm_adapters.translation import translated
from textllm_core.errors import StorageUnavailableError

ASK_EVERY_S: Final = 10.0  # less than a lease: after a failover it may be another machine that tells the time
_COUNTER: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # the first goes on while the machine sleeps


class PostgresClock:
    """A `Clock` that tells the database's time: what it was when it was last asked, and what has been counted since.

    Who sets a machine's clock changes nothing of it.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._database = Database(engine)
        self._zero: datetime  # when a clock that nobody sets counted 0

    @classmethod
    async def of(cls, engine: AsyncEngine) -> Self:
        """One that has asked.

        Raises:
            StorageUnavailableError: the database does not answer.
        """
        clock = cls(engine)
        clock._zero, _ = await clock._ask()
        return clock

    async def kept(self) -> None:
        """Ask again and again; it is set only where it was surely wrong."""
        while True:
            await asyncio.sleep(ASK_EVERY_S)
            with suppress(StorageUnavailableError):  # it goes on counting
                zero, accuracy = await self._ask()
                if abs(zero - self._zero) > accuracy:
                    self._zero = zero

    def now(self) -> datetime:
        """Keeps `Clock.now`."""
        return self._zero + _counted()

    async def _ask(self) -> tuple[datetime, timedelta]:
        with translated(STORAGE_ERRORS):
            async with self._database.single(EVERYONE) as connection:
                before = _counted()
                answer = await connection.execute(select(func.clock_timestamp()))
                accuracy = (_counted() - before) / 2
        return answer.scalar_one() - before - accuracy, accuracy


def _counted() -> timedelta:
    return timedelta(seconds=time.clock_gettime(_COUNTER))
