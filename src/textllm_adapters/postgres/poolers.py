"""Whether what stands between us and PostgreSQL can be worked with."""

from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from textllm_adapters.sql.database import EVERYONE, Database, is_pooled
from textllm_adapters.sql.errors import STORAGE_ERRORS
from textllm_adapters.translation import translated

# This very statement is prepared under a name of asyncpg's. A pooler that keeps it gives it a name of its own.
_IS_HANDED_ON: Final = text(
    "SELECT EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE starts_with(name, '__asyncpg_'))"
)


async def are_statements_handed_on(engine: AsyncEngine) -> bool:
    """Whether there is a pooler, and it does not keep prepared statements for its clients, one session or another.

    Raises:
        StorageUnavailableError: the database does not answer.
    """
    with translated(STORAGE_ERRORS):
        async with Database(engine).single(EVERYONE) as connection:
            return is_pooled(connection) and bool((await connection.execute(_IS_HANDED_ON)).scalar_one())
