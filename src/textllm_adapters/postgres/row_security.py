"""Whether the second lock between tenants holds."""

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sql.errors import STORAGE_ERRORS
from textllm_adapters.sql.tables import conversations
from textllm_adapters.translation import translated


async def is_row_security_active(engine: AsyncEngine) -> bool:
    """Whether the policies of the tables bind the role that we connect as; superusers pass them by.

    Raises:
        StorageUnavailableError: the database does not answer.
    """
    with translated(STORAGE_ERRORS):
        async with Database(engine).single(EVERYONE) as connection:
            asked = await connection.execute(select(func.row_security_active(conversations.name)))
            return bool(asked.scalar_one())
