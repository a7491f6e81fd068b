"""What a killed process must not take with it: the turn's message, and whether its provider may have been asked."""

import sqlalchemy as sa
from alembic import op

from textllm_adapters.sql import types
from textllm_core.records.ledger import Hold
from textllm_core.records.messages import Message
from textllm_core.rules.bookkeeping import Before

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None
workers_go_on = True

_SHOWN = "current_setting('textllm.tenant', true)"  # as 0006 has it
_IS_SHOWN = f"CASE WHEN {_SHOWN} = '*' THEN true ELSE tenant_id = {_SHOWN} END"


def upgrade() -> None:
    op.add_column("holds", sa.Column("message", types.Record(Message)))
    op.add_column("holds", sa.Column("is_asked", sa.Boolean, nullable=False, server_default=sa.true()))
    op.add_column("holds", sa.Column("transcript_id", types.PlainText))
    op.add_column("holds", sa.Column("reported_model", types.PlainText))
    op.add_column("holds", sa.Column("before", types.Record(Before)))
    op.create_table(
        "estimates",
        sa.Column("tenant_id", types.Id, nullable=False),
        sa.Column("user_id", types.Id, nullable=False),
        sa.Column("response_id", types.Id, nullable=False),
        sa.Column("hold", types.Record(Hold), nullable=False),
        sa.Column("next_at", types.UtcDateTime, nullable=False),
        sa.Column("until", types.UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "user_id", "response_id", name="pk_estimates"),
    )
    op.create_index("ix_estimates_next_at", "estimates", ["next_at"])
    if op.get_context().dialect.name == "postgresql":
        op.execute(f"CREATE POLICY tenant ON estimates USING ({_IS_SHOWN})")
        op.execute("ALTER TABLE estimates ENABLE ROW LEVEL SECURITY")
        op.execute("ALTER TABLE estimates FORCE ROW LEVEL SECURITY")


def downgrade() -> None:
    op.drop_table("estimates")
    with op.batch_alter_table("holds") as holds:
        for column in ("before", "reported_model", "transcript_id", "is_asked", "message"):
            holds.drop_column(column)
