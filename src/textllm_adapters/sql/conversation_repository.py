"""Conversations in SQL: rows in, records out."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from msgspec import UNSET
from sqlalchemy import Executable, Row, Select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from textllm_adapters.sql import conversation_statements as statements
from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sql.errors import STORAGE_ERRORS
from textllm_adapters.sql.ledger_rows import erasure_rows, imported_message_rows
from textllm_adapters.sql.ledger_statements import ADD_ERASURES
from textllm_adapters.sql.message_words import catch_up, forget_gone
from textllm_adapters.translation import translated
from textllm_core.errors import (
    ConversationBusyError,
    ConversationNotFoundError,
    ForbiddenError,
    StorageUnavailableError,
)
from textllm_core.ids import new_id
from textllm_core.records.conversations import (
    BegunConversation,
    Conversation,
    ConversationChanges,
    ConversationFilter,
    ConversationState,
)
from textllm_core.records.edits import ConversationEdit
from textllm_core.records.messages import Message
from textllm_core.records.parts import file_keys

_BEHIND_ALL: Final = 2**31 - 1
_MESSAGES_AT_ONCE: Final = 500  # so that no more of them are in memory a second time, as rows
_KEYS_AT_ONCE: Final = 1000  # parameters of a statement; databases take some ten thousands


class SqlConversationRepository:
    """A `ConversationRepository` over SQL tables."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._database = Database(engine)

    async def get(
        self, tenant_id: str, conversation_id: str, *, user_id: str | None = None, include_deleted: bool = False
    ) -> Conversation | None:
        statement = statements.GET if include_deleted else statements.GET_SHOWN
        row = await self._found(tenant_id, conversation_id, user_id, statement)
        return None if row is None else _conversation(row)

    async def list(
        self, tenant_id: str, wanted: ConversationFilter, *, limit: int, offset: int
    ) -> tuple[Sequence[Conversation], int]:
        if wanted.search is not None:
            await catch_up(self._engine, tenant_id, wanted.user_id)
        page, count = statements.listed(wanted, self._database.dialect)
        of_tenant = {"of_tenant": tenant_id}
        with translated(STORAGE_ERRORS):
            async with self._database.single(tenant_id) as connection:
                total = (await connection.execute(count, of_tenant)).scalar_one()
                found = await connection.execute(page, of_tenant | {"at_most": limit, "from_place": offset})
                return [_conversation(row) for row in found], total

    async def count(self, tenant_id: str, user_id: str, *, at_most: int) -> int:
        asked = {"of_tenant": tenant_id, "of_user": user_id, "at_most": at_most}
        with translated(STORAGE_ERRORS):
            async with self._database.single(tenant_id) as connection:
                return int((await connection.execute(statements.COUNT, asked)).scalar_one())

    async def latest(self, tenant_id: str, user_id: str) -> Conversation | None:
        row = await self._first(tenant_id, statements.LATEST, {"of_tenant": tenant_id, "of_user": user_id})
        return None if row is None else _conversation(row)

    async def state(
        self, tenant_id: str, conversation_id: str, *, user_id: str | None = None
    ) -> ConversationState | None:
        row = await self._found(tenant_id, conversation_id, user_id, statements.STATE)
        return None if row is None else ConversationState(**row._mapping)

    async def last_messages(
        self, tenant_id: str, user_id: str, conversation_id: str, *, limit: int | None
    ) -> Sequence[Message]:
        it = _it(tenant_id, user_id, conversation_id)
        with translated(STORAGE_ERRORS):
            async with self._database.single(tenant_id) as connection:
                if limit is None:
                    found = await connection.execute(statements.NEWEST_MESSAGES, it)
                else:
                    found = await connection.execute(statements.LAST_MESSAGES, it | {"at_most": limit})
                return [_message(row) for row in reversed(found.all())]

    async def messages(
        self,
        tenant_id: str,
        user_id: str,
        conversation_id: str,
        *,
        newest_first: bool,
        after: str | None,
        limit: int,
    ) -> Sequence[Message] | None:
        it = _it(tenant_id, user_id, conversation_id)
        number: int | None = _BEHIND_ALL if newest_first else 0
        with translated(STORAGE_ERRORS):
            async with self._database.single(tenant_id) as connection:
                if after is not None:
                    named = it | {"of_message": after}
                    number = (await connection.execute(statements.NUMBER_OF_MESSAGE, named)).scalar()
                    if number is None:
                        return None
                page = statements.page_of_messages(newest_first=newest_first)
                found = await connection.execute(page, it | {"of_number": number, "at_most": limit})
                return [_message(row) for row in found]

    async def add(
        self,
        tenant_id: str,
        conversation: Conversation,
        *,
        keeps_messages: bool,
        at_most: int | None = None,
        expires_at: datetime | None = None,
    ) -> Conversation:
        row = _row(tenant_id, conversation) | {"keeps_messages": keeps_messages, "expires_at": expires_at}
        with translated(STORAGE_ERRORS):
            async with self._database.transaction(tenant_id) as connection:
                if at_most is not None:
                    await self._lock(connection, tenant_id, conversation.user_id)
                    await _check_room(connection, tenant_id, conversation.user_id, at_most=at_most)
                return _conversation((await connection.execute(statements.ADD, row)).one())

    async def add_imported(
        self,
        tenant_id: str,
        conversation: Conversation,
        messages: Sequence[Message],
        *,
        context_tokens: int,
        at_most: int | None,
        expires_at: datetime | None = None,
    ) -> Conversation | None:
        row = _row(tenant_id, conversation) | {"keeps_messages": True, "context_tokens": context_tokens}
        row |= {"last_message": len(messages), "imported_turns": conversation.message_count, "expires_at": expires_at}
        row |= {"open_calls": messages[-1].open_calls if messages else None}
        of_it = tenant_id, conversation.user_id, conversation.id
        it = _it(*of_it)
        with translated(STORAGE_ERRORS):
            async with self._database.transaction(tenant_id) as connection:
                await self._lock(connection, tenant_id, conversation.user_id)
                if (await connection.execute(statements.IS_TAKEN, it)).scalar_one():
                    return None
                if at_most is not None:
                    await _check_room(connection, tenant_id, conversation.user_id, at_most=at_most)
                kept = (await connection.execute(statements.ADD, row)).one()
                for first in range(0, len(messages), _MESSAGES_AT_ONCE):
                    some = messages[first : first + _MESSAGES_AT_ONCE]
                    rows = imported_message_rows(*of_it, some, first=first + 1)
                    await connection.execute(statements.ADD_MESSAGES, rows)
                return _conversation(kept)

    async def messages_of(
        self, tenant_id: str, user_id: str, conversation_id: str, message_ids: Collection[str]
    ) -> Sequence[Message]:
        asked = _it(tenant_id, user_id, conversation_id) | {"of_messages": list(message_ids)}
        with translated(STORAGE_ERRORS):
            async with self._database.single(tenant_id) as connection:
                return [_message(row) for row in await connection.execute(statements.MESSAGES_OF, asked)]

    async def edit(self, tenant_id: str, user_id: str, conversation_id: str, edit: ConversationEdit) -> None:
        it = _it(tenant_id, user_id, conversation_id)
        with translated(STORAGE_ERRORS):
            async with self._database.transaction(tenant_id) as connection:
                before = (await connection.execute(statements.EDITED, it)).one_or_none()
                if before is None:
                    raise ConversationNotFoundError
                if before.turn_id is not None or before.revision != edit.revision:
                    raise ConversationBusyError
                if edit.rewritten is not None:
                    rewritten = it | {"of_message": edit.rewritten.id}
                    await connection.execute(statements.FORGET_WORDS, rewritten)
                    changed = rewritten | {"new_content": edit.rewritten.content, "new_response": new_id("resp")}
                    await connection.execute(statements.REWRITE_MESSAGE, changed)
                if edit.removed is not None:
                    await connection.execute(statements.REMOVE_MESSAGE, it | {"of_message": edit.removed})
                if edit.is_loss:
                    await connection.execute(statements.ERASE_REPLIES, it | {"new_moment": edit.at})
                    await connection.execute(statements.FORGET_REPLIES, it)
                if edit.unsaid is not None:
                    unsaid = it | {"of_response": edit.unsaid}
                    told = unsaid | {"new_text": edit.remembered.decode()}
                    await connection.execute(statements.ERASE_REPEATS_OF_REPLY, told)
                    for erase_journal in statements.ERASE_JOURNALS_OF_REPLY:
                        await connection.execute(erase_journal, unsaid)
                if edit.added:
                    rows = imported_message_rows(
                        tenant_id, user_id, conversation_id, edit.added, first=before.last_message + 1
                    )
                    await connection.execute(statements.ADD_MESSAGES, rows)
                if before.transcript_id is not None:
                    dropped = erasure_rows(tenant_id, user_id, [before.transcript_id], at=edit.at)
                    await connection.execute(ADD_ERASURES, dropped)
                moved = {
                    "new_messages": len(edit.added),
                    "new_replies": edit.replies,
                    "new_context": edit.context_tokens,
                    "new_calls": edit.open_calls,
                    "new_moment": edit.at,
                }
                changed_row = statements.EDIT.values(summary=None) if edit.is_loss else statements.EDIT
                await connection.execute(changed_row, it | moved)

    async def update(
        self, tenant_id: str, user_id: str, conversation_id: str, changes: ConversationChanges
    ) -> Conversation | None:
        values: dict[str, object] = {}
        if changes.title is not UNSET:
            values["title"] = changes.title
        if changes.tags is not UNSET:
            values["tags"] = tuple(changes.tags or ())
        if changes.metadata is not UNSET:
            values["metadata"] = changes.metadata or {}
        if not values:
            return await self.get(tenant_id, conversation_id, user_id=user_id)
        row = await self._changed(tenant_id, statements.UPDATE.values(values), _it(tenant_id, user_id, conversation_id))
        return None if row is None else _conversation(row)

    async def hide(self, tenant_id: str, user_id: str, conversation_id: str, *, at: datetime) -> None:
        it = _it(tenant_id, user_id, conversation_id)
        if await self._changed(tenant_id, statements.HIDE, it | {"new_moment": at}) is None:
            raise await self._refusal(tenant_id, statements.GET_SHOWN, it)

    async def begun(
        self, *, before: datetime, after: BegunConversation | None, limit: int
    ) -> Sequence[BegunConversation]:
        asked, wanted = statements.BEGUN, {"of_moment": before, "at_most": limit}
        if after is not None:
            asked, wanted = (
                asked.where(statements.IS_BEHIND),
                wanted | {"of_start": after.created_at, "of_it": after.id},
            )
        with translated(STORAGE_ERRORS):
            async with self._database.single(EVERYONE) as connection:
                return [BegunConversation(**row) for row in (await connection.execute(asked, wanted)).mappings()]

    async def forget_expired(self, *, at: datetime, limit: int) -> int:
        with translated(STORAGE_ERRORS):
            async with self._database.transaction(EVERYONE) as connection:
                gone = await connection.execute(statements.FORGET_EXPIRED, {"of_moment": at, "at_most": limit})
                return gone.rowcount

    async def expired(self, *, at: datetime, limit: int) -> Sequence[tuple[str, str, str, datetime]]:
        with translated(STORAGE_ERRORS):
            async with self._database.single(EVERYONE) as connection:
                found = await connection.execute(statements.EXPIRED, {"of_moment": at, "at_most": limit})
                return [(row.tenant_id, row.user_id, row.id, row.updated_at) for row in found]

    async def expire(self, tenant_id: str, user_id: str, conversation_id: str, *, at: datetime) -> None:
        await self._changed(tenant_id, statements.EXPIRE, _it(tenant_id, user_id, conversation_id) | {"new_moment": at})

    async def restore(self, tenant_id: str, user_id: str, conversation_id: str) -> Conversation | None:
        row = await self._changed(tenant_id, statements.RESTORE, _it(tenant_id, user_id, conversation_id))
        return None if row is None else _conversation(row)

    async def hidden(self, *, before: datetime, limit: int) -> Sequence[tuple[str, str, str]]:
        with translated(STORAGE_ERRORS):
            async with self._database.single(EVERYONE) as connection:
                found = await connection.execute(statements.HIDDEN, {"hidden_before": before, "at_most": limit})
                return [(row.tenant_id, row.user_id, row.id) for row in found]

    async def erase(
        self,
        tenant_id: str,
        user_id: str,
        conversation_id: str,
        *,
        at: datetime,
        remembered: bytes,
        silent_since: datetime | None = None,
        hidden_before: datetime | None = None,
    ) -> Sequence[str]:
        it = _it(tenant_id, user_id, conversation_id)
        erase, only_if = statements.ERASE, {"of_moment": silent_since, "hidden_before": hidden_before}
        if silent_since is not None:
            erase = erase.where(statements.IS_SILENT)
        if hidden_before is not None:
            erase = erase.where(statements.WAS_HIDDEN)
        keys: set[str] = set()
        with translated(STORAGE_ERRORS):
            async with self._database.transaction(tenant_id) as connection:
                await connection.execute(statements.LOCK, it)
                is_indexed = self._database.dialect == "sqlite" and await connection.scalar(statements.HAS_WORDS, it)
                async for content in await connection.stream_scalars(statements.CONTENTS_WITH_FILES, it):
                    keys.update(file_keys(content))
                erased = (await connection.execute(erase, it | only_if)).one_or_none()
                if erased is not None:
                    keys.update(filter(None, [erased.last_image_url]))
                    hidden = sorted(keys)
                    for start in range(0, len(hidden), _KEYS_AT_ONCE):
                        some = {"of_keys": hidden[start : start + _KEYS_AT_ONCE]}
                        await connection.execute(statements.HIDE_FILES, it | some)
                    await connection.execute(statements.ERASE_REPEATS, it | {"new_text": remembered.decode()})
                    await connection.execute(statements.ERASE_METADATA, it)
                    for erase_journal in statements.ERASE_JOURNALS:
                        await connection.execute(erase_journal, it)
                    await connection.execute(statements.ERASE_REPLIES, it | {"new_moment": at})
                    if erased.transcript_id is not None:
                        rows = erasure_rows(tenant_id, user_id, [erased.transcript_id], at=at)
                        await connection.execute(ADD_ERASURES, rows)
        if erased is None:
            raise await self._refusal(tenant_id, statements.GET, it)
        if is_indexed:
            with suppress(StorageUnavailableError):  # the next erasure does it
                await forget_gone(self._database)
        return sorted(keys)

    async def _lock(self, connection: AsyncConnection, tenant_id: str, user_id: str) -> None:
        """Have whoever else adds something for the user wait for the end of the transaction."""
        if self._database.dialect == "postgresql":  # on SQLite one transaction writes at a time
            await connection.execute(statements.LOCK_USER, {"of_tenant": tenant_id, "of_user": user_id})

    async def _refusal(self, tenant_id: str, get: Any, it: Mapping[str, str]) -> Exception:
        """Why it could not be deleted."""
        is_there = await self._first(tenant_id, get.where(statements.IS_OF_USER), it)
        return ConversationNotFoundError() if is_there is None else ConversationBusyError()

    async def _found(
        self, tenant_id: str, conversation_id: str, user_id: str | None, statement: Select[Any]
    ) -> Row[Any] | None:
        it = {"of_tenant": tenant_id, "of_conversation": conversation_id}
        if user_id is None:
            return await self._first(tenant_id, statement, it)
        return await self._first(tenant_id, statement.where(statements.IS_OF_USER), it | {"of_user": user_id})

    async def _first(self, tenant_id: str, statement: Executable, parameters: Mapping[str, Any]) -> Row[Any] | None:
        with translated(STORAGE_ERRORS):
            async with self._database.single(tenant_id) as connection:
                return (await connection.execute(statement, parameters)).first()

    async def _changed(self, tenant_id: str, statement: Executable, parameters: Mapping[str, Any]) -> Row[Any] | None:
        """The row that a statement wrote, in a transaction of its own."""
        with translated(STORAGE_ERRORS):
            async with self._database.transaction(tenant_id) as connection:
                return (await connection.execute(statement, parameters)).one_or_none()


async def _check_room(connection: AsyncConnection, tenant_id: str, user_id: str, *, at_most: int) -> None:
    counted = {"of_tenant": tenant_id, "of_user": user_id, "at_most": at_most}
    if (await connection.execute(statements.COUNT, counted)).scalar_one() >= at_most:
        raise ForbiddenError.of_full_list(at_most)


def _row(tenant_id: str, conversation: Conversation) -> dict[str, object]:
    row = {name: getattr(conversation, name) for name in conversation.__struct_fields__}
    return row | {"tenant_id": tenant_id, "context_tokens": 0, "revision": 0, "last_message": 0}


def _it(tenant_id: str, user_id: str, conversation_id: str) -> dict[str, Any]:
    return {"of_tenant": tenant_id, "of_user": user_id, "of_conversation": conversation_id}


def _conversation(row: Row[Any]) -> Conversation:
    return Conversation(**{name: row._mapping[name] for name in Conversation.__struct_fields__})


def _message(row: Row[Any]) -> Message:
    return Message(**{name: row._mapping[name] for name in Message.__struct_fields__})
