"""Whether the database answers."""

import asyncio
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sql.tables import sessions

_TIMEOUT_S: Final = 2
_READ: Final = select(sessions.c.id).limit(1)


class SqlHealthProbe:
    """A `HealthProbe` that reads a row, or finds that there is none."""

    name = "database"

    def __init__(self, engine: AsyncEngine) -> None:
        self._database = Database(engine)

    async def check(self) -> str | None:
        try:
            async with asyncio.timeout(_TIMEOUT_S), self._database.single(EVERYONE) as connection:
                await connection.execute(_READ)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer; its text may hold secrets
            return f"The database does not answer: {type(error).__name__}."
        return None
