"""From when on the ledger is whole, for those who add it up: what is older may have been removed."""

from datetime import UTC, date, datetime, time
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Date, PrimaryKeyConstraint, Table, select

from textllm_adapters.sql import upserts
from textllm_adapters.sql.tables import ledger, metadata
from textllm_adapters.sql.types import Id, UtcDateTime

# name: of the table. at: when that UTC day began.
horizons: Final = Table(
    "horizons",
    metadata,
    Column("name", Id, nullable=False),
    Column("day", Date, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("name", name="pk_horizons"),
)

_LEDGERS: Final = horizons.c.name == ledger.name
# NULL: it always was whole.
FIRST_DAY: Final[ColumnElement[Any]] = select(horizons.c.day).where(_LEDGERS).scalar_subquery()
FIRST_MOMENT: Final[ColumnElement[Any]] = select(horizons.c.at).where(_LEDGERS).scalar_subquery()


def moved_to(day: date, dialect: str) -> upserts.Insert:
    """Says that the ledger is whole from that day on, and no more before it; not where it already says a later one."""
    row = upserts.insert(horizons, dialect)
    return row.values(name=ledger.name, day=day, at=start_of(day)).on_conflict_do_update(
        index_elements=horizons.primary_key,
        set_={"day": row.excluded.day, "at": row.excluded.at},
        where=horizons.c.day < row.excluded.day,
    )


def start_of(day: date) -> datetime:
    """When it begins."""
    return datetime.combine(day, time(), UTC)
