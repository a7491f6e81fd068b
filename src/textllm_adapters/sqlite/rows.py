"""Rows of one table by their primary keys: the few statements that the writer needs, with the table's own types."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec
from sqlalchemy import Table
from sqlalchemy.dialects.sqlite import aiosqlite

R = TypeVar("R", bound=msgspec.Struct)


def to_json(value: object) -> str:
    """JSON as it is kept in columns of that type."""
    return msgspec.json.encode(value).decode()


from_json: Final = msgspec.json.decode
_DIALECT: Final = aiosqlite.dialect(json_serializer=to_json, json_deserializer=from_json)


class Rows:
    """The rows of a table, to be written; a key has the columns of the primary key, in their order."""

    def __init__(self, table: Table) -> None:
        self._table = table.name
        self._types = {column.name: column.type.dialect_impl(_DIALECT) for column in table.c}
        self._bind = {name: kind.bind_processor(_DIALECT) or _as_it_is for name, kind in self._types.items()}
        self._key = [column.name for column in table.primary_key]
        self._of_key = " AND ".join(f'"{name}" = ?' for name in self._key)
        self._texts: dict[tuple[str, ...], str] = {}

    def add(self, connection: sqlite3.Connection, *rows: Mapping[str, object]) -> None:
        """Insert rows of the same columns; what they leave out has its default."""
        if rows:
            connection.executemany(self._text("add", rows[0], self._insert), [self._bound(row) for row in rows])

    def put(self, connection: sqlite3.Connection, row: Mapping[str, object]) -> None:
        """Insert the row, or put it in the place of the one with its key."""
        connection.execute(self._text("put", row, self._upsert), self._bound(row))

    def set(self, connection: sqlite3.Connection, *key: object, **values: object) -> bool:
        """Change these columns of the row with this key; whether there is one."""
        parameters = [*self._bound(values), *self._bound_key(key)]
        return connection.execute(self._text("set", values, self._update), parameters).rowcount > 0

    def remove(self, connection: sqlite3.Connection, *key: object) -> bool:
        """Delete the row with this key, or the rows whose keys begin so; whether there was one."""
        of_key = " AND ".join(f'"{name}" = ?' for name in self._key[: len(key)])
        text = f"DELETE FROM {self._table} WHERE {of_key}"  # noqa: S608 - names of tables and columns, as below
        return connection.execute(text, self._bound_key(key)).rowcount > 0

    def _text(self, verb: str, values: Mapping[str, object], made: Callable[[Sequence[str]], str]) -> str:
        of = (verb, *values)
        if of not in self._texts:
            self._texts[of] = made(tuple(values))
        return self._texts[of]

    def _insert(self, names: Sequence[str]) -> str:
        places = ", ".join("?" * len(names))
        return f"INSERT INTO {self._table} ({_listed(names)}) VALUES ({places})"  # noqa: S608

    def _upsert(self, names: Sequence[str]) -> str:
        new = ", ".join(f'"{name}" = excluded."{name}"' for name in names if name not in self._key)
        return f"{self._insert(names)} ON CONFLICT ({_listed(self._key)}) DO UPDATE SET {new}"

    def _update(self, names: Sequence[str]) -> str:
        new = ", ".join(f'"{name}" = ?' for name in names)
        return f"UPDATE {self._table} SET {new} WHERE {self._of_key}"  # noqa: S608

    def _bound(self, values: Mapping[str, object]) -> list[Any]:
        return [self._bind[name](value) for name, value in values.items()]

    def _bound_key(self, key: Sequence[object]) -> list[Any]:
        return [self._bind[name](value) for name, value in zip(self._key, key, strict=False)]


class Records(Rows, Generic[R]):
    """The rows of a table, read as records whose fields are some of its columns."""

    def __init__(self, table: Table, record: type[R]) -> None:
        super().__init__(table)
        self._record, self._fields = record, record.__struct_fields__
        self._read = [self._types[name].result_processor(_DIALECT, None) or _as_it_is for name in self._fields]
        self._select = f"SELECT {_listed(self._fields)} FROM {self._table} WHERE {self._of_key}"  # noqa: S608

    def get(self, connection: sqlite3.Connection, *key: object) -> R | None:
        """The row with this key."""
        row = connection.execute(self._select, self._bound_key(key)).fetchone()
        if row is None:
            return None
        return self._record(
            **{name: read(value) for name, read, value in zip(self._fields, self._read, row, strict=True)}
        )

    def change(self, connection: sqlite3.Connection, *key: object, old: R, new: R) -> None:
        """Write what differs between the record that was read and what it is to be."""
        values = {name: value for name in self._fields if (value := getattr(new, name)) != getattr(old, name)}
        if values:
            self.set(connection, *key, **values)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _as_it_is(value: Any) -> Any:
    return value
