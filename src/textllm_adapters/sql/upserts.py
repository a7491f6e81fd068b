"""INSERT … ON CONFLICT, which both databases have, though SQLAlchemy has no common word for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from sqlalchemy import Table

if TYPE_CHECKING:  # whoever uses the one database waits for nothing of the other
    from sqlalchemy.dialects import postgresql, sqlite

    Insert: TypeAlias = postgresql.Insert | sqlite.Insert
else:
    from sqlalchemy import Insert  # of which both are kinds


def insert(table: Table, dialect: str) -> Insert:
    """An INSERT into `table` that knows `on_conflict_do_update`, for the dialect of this name."""
    if dialect == "sqlite":
        from sqlalchemy.dialects.sqlite import insert as into_sqlite

        return into_sqlite(table)
    from sqlalchemy.dialects.postgresql import insert as into_postgresql

    return into_postgresql(table)
