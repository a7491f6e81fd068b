"""Conversations that began long ago are found at once, so that those which nobody goes on with can go."""

import sqlalchemy as sa
from alembic import op

from textllm_adapters.sql.indexes import add_index

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None
workers_go_on = True

_STAYS = sa.text("expires_at IS NULL")


def upgrade() -> None:
    add_index(
        "ix_conversations_created_at_id",
        "conversations",
        ["created_at", "id"],
        postgresql_where=_STAYS,
        sqlite_where=_STAYS,
    )


def downgrade() -> None:
    op.drop_index("ix_conversations_created_at_id", "conversations")
