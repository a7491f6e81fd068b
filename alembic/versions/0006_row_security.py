"""Policies by which PostgreSQL shows a session the rows of its tenant alone. SQLite has none: nothing to do there."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_TABLES = (
    "api_keys",
    "conversations",
    "daily_usage",
    "erasures",
    "file_totals",
    "files",
    "holds",
    "idempotency_keys",
    "ledger",
    "messages",
    "rate_buckets",
    "reply_ends",
    "reply_events",
    "sessions",
)
# As subqueries, which are read once a statement rather than once a row.
_SHOWN = "(SELECT current_setting('textllm.tenant', true))"


def upgrade() -> None:
    if op.get_context().dialect.name != "postgresql":
        return
    for table in _TABLES:
        op.execute(f"CREATE POLICY tenant ON {table} USING (tenant_id = {_SHOWN} OR {_SHOWN} = '*')")
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")  # for its owner, too


def downgrade() -> None:
    if op.get_context().dialect.name != "postgresql":
        return
    for table in _TABLES:
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
        op.execute(f"DROP POLICY tenant ON {table}")
