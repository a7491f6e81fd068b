"""The entries of a conversation are found at once: to count it once in each session, and to erase it."""

from alembic import op

from textllm_adapters.sql.indexes import add_index

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None
workers_go_on = True


def upgrade() -> None:
    add_index("ix_ledger_conversation_id_tenant_id", "ledger", ["conversation_id", "tenant_id"])


def downgrade() -> None:
    op.drop_index("ix_ledger_conversation_id_tenant_id", "ledger")
