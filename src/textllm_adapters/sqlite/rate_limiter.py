"""Token buckets in SQLite, by the clock of the machine."""

import sqlite3
import time
from functools import partial
from typing import Final

from msgspec import Struct

from textllm_adapters.sql.errors import STORAGE_ERRORS
from textllm_adapters.sql.tables import rate_buckets
from textllm_adapters.sqlite.engine import SqliteEngine
from textllm_adapters.sqlite.rows import Records
from textllm_adapters.translation import translated
from textllm_core.errors import Allowance
from textllm_core.rules.buckets import FORGOTTEN_AFTER_US, TOKEN, allowance, given_back, refilled, refusal, taken


class _Bucket(Struct, frozen=True):
    level: int
    updated_at: int


_BUCKETS: Final = Records(rate_buckets, _Bucket)
_FORGET: Final = """
    DELETE FROM rate_buckets WHERE (tenant_id, user_id) IN (
        SELECT tenant_id, user_id FROM rate_buckets WHERE updated_at < ? LIMIT ?
    )
"""


class SqliteRateLimiter:
    """A `RateLimiter` whose buckets are read and written as one call of the writer."""

    def __init__(self, engine: SqliteEngine) -> None:
        self._writer = engine.writer

    async def take(self, tenant_id: str, user_id: str, *, per_minute: int) -> Allowance:
        with translated(STORAGE_ERRORS):
            level, admitted = await self._writer.run(
                partial(take, tenant_id=tenant_id, user_id=user_id, per_minute=per_minute)
            )
        if not admitted:
            raise refusal(level, per_minute=per_minute)
        return allowance(level, per_minute=per_minute)

    async def give_back(self, tenant_id: str, user_id: str, *, per_minute: int) -> Allowance:
        def give_back(connection: sqlite3.Connection) -> int:
            bucket = _BUCKETS.get(connection, tenant_id, user_id)
            if bucket is None:
                return per_minute * TOKEN
            level = given_back(bucket.level, per_minute=per_minute)  # what flowed in is added by the next take
            _BUCKETS.set(connection, tenant_id, user_id, level=level)
            return level

        with translated(STORAGE_ERRORS):
            return allowance(await self._writer.run(give_back), per_minute=per_minute)

    async def forget(self, *, limit: int) -> int:
        def forget(connection: sqlite3.Connection) -> int:
            return connection.execute(_FORGET, (_now_us() - FORGOTTEN_AFTER_US, limit)).rowcount

        with translated(STORAGE_ERRORS):
            return await self._writer.run(forget)


def take(connection: sqlite3.Connection, tenant_id: str, user_id: str, *, per_minute: int) -> tuple[int, bool]:
    """Take a token by the writer's connection: the level afterwards, and whether there was one."""
    bucket, now = _BUCKETS.get(connection, tenant_id, user_id), _now_us()
    level = per_minute * TOKEN
    if bucket is not None:
        level = refilled(bucket.level, per_minute=per_minute, elapsed_us=now - bucket.updated_at)
    level, admitted = taken(level)
    row = {"tenant_id": tenant_id, "user_id": user_id, "level": level, "updated_at": now, "admitted": admitted}
    _BUCKETS.put(connection, row)
    return level, admitted


def _now_us() -> int:
    return time.time_ns() // 1_000
