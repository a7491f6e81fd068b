"""Token buckets in PostgreSQL, by its clock."""

from typing import Final

from sqlalchemy import text

from textllm_adapters.postgres import openings
from textllm_adapters.postgres.engine import PostgresEngine
from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sql.errors import STORAGE_ERRORS
from textllm_adapters.sql.types import askable
from textllm_adapters.translation import translated
from textllm_core.errors import Allowance
from textllm_core.rules.buckets import FORGOTTEN_AFTER_US, TOKEN, allowance, refusal

_FORGET: Final = text(
    f"""
    DELETE FROM rate_buckets WHERE (tenant_id, user_id) IN (
        SELECT tenant_id, user_id FROM rate_buckets
        WHERE updated_at < {openings.NOW_US} - {FORGOTTEN_AFTER_US} LIMIT :at_most FOR UPDATE SKIP LOCKED
    )
    """  # noqa: S608 - joined from constants
)


class PostgresRateLimiter:
    """A `RateLimiter` that asks once: one statement refills the bucket, decides and takes."""

    def __init__(self, engine: PostgresEngine) -> None:
        self._database, self._lanes = Database(engine), engine.lanes

    async def take(self, tenant_id: str, user_id: str, *, per_minute: int) -> Allowance:
        bucket = _bucket(tenant_id, user_id, per_minute)
        admitted, level = await self._lanes.ask(openings.TAKE_TOKEN, tenant_id, bucket)
        if not admitted:
            raise refusal(level, per_minute=per_minute)
        return allowance(level, per_minute=per_minute)

    async def forget(self, *, limit: int) -> int:
        with translated(STORAGE_ERRORS):
            async with self._database.single(EVERYONE) as connection:
                return (await connection.execute(_FORGET, {"at_most": limit})).rowcount

    async def give_back(self, tenant_id: str, user_id: str, *, per_minute: int) -> Allowance:
        bucket = _bucket(tenant_id, user_id, per_minute)
        (level,) = await self._lanes.ask(openings.GIVE_TOKEN_BACK, tenant_id, bucket)
        return allowance(per_minute * TOKEN if level is None else level, per_minute=per_minute)


def _bucket(tenant_id: str, user_id: str, per_minute: int) -> dict[str, object]:
    return {"tenant": askable(tenant_id), "charged": askable(user_id), "per_minute": per_minute}
