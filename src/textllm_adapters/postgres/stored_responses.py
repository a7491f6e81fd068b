"""Responses that can be asked for again, in PostgreSQL."""

from typing import Final

import msgspec

from textllm_adapters.postgres import statements
from textllm_adapters.postgres.conversation_repository import state_of
from textllm_adapters.postgres.engine import PostgresEngine
from textllm_adapters.sql.stored_responses import SqlStoredResponses
from textllm_adapters.sql.types import askable
from textllm_core.records.messages import reply_message_id
from textllm_core.records.stored_responses import FollowedResponse, ResponseFailure, StoredResponse

_IDS: Final = msgspec.json.Decoder(tuple[str, ...])
_COLUMNS: Final = (
    "user_id",
    "conversation_id",
    "message_ids",
    "asked",
    "created_at",
    "is_background",
    "is_of_conversation",
    "failure",
)
_FAILURE: Final = msgspec.json.Decoder(ResponseFailure)


class PostgresStoredResponses(SqlStoredResponses):
    """`StoredResponses` in PostgreSQL: what every turn of a chain asks takes one statement, shared with others."""

    def __init__(self, engine: PostgresEngine) -> None:
        super().__init__(engine)
        self._lanes = engine.lanes

    async def get(self, tenant_id: str, response_id: str) -> StoredResponse | None:
        row = await self._lanes.ask(statements.RESPONSE, tenant_id, _named(tenant_id, response_id))
        columns = dict(zip(_COLUMNS, row, strict=True))
        if columns["user_id"] is None:
            return None
        columns["message_ids"] = _IDS.decode(columns["message_ids"])
        if columns["failure"] is not None:
            columns["failure"] = _FAILURE.decode(columns["failure"])
        return StoredResponse(tenant_id=tenant_id, id=response_id, **columns)

    async def followed(self, tenant_id: str, response_id: str) -> FollowedResponse | None:
        row = await self._lanes.ask(statements.FOLLOWED, tenant_id, _named(tenant_id, response_id))
        *known, is_of_conversation, has_failed, newest = row
        if known[0] is None:
            return None
        if newest is None:  # it was removed, and another one is the newest now
            return await super().followed(tenant_id, response_id)
        return FollowedResponse(
            id=response_id,
            conversation=state_of(known),
            is_of_conversation=is_of_conversation,
            has_failed=has_failed,
            is_last=newest == reply_message_id(response_id),
        )


def _named(tenant_id: str, response_id: str) -> dict[str, object]:
    return {"tenant": askable(tenant_id), "response": askable(response_id)}
