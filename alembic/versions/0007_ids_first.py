"""Indexes begin with the id that they find, and not with the tenant.

On a database that was never analysed PostgreSQL takes an index whose first column alone is asked for to be as good as
the primary key; plans of that time, which are kept, then read all rows of a tenant for one of them.
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None
workers_go_on = False

# Each is of the id and the columns that used to stand before it.
_INDEXES = (
    ("conversations", ("tenant_id",), "id"),
    ("conversations", ("tenant_id", "user_id"), "session_id"),
    ("files", ("tenant_id",), "key"),
    ("idempotency_keys", ("tenant_id",), "response_id"),
    ("ledger", ("tenant_id",), "response_id"),
    ("reply_ends", ("tenant_id",), "response_id"),
    ("sessions", ("tenant_id",), "id"),
)


def upgrade() -> None:
    for table, others, identity in _INDEXES:
        _replace(table, (*others, identity), (identity, *others))


def downgrade() -> None:
    for table, others, identity in _INDEXES:
        _replace(table, (identity, *others), (*others, identity))


def _replace(table: str, old: tuple[str, ...], new: tuple[str, ...]) -> None:
    op.drop_index("_".join(("ix", table, *old)), table)
    op.create_index("_".join(("ix", table, *new)), table, new)
