"""API keys in PostgreSQL."""

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
        return None if row[0] is None else Caller(*row)
