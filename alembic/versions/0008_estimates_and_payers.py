"""Which costs are estimates, in statistics and messages; and who is charged where no user was named."""

import sqlalchemy as sa
from alembic import op

from textllm_adapters.sql import types

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None
workers_go_on = False

_OF_DAY = """
    UPDATE daily_usage SET estimated_cost = coalesce((
        SELECT sum(ledger.cost) FROM ledger
        WHERE ledger.tenant_id = daily_usage.tenant_id AND ledger.user_id = daily_usage.user_id
            AND ledger.day = daily_usage.day AND substr(ledger.model, 1, 255) = daily_usage.model
            AND ledger.estimated AND ledger.status <> 'pending'
    ), 0)
    WHERE (tenant_id, user_id) IN (SELECT tenant_id, user_id FROM ledger WHERE estimated)
"""
_OF_REPLIES = """
    UPDATE messages SET estimated = (
        SELECT ledger.estimated FROM ledger
        WHERE ledger.tenant_id = messages.tenant_id AND ledger.user_id = messages.user_id
            AND ledger.response_id = messages.response_id
    )
    WHERE role = 'assistant'
"""


def upgrade() -> None:
    op.add_column("daily_usage", sa.Column("estimated_cost", types.Money, nullable=False, server_default="0"))
    op.execute(_OF_DAY)
    op.add_column("messages", sa.Column("estimated", sa.Boolean))
    op.execute(_OF_REPLIES)
    op.add_column("holds", sa.Column("payer_id", types.Id))
    op.add_column("ledger", sa.Column("payer_id", types.Id))
    op.create_index(
        "ix_ledger_payer_id_tenant_id",
        "ledger",
        ["payer_id", "tenant_id"],
        postgresql_where=sa.text("payer_id IS NOT NULL"),
        sqlite_where=sa.text("payer_id IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_ledger_payer_id_tenant_id", "ledger")
    for table in ("ledger", "holds"):
        with op.batch_alter_table(table) as charged:
            charged.drop_column("payer_id")
    with op.batch_alter_table("messages") as messages:
        messages.drop_column("estimated")
    with op.batch_alter_table("daily_usage") as daily_usage:
        daily_usage.drop_column("estimated_cost")
