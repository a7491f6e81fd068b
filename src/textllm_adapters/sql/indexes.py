"""Indexes of large tables, made while workers go on writing to them."""

from collections.abc import Sequence
from typing import Any

from alembic import op


def add_index(name: str, table: str, columns: Sequence[str], **options: Any) -> None:
    """Make an index, in a migration that does nothing else.

    On PostgreSQL it is made beside the traffic, which no transaction can have around it. A try that was cut short
    leaves half an index behind, and the next one begins by removing that.

    Args:
        options: as `op.create_index` has them.
    """
    if op.get_context().dialect.name == "sqlite":
        op.create_index(name, table, columns, **options)
        return
    with op.get_context().autocommit_block():
        op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)
        op.create_index(name, table, columns, postgresql_concurrently=True, **options)
