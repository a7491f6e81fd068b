"""Entries and sessions of old days are found at once, to be removed."""

from alembic import op

from textllm_adapters.sql.indexes import add_index

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None
workers_go_on = True


def upgrade() -> None:
    add_index("ix_sessions_created_at", "sessions", ["created_at"])
    # On PostgreSQL it need only tell whether there are new ones among many old ones, which takes some pages.
    add_index("ix_ledger_day", "ledger", ["day"], postgresql_using="brin")


def downgrade() -> None:
    op.drop_index("ix_ledger_day", "ledger")
    op.drop_index("ix_sessions_created_at", "sessions")
