"""Conversations in PostgreSQL."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from textllm_adapters.postgres import statements
from textllm_adapters.postgres.engine import PostgresEngine
from textllm_adapters.sql.conversation_repository import SqlConversationRepository
from textllm_adapters.sql.types import askable
from textllm_core.records.conversations import ConversationState

_CALLS: Final = msgspec.json.Decoder(tuple[str, ...])


class PostgresConversationRepository(SqlConversationRepository):
    """A `ConversationRepository` in PostgreSQL."""

    def __init__(self, engine: PostgresEngine) -> None:
        super().__init__(engine)
        self._lanes = engine.lanes

    async def state(
        self, tenant_id: str, conversation_id: str, *, user_id: str | None = None
    ) -> ConversationState | None:
        asked = {"tenant": askable(tenant_id), "conversation": askable(conversation_id)}
        if user_id is None:
            row = await self._lanes.ask(statements.STATE, tenant_id, asked)
        else:
            row = await self._lanes.ask(statements.STATE_OF_USER, tenant_id, asked | {"user": askable(user_id)})
        if row[0] is None:
            return None
        return state_of(row)


def state_of(known: Sequence[Any]) -> ConversationState:
    """The record of what `statements` has of a conversation."""
    *first, last_message, calls = known
    open_calls = None if calls is None else _CALLS.decode(calls)
    return ConversationState(*[*first, open_calls, last_message])
