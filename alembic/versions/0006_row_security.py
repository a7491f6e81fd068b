"""Policies by which PostgreSQL shows a session the rows of its tenant alone. SQLite has none: nothing to do there."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None
workers_go_on = False

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
# As a CASE the condition is opaque to the planner, which would else count it and the statement's own `tenant_id = …` as
# two, expect few rows, and sort them all for a page. The setting is read for each row: a subquery, read once, costs the
# many statements on single rows more than it saves the few on many.
_SHOWN = "current_setting('textllm.tenant', true)"
_IS_SHOWN = f"CASE WHEN {_SHOWN} = '*' THEN true ELSE tenant_id = {_SHOWN} END"


def upgrade() -> None:
    if op.get_context().dialect.name != "postgresql":
        return
    for table in _TABLES:
        op.execute(f"CREATE POLICY tenant ON {table} USING ({_IS_SHOWN})")
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")  # for its owner, too


def downgrade() -> None:
    if op.get_context().dialect.name != "postgresql":
        return
    for table in _TABLES:
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
        op.execute(f"DROP POLICY tenant ON {table}")
