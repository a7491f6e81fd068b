"""What running replies have said so far, in SQL."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import bindparam, delete, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncEngine

from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sql.errors import STORAGE_ERRORS
from textllm_adapters.sql.ledger_rows import spoken
from textllm_adapters.sql.tables import holds, reply_ends, reply_events
from textllm_adapters.sql.types import Id
from textllm_adapters.translation import translated
from textllm_core.records.journal import JournalEnd, JournalPage
from textllm_core.records.ledger import Hold, Replay

_TENANT: Final = bindparam("of_tenant", type_=Id())
_USER: Final = bindparam("of_user", type_=Id())
_RESPONSE: Final = bindparam("of_response", type_=Id())
_OF_HOLD: Final = (holds.c.tenant_id == _TENANT, holds.c.user_id == _USER, holds.c.response_id == _RESPONSE)

# Of whichever user, and of one.
_RUNNING: Final = select(holds.c.user_id).where(
    holds.c.tenant_id == _TENANT, holds.c.response_id == _RESPONSE, holds.c.is_resumable
)
_RUNNING_OF_USER: Final = _RUNNING.where(holds.c.user_id == _USER)
_END: Final = select(reply_ends).where(reply_ends.c.tenant_id == _TENANT, reply_ends.c.response_id == _RESPONSE)
_END_OF_USER: Final = _END.where(reply_ends.c.user_id == _USER)
_EVENTS: Final = (
    select(reply_events.c.first, reply_events.c.events)
    .where(
        reply_events.c.tenant_id == _TENANT,
        reply_events.c.user_id == _USER,
        reply_events.c.response_id == _RESPONSE,
        reply_events.c.last > bindparam("of_number"),
    )
    .order_by(reply_events.c.first)
)
_WATCH: Final = update(holds).where(*_OF_HOLD).values(watched_until=bindparam("new_moment"))
_IS_WATCHED: Final = select(holds.c.response_id).where(*_OF_HOLD, holds.c.watched_until > bindparam("of_moment"))
_CANCEL: Final = update(holds).where(*_OF_HOLD).values(cancel_asked=True)
_CANCELLED: Final = select(*holds.primary_key).where(holds.c.cancel_asked)
_OLD: Final = (
    select(*reply_ends.primary_key)
    .where(reply_ends.c.ended_at < bindparam("of_moment"))
    .limit(bindparam("at_most"))
    .with_for_update(skip_locked=True)
)
_FORGET_EVENTS: Final = delete(reply_events).where(
    tuple_(reply_events.c.tenant_id, reply_events.c.user_id, reply_events.c.response_id).in_(
        bindparam("of_replies", expanding=True)
    )
)
_FORGET_ENDS: Final = delete(reply_ends).where(
    tuple_(*reply_ends.primary_key).in_(bindparam("of_replies", expanding=True))
)


class SqlReplyJournal:
    """A `ReplyJournal` over SQL tables, but for `write`: that is a database's own way."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._database = Database(engine)

    async def read(self, tenant_id: str, user_id: str | None, response_id: str, *, after: int) -> JournalPage | None:
        reply = {"of_tenant": tenant_id, "of_response": response_id}
        is_running, has_ended = _RUNNING, _END
        if user_id is not None:
            reply["of_user"] = user_id
            is_running, has_ended = _RUNNING_OF_USER, _END_OF_USER
        with translated(STORAGE_ERRORS):
            async with self._database.single(tenant_id) as connection:
                # In this order: what runs no more has its end, and what has its end has all its events.
                running = (await connection.execute(is_running, reply)).scalar_one_or_none()
                end = (await connection.execute(has_ended, reply)).one_or_none()
                of_user = running if end is None else end.user_id
                if of_user is None:
                    return None
                rows = await connection.execute(_EVENTS, reply | {"of_user": of_user, "of_number": after})
                events = [(number, said) for row in rows for number, said in enumerate(row.events, row.first)]
        return JournalPage(
            user_id=of_user,
            events=tuple(spoken(said) for number, said in events if number > after),
            end=JournalEnd(end.number, Replay(end.remembered.encode(), end.message_number, end.spent)) if end else None,
        )

    async def watch(self, tenant_id: str, user_id: str, response_id: str, *, until: datetime) -> None:
        reply = {"of_tenant": tenant_id, "of_user": user_id, "of_response": response_id}
        with translated(STORAGE_ERRORS):
            async with self._database.single(tenant_id) as connection:
                await connection.execute(_WATCH, reply | {"new_moment": until})

    async def is_watched(self, hold: Hold, *, at: datetime) -> bool:
        reply = {"of_tenant": hold.tenant_id, "of_user": hold.user_id, "of_response": hold.response_id}
        with translated(STORAGE_ERRORS):
            async with self._database.single(hold.tenant_id) as connection:
                return (await connection.execute(_IS_WATCHED, reply | {"of_moment": at})).one_or_none() is not None

    async def ask_to_cancel(self, tenant_id: str, user_id: str, response_id: str) -> None:
        reply = {"of_tenant": tenant_id, "of_user": user_id, "of_response": response_id}
        with translated(STORAGE_ERRORS):
            async with self._database.single(tenant_id) as connection:
                await connection.execute(_CANCEL, reply)

    async def asked_to_cancel(self) -> Sequence[tuple[str, str, str]]:
        with translated(STORAGE_ERRORS):
            async with self._database.single(EVERYONE) as connection:
                return [(row[0], row[1], row[2]) for row in await connection.execute(_CANCELLED)]

    async def forget(self, *, before: datetime, limit: int) -> int:
        with translated(STORAGE_ERRORS):
            async with self._database.transaction(EVERYONE) as connection:
                found = await connection.execute(_OLD, {"of_moment": before, "at_most": limit})
                old = [tuple(row) for row in found]
                if old:
                    await connection.execute(_FORGET_EVENTS, {"of_replies": old})
                    await connection.execute(_FORGET_ENDS, {"of_replies": old})
                return len(old)
