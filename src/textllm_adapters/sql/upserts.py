"""INSERT … ON CONFLICT, which both databases have, though SQLAlchemy has no common word for it."""

from typing import TypeAlias

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite

Insert: TypeAlias = postgresql.Insert | sqlite.Insert


def insert(table: Table, dialect: str) -> Insert:
    """An INSERT into `table` that knows `on_conflict_do_update`, for the dialect of this name."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)
