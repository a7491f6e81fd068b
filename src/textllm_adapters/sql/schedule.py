"""When jobs are due, in SQL: one row a job."""

from datetime import datetime

from sqlalchemy import bindparam, or_
from sqlalchemy.ext.asyncio import AsyncEngine

from textllm_adapters.sql import upserts
from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sql.errors import STORAGE_ERRORS
from textllm_adapters.sql.tables import jobs
from textllm_adapters.translation import translated


class SqlSchedule:
    """A `Schedule` over a SQL table: who moves the row on is to do the job."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._database = Database(engine)
        row = upserts.insert(jobs, self._database.dialect).values(name=bindparam("job"), due_at=bindparam("new_due"))
        moment = jobs.c.due_at.type
        self._take = row.on_conflict_do_update(
            index_elements=jobs.primary_key,
            set_={"due_at": row.excluded.due_at},
            where=or_(
                jobs.c.due_at <= bindparam("of_moment", type_=moment),
                jobs.c.due_at > bindparam("of_latest", type_=moment),
            ),
        ).returning(jobs.c.name)

    async def take(self, job: str, *, at: datetime, next_at: datetime) -> bool:
        asked = {"job": job, "new_due": next_at, "of_moment": at, "of_latest": next_at + (next_at - at)}
        with translated(STORAGE_ERRORS):
            async with self._database.transaction(EVERYONE) as connection:
                return (await connection.execute(self._take, asked)).first() is not None
