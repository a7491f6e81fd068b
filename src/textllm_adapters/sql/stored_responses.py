"""Responses that can be asked for again, in a SQL table."""

from typing import Any, Final

from sqlalchemy import and_, bindparam, delete, exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from textllm_adapters.sql.conversation_statements import STATE
from textllm_adapters.sql.database import Database
from textllm_adapters.sql.errors import STORAGE_ERRORS
from textllm_adapters.sql.response_table import responses
from textllm_adapters.sql.tables import conversations, messages
from textllm_adapters.translation import translated
from textllm_core.records.conversations import ConversationState
from textllm_core.records.messages import reply_message_id
from textllm_core.records.stored_responses import FollowedResponse, ResponseFailure, StoredResponse

_OF_TENANT: Final = responses.c.tenant_id == bindparam("of_tenant")
_IT: Final = and_(_OF_TENANT, responses.c.user_id == bindparam("of_user"), responses.c.id == bindparam("of_response"))
_IS_SHOWN: Final = exists().where(
    conversations.c.tenant_id == responses.c.tenant_id,
    conversations.c.user_id == responses.c.user_id,
    conversations.c.id == responses.c.conversation_id,
    conversations.c.is_deleted.is_(False),
)
_GET: Final = select(responses).where(_OF_TENANT, responses.c.id == bindparam("of_response"), _IS_SHOWN)
_NEWEST: Final = (
    select(messages.c.id)
    .where(
        messages.c.tenant_id == conversations.c.tenant_id,
        messages.c.user_id == conversations.c.user_id,
        messages.c.conversation_id == conversations.c.id,
    )
    .order_by(messages.c.number.desc())
    .limit(1)
    .scalar_subquery()
)
_FOLLOWED: Final = select(*STATE.selected_columns, _NEWEST.label("newest")).where(
    conversations.c.tenant_id == bindparam("of_tenant"), conversations.c.id == bindparam("of_conversation")
)
_FAIL: Final = update(responses).where(_IT).values(failure=bindparam("new_failure"))
_REMOVE: Final = delete(responses).where(_IT, _IS_SHOWN).returning(responses.c.conversation_id)
_OTHERS: Final = select(func.count()).where(
    _OF_TENANT,
    responses.c.user_id == bindparam("of_user"),
    responses.c.conversation_id == bindparam("of_conversation"),
)


class SqlStoredResponses:
    """`StoredResponses` over a SQL table."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._database = Database(engine)

    async def get(self, tenant_id: str, response_id: str) -> StoredResponse | None:
        asked = {"of_tenant": tenant_id, "of_response": response_id}
        with translated(STORAGE_ERRORS):
            async with self._database.single(tenant_id) as connection:
                row = (await connection.execute(_GET, asked)).one_or_none()
        return None if row is None else StoredResponse(**row._mapping)

    async def followed(self, tenant_id: str, response_id: str) -> FollowedResponse | None:
        response = await self.get(tenant_id, response_id)
        if response is None:
            return None
        asked = {"of_tenant": tenant_id, "of_conversation": response.conversation_id}
        with translated(STORAGE_ERRORS):
            async with self._database.single(tenant_id) as connection:
                row = (await connection.execute(_FOLLOWED, asked)).one_or_none()
        if row is None:
            return None
        *_, newest = row
        state = ConversationState(**{name: row._mapping[name] for name in ConversationState.__struct_fields__})
        return FollowedResponse(
            id=response_id,
            conversation=state,
            is_of_conversation=response.is_of_conversation,
            has_failed=response.failure is not None,
            is_last=newest == reply_message_id(response_id),
        )

    async def fail(self, tenant_id: str, user_id: str, response_id: str, failure: ResponseFailure) -> None:
        with translated(STORAGE_ERRORS):
            async with self._database.transaction(tenant_id) as connection:
                await connection.execute(_FAIL, _it(tenant_id, user_id, response_id) | {"new_failure": failure})

    async def remove(self, tenant_id: str, user_id: str, response_id: str) -> int | None:
        it = _it(tenant_id, user_id, response_id)
        with translated(STORAGE_ERRORS):
            async with self._database.transaction(tenant_id) as connection:
                gone = (await connection.execute(_REMOVE, it)).one_or_none()
                if gone is None:
                    return None
                of_it = it | {"of_conversation": gone.conversation_id}
                return int((await connection.execute(_OTHERS, of_it)).scalar_one())


def _it(tenant_id: str, user_id: str, response_id: str) -> dict[str, Any]:
    return {"of_tenant": tenant_id, "of_user": user_id, "of_response": response_id}
