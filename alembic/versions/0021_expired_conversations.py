"""What has expired is found without a look at all that has not."""

import sqlalchemy as sa
from alembic import op

from textllm_adapters.sql.indexes import add_index

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None
workers_go_on = True

_EXPIRING = sa.text("expires_at IS NOT NULL")


def upgrade() -> None:
    add_index(
        "ix_conversations_expires_at",
        "conversations",
        ["expires_at"],
        postgresql_where=_EXPIRING,
        sqlite_where=_EXPIRING,
    )


def downgrade() -> None:
    op.drop_index("ix_conversations_expires_at", "conversations")
