"""Whether PostgreSQL answers."""

import asyncio
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

_TIMEOUT_S: Final = 2


class PostgresHealthProbe:
    """A `HealthProbe` that asks PostgreSQL for nothing in particular."""

    name = "database"

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")

    async def check(self) -> str | None:
        try:
            async with asyncio.timeout(_TIMEOUT_S), self._engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer; its text may hold secrets
            return f"PostgreSQL does not answer: {type(error).__name__}."
        return None
