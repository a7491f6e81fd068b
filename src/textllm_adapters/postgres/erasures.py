"""The list of erasures in PostgreSQL: what is made ahead for turns is put on it, and struck off, by their lanes."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from textllm_adapters.postgres.engine import PostgresEngine
from textllm_adapters.postgres.lanes import Statement
from textllm_adapters.sql.database import shared_tenant
from textllm_adapters.sql.erasures import SqlErasures
from textllm_adapters.sql.types import askable, storable
from textllm_core.records.erasures import Erasure

_AT_ONCE: Final = 1000  # rows in a statement, behind which turns wait for some milliseconds

# What is to be erased at the provider at some time, unless it is struck off before. Returns how many there are.
_FORESEE: Final = Statement(
    """
    WITH foreseen AS (
        INSERT INTO erasures (tenant_id, user_id, id, kind, provider_id, attempts, next_at)
        SELECT named.*, :at
        FROM unnest(
            :tenants::text[], :users::text[], :ids::text[], :kinds::text[], :provider_ids::text[], :attempts::integer[]
        ) AS named
        RETURNING id
    )
    SELECT count(*) FROM foreseen
    """,
    order=("ids",),
)

# Returns how many there were.
_STRIKE_OFF: Final = Statement(
    """
    WITH struck AS (
        DELETE FROM erasures AS erasure
        USING unnest(:tenants::text[], :users::text[], :ids::text[]) AS named (tenant_id, user_id, id)
        WHERE erasure.tenant_id = named.tenant_id AND erasure.user_id = named.user_id AND erasure.id = named.id
        RETURNING erasure.id
    )
    SELECT count(*) FROM struck
    """,
    order=("ids",),
)


class PostgresErasures(SqlErasures):
    """An `Erasures` in PostgreSQL."""

    def __init__(self, engine: PostgresEngine) -> None:
        super().__init__(engine)
        self._lanes = engine.lanes

    async def foresee(self, erasures: Sequence[Erasure], *, at: datetime) -> None:
        if erasures:
            values = {
                "kinds": [erasure.kind for erasure in erasures],
                "provider_ids": [storable(erasure.provider_id) for erasure in erasures],
                "attempts": [erasure.attempts for erasure in erasures],
                "at": at,
            }
            await self._ask(_FORESEE, erasures, values)

    async def done(self, *erasures: Erasure) -> None:
        for some in _parts(erasures):
            await self._ask(_STRIKE_OFF, some, {})

    async def _ask(self, statement: Statement, erasures: Sequence[Erasure], values: dict[str, object]) -> None:
        named = {
            "tenants": [askable(erasure.tenant_id) for erasure in erasures],
            "users": [askable(erasure.user_id) for erasure in erasures],
            "ids": [erasure.id for erasure in erasures],
        }
        await self._lanes.ask(statement, shared_tenant(erasure.tenant_id for erasure in erasures), named | values)


def _parts(erasures: Sequence[Erasure]) -> Iterator[Sequence[Erasure]]:
    for start in range(0, len(erasures), _AT_ONCE):
        yield erasures[start : start + _AT_ONCE]
