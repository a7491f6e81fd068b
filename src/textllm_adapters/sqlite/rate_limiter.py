"""Token buckets in SQLite, by the clock of the machine, in milliseconds."""

from typing import Final

from sqlalchemy import bindparam, text
from sqlalchemy.ext.asyncio import AsyncEngine

from textllm_adapters.buckets import FORGOTTEN_AFTER_US, FULL_AFTER_US, TOKEN, allowance, refusal
from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sql.errors import STORAGE_ERRORS
from textllm_adapters.sql.types import Id
from textllm_adapters.translation import translated
from textllm_core.errors import Allowance

# No time has passed where the clock was set back; from there on it goes by the clock as it is now.
# A refusal writes what has flowed in, too: the level it returns tells how long to wait.
_NOW_US: Final = "CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER) * 1000"
_ELAPSED_US: Final = f"min({FULL_AFTER_US}, max(0, excluded.updated_at - bucket.updated_at))"
_REFILLED: Final = f"min(:per_minute * {TOKEN}, bucket.level + :per_minute * {_ELAPSED_US})"
_TAKE: Final = text(
    f"""
    INSERT INTO rate_buckets AS bucket (tenant_id, user_id, level, updated_at, admitted)
    VALUES (:tenant_id, :user_id, (:per_minute - 1) * {TOKEN}, {_NOW_US}, TRUE)
    ON CONFLICT (tenant_id, user_id) DO UPDATE SET
        level = {_REFILLED} - CASE WHEN {_REFILLED} >= {TOKEN} THEN {TOKEN} ELSE 0 END,
        updated_at = excluded.updated_at,
        admitted = {_REFILLED} >= {TOKEN}
    RETURNING admitted, level
    """  # noqa: S608 - joined from constants
).bindparams(bindparam("tenant_id", type_=Id), bindparam("user_id", type_=Id))

# As `buckets.given_back` has it; what has flowed in meanwhile is added by the next take.
_GIVE_BACK: Final = text(
    f"""
    UPDATE rate_buckets SET level = min(:per_minute * {TOKEN}, level + {TOKEN})
    WHERE tenant_id = :tenant_id AND user_id = :user_id
    RETURNING level
    """  # noqa: S608 - joined from constants
).bindparams(bindparam("tenant_id", type_=Id), bindparam("user_id", type_=Id))

_FORGET: Final = text(
    f"""
    DELETE FROM rate_buckets WHERE (tenant_id, user_id) IN (
        SELECT tenant_id, user_id FROM rate_buckets
        WHERE updated_at < {_NOW_US} - {FORGOTTEN_AFTER_US} LIMIT :at_most
    )
    """  # noqa: S608 - joined from constants
)


class SqliteRateLimiter:
    """A `RateLimiter` that asks once: one statement refills the bucket, decides and takes."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._database = Database(engine)

    async def take(self, tenant_id: str, user_id: str, *, per_minute: int) -> Allowance:
        bucket = {"tenant_id": tenant_id, "user_id": user_id, "per_minute": per_minute}
        with translated(STORAGE_ERRORS):
            async with self._database.transaction(tenant_id) as connection:
                admitted, level = (await connection.execute(_TAKE, bucket)).one()
        if not admitted:
            raise refusal(level, per_minute=per_minute)
        return allowance(level, per_minute=per_minute)

    async def forget(self, *, limit: int) -> int:
        with translated(STORAGE_ERRORS):
            async with self._database.transaction(EVERYONE) as connection:
                return (await connection.execute(_FORGET, {"at_most": limit})).rowcount

    async def give_back(self, tenant_id: str, user_id: str, *, per_minute: int) -> Allowance:
        bucket = {"tenant_id": tenant_id, "user_id": user_id, "per_minute": per_minute}
        with translated(STORAGE_ERRORS):
            async with self._database.transaction(tenant_id) as connection:
                level = (await connection.execute(_GIVE_BACK, bucket)).scalar_one_or_none()
        return allowance(per_minute * TOKEN if level is None else level, per_minute=per_minute)
