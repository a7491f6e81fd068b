"""What the rules of the books decide about, as rows: read and locked, and written where it has changed."""

from typing import Final, Generic, TypeVar

import msgspec
from sqlalchemy import Table, Update, bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from textllm_adapters.sql import tables
from textllm_core.records.accounts import ConversationAccount, SessionAccount
from textllm_core.records.usage_reports import DailyUsage

R = TypeVar("R", bound=msgspec.Struct)


class Accounts(Generic[R]):
    """The rows of a table, as records whose fields are some of its columns.

    A key has the columns of the primary key, in their order.
    """

    def __init__(self, table: Table, record: type[R]) -> None:
        self._table, self._record, self._fields = table, record, record.__struct_fields__
        self._key = [column.name for column in table.primary_key]
        self._of_key = [column == bindparam(f"of_{column.name}") for column in table.primary_key]
        self._select = select(*(table.c[name] for name in self._fields)).where(*self._of_key).with_for_update()
        self._insert, self._delete = insert(table), delete(table).where(*self._of_key)
        self._updates: dict[tuple[str, ...], Update] = {}

    async def locked(self, connection: AsyncConnection, *key: object) -> R | None:
        """The row with this key, which nobody else can change until the transaction ends."""
        row = (await connection.execute(self._select, self._named(key))).one_or_none()
        return None if row is None else self._record(**row._mapping)

    async def add(self, connection: AsyncConnection, row: dict[str, object]) -> None:
        """Insert a row; IntegrityError where another call has just done so."""
        await connection.execute(self._insert, row)

    async def change(self, connection: AsyncConnection, *key: object, old: R, new: R) -> None:
        """Write what differs between the record that was read and what it is to be."""
        changed = tuple(name for name in self._fields if getattr(old, name) != getattr(new, name))
        if changed:
            values = {f"new_{name}": getattr(new, name) for name in changed}
            await connection.execute(self._update_of(changed), self._named(key) | values)

    async def remove(self, connection: AsyncConnection, *key: object) -> None:
        """Delete the row with this key."""
        await connection.execute(self._delete, self._named(key))

    def _named(self, key: tuple[object, ...]) -> dict[str, object]:
        return {f"of_{name}": value for name, value in zip(self._key, key, strict=True)}

    def _update_of(self, changed: tuple[str, ...]) -> Update:
        if changed not in self._updates:
            values = {name: bindparam(f"new_{name}", type_=self._table.c[name].type) for name in changed}
            self._updates[changed] = update(self._table).where(*self._of_key).values(values)
        return self._updates[changed]


CONVERSATIONS: Final = Accounts(tables.conversations, ConversationAccount)
SESSIONS: Final = Accounts(tables.sessions, SessionAccount)
DAYS: Final = Accounts(tables.daily_usage, DailyUsage)
