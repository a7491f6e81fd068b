"""API keys in PostgreSQL."""

import msgspec

from textllm_adapters.postgres import statements
from textllm_adapters.postgres.engine import PostgresEngine
from textllm_adapters.sql.api_key_repository import SqlApiKeyRepository
from textllm_adapters.sql.database import EVERYONE
from textllm_core.tenancy import Caller


class PostgresApiKeyRepository(SqlApiKeyRepository):
    """An `ApiKeyRepository` in PostgreSQL."""

    def __init__(self, engine: PostgresEngine) -> None:
        super().__init__(engine)
        self._lanes = engine.lanes

    async def caller(self, digest: bytes) -> Caller | None:
        row = await self._lanes.ask(statements.CALLER, EVERYONE, {"digest": digest})
        if row[0] is None:
            return None
        tenant_id, role, user_id, key_id, models = row
        allowed = None if models is None else tuple(msgspec.json.decode(models, type=list[str]))
        return Caller(tenant_id, role, user_id, key_id, allowed)
