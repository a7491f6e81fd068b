"""Whether the database answers, and takes writes."""

import asyncio
import shutil
from pathlib import Path
from typing import Final

from sqlalchemy import false, text, update
from sqlalchemy.ext.asyncio import AsyncEngine

from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sql.tables import sessions

_TIMEOUT_S: Final = 2  # who asks waits 3 to 5 s for all probes, and they run side by side
_LEAST_FREE_BYTES: Final = 4 * 1024 * 1024  # SQLite's log grows so far before it is merged into the file
# A read-only server refuses it whatever it would change: nothing, and so it costs a read.
_WRITE: Final = update(sessions).values(is_active=sessions.c.is_active).where(false())
# And PostgreSQL has something to commit, of some bytes in its log alone: it must reach the disk, and the standby that
# commits wait for.
_COMMIT: Final = text(
    "WITH written AS (UPDATE sessions SET is_active = is_active WHERE false) "
    "SELECT pg_catalog.pg_logical_emit_message(true, 'textllm', 'ready')"
)


class SqlHealthProbe:
    """A `HealthProbe` that writes, but no row."""

    name = "database"

    def __init__(self, engine: AsyncEngine) -> None:
        self._database = Database(engine)
        self._write = _COMMIT if engine.dialect.name == "postgresql" else _WRITE
        is_file = engine.dialect.name == "sqlite" and engine.url.database
        self._folder = Path(engine.url.database or "").parent if is_file else None

    async def check(self) -> str | None:
        try:
            if self._folder is not None and shutil.disk_usage(self._folder).free < _LEAST_FREE_BYTES:
                return "The disk of the database's file is full."
            async with asyncio.timeout(_TIMEOUT_S), self._database.batch(EVERYONE) as connection:
                await connection.execute(self._write)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer; its text may hold secrets
            sqlstate = getattr(getattr(error, "orig", error), "sqlstate", None)
            named = f"{type(error).__name__} (SQLSTATE {sqlstate})" if sqlstate else type(error).__name__
            return f"The database does not answer, or takes no writes: {named}."
        return None
