"""Whether the database answers, and takes writes."""

import asyncio
import shutil
from pathlib import Path
from typing import Final

from sqlalchemy import false, text, update
from sqlalchemy.ext.asyncio import AsyncEngine

from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sql.errors import Ailment
from textllm_adapters.sql.file_tables import file_totals, files
from textllm_adapters.sql.horizons import horizons
from textllm_adapters.sql.response_table import responses
from textllm_adapters.sql.tables import metadata, sessions

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
_RIGHTS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")


def _amiss() -> str:
    """A statement of PostgreSQL's that says what is wrong with one of our tables; NULL: nothing."""
    ours = ", ".join(
        "('{}', ARRAY[{}])".format(table.name, ", ".join(f"'{column.name}'" for column in table.columns))
        for table in dict.fromkeys([*metadata.tables.values(), files, file_totals, horizons, responses])
    )
    has_rights = " AND ".join(f"pg_catalog.has_table_privilege(id, '{right}')" for right in _RIGHTS)
    return f"""
        WITH ours (name, columns) AS (VALUES {ours}),
        found AS (SELECT name, columns, pg_catalog.to_regclass(name)::oid AS id FROM ours)
        SELECT min(CASE
            WHEN id IS NULL THEN 'lacks the table ' || name
            WHEN EXISTS (
                SELECT FROM unnest(columns) AS ours (name) WHERE NOT EXISTS (
                    SELECT FROM pg_catalog.pg_attribute WHERE attrelid = id AND attname = ours.name AND NOT attisdropped
                )
            ) THEN 'lacks a column of the table ' || name
            WHEN NOT ({has_rights}) THEN 'denies the role in DATABASE_URL a right on the table ' || name
        END) FROM found
    """  # noqa: S608 - joined from names of ours


class SqlHealthProbe:
    """A `HealthProbe` that writes, but no row. On PostgreSQL it looks also for all tables and rights."""

    name = "database"

    def __init__(self, engine: AsyncEngine) -> None:
        self._database = Database(engine)
        is_postgres = engine.dialect.name == "postgresql"
        self._write = _COMMIT if is_postgres else _WRITE
        self._amiss = text(_amiss()) if is_postgres else None
        is_file = engine.dialect.name == "sqlite" and engine.url.database
        self._folder = Path(engine.url.database or "").parent if is_file else None

    async def check(self) -> str | None:
        try:
            if self._folder is not None and shutil.disk_usage(self._folder).free < _LEAST_FREE_BYTES:
                return "The disk of the database's file is full."
            async with asyncio.timeout(_TIMEOUT_S):
                return await self._asked()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer; its text may hold secrets
            ails = Ailment.of(error) or Ailment.of_loss(error)
            return f"The database does not answer, or does not do what it is asked ({ails.name}): {ails.advice}."

    async def _asked(self) -> str | None:
        if self._amiss is not None:
            async with self._database.single(EVERYONE) as connection:
                amiss = (await connection.execute(self._amiss)).scalar_one()
            if amiss is not None:
                return f"The database {amiss}."
        async with self._database.batch(EVERYONE) as connection:
            await connection.execute(self._write)
        return None
