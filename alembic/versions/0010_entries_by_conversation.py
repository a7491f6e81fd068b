"""The entries of a conversation are found at once: to count it once in each session, and to erase it."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_ledger_conversation_id_tenant_id", "ledger", ["conversation_id", "tenant_id"])


def downgrade() -> None:
    op.drop_index("ix_ledger_conversation_id_tenant_id", "ledger")
