"""Conversations in SQL: rows in, records out."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Row, Select, bindparam, exists, select
from sqlalchemy.ext.asyncio import AsyncEngine

from textllm_adapters.sql.errors import STORAGE_ERRORS
from textllm_adapters.sql.tables import conversations, messages
from textllm_adapters.translation import translated
from textllm_core.chat.messages import Message
from textllm_core.conversations import Conversation
from textllm_core.ports.conversation_repository import Thread

_OF_TENANT: Final = conversations.c.tenant_id == bindparam("of_tenant")
_OF_USER: Final = conversations.c.user_id == bindparam("of_user")
_IS_THERE: Final = conversations.c.is_deleted.is_(False)
_ID: Final = conversations.c.id == bindparam("of_conversation")

_GET: Final = select(conversations).where(_OF_TENANT, _ID, _IS_THERE)
_LATEST: Final = (
    select(conversations)
    .where(_OF_TENANT, _OF_USER, _IS_THERE)
    .order_by(conversations.c.updated_at.desc(), conversations.c.id.desc())
    .limit(1)
)
_THREAD: Final = select(
    conversations.c.id,
    conversations.c.user_id,
    conversations.c.transcript_id,
    conversations.c.context_tokens,
    conversations.c.message_count,
    conversations.c.revision,
    conversations.c.keeps_messages,
).where(_OF_TENANT, _ID, _IS_THERE)
_NEWEST_MESSAGES: Final = (
    select(messages)
    .where(
        messages.c.tenant_id == bindparam("of_tenant"),
        messages.c.user_id == bindparam("of_user"),
        messages.c.conversation_id == bindparam("of_conversation"),
        exists().where(_OF_TENANT, _OF_USER, _ID, _IS_THERE),
    )
    .order_by(messages.c.number.desc())
)
_LAST_MESSAGES: Final = _NEWEST_MESSAGES.limit(bindparam("at_most"))


class SqlConversationRepository:
    """A `ConversationRepository` that reads SQL tables."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")

    async def get(self, tenant_id: str, conversation_id: str) -> Conversation | None:
        row = await self._first(_GET, {"of_tenant": tenant_id, "of_conversation": conversation_id})
        return None if row is None else _conversation(row)

    async def latest(self, tenant_id: str, user_id: str) -> Conversation | None:
        row = await self._first(_LATEST, {"of_tenant": tenant_id, "of_user": user_id})
        return None if row is None else _conversation(row)

    async def thread(self, tenant_id: str, conversation_id: str) -> Thread | None:
        row = await self._first(_THREAD, {"of_tenant": tenant_id, "of_conversation": conversation_id})
        return None if row is None else Thread(*row)  # in the order of its fields

    async def last_messages(
        self, tenant_id: str, user_id: str, conversation_id: str, *, limit: int | None
    ) -> Sequence[Message]:
        of_conversation = {"of_tenant": tenant_id, "of_user": user_id, "of_conversation": conversation_id}
        with translated(STORAGE_ERRORS):
            async with self._engine.connect() as connection:
                if limit is None:
                    found = await connection.execute(_NEWEST_MESSAGES, of_conversation)
                else:
                    found = await connection.execute(_LAST_MESSAGES, of_conversation | {"at_most": limit})
                return [_message(row) for row in reversed(found.all())]

    async def _first(
        self, statement: Select[*tuple[Any, ...]], parameters: dict[str, str]
    ) -> Row[*tuple[Any, ...]] | None:
        with translated(STORAGE_ERRORS):
            async with self._engine.connect() as connection:
                return (await connection.execute(statement, parameters)).first()


def _conversation(row: Row[Any]) -> Conversation:
    return Conversation(
        id=row.id,
        user_id=row.user_id,
        session_id=row.session_id,
        created_at=row.created_at,
        updated_at=row.updated_at,
        message_count=row.message_count,
        total_tokens_input=row.total_tokens_input,
        total_tokens_output=row.total_tokens_output,
        total_cost=row.total_cost,
        title=row.title,
        summary=row.summary,
        tags=row.tags,
        metadata=row.metadata,
        is_deleted=row.is_deleted,
    )


def _message(row: Row[Any]) -> Message:
    return Message(id=row.id, role=row.role, content=row.content, created_at=row.created_at, status=row.status)
