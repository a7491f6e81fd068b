"""What was deleted long ago is found without a look at all that was not."""

import sqlalchemy as sa
from alembic import op

from textllm_adapters.sql.indexes import add_index

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None
workers_go_on = True

_HIDDEN = sa.text("deleted_at IS NOT NULL")


def upgrade() -> None:
    add_index(
        "ix_conversations_deleted_at",
        "conversations",
        ["deleted_at"],
        postgresql_where=_HIDDEN,
        sqlite_where=_HIDDEN,
    )


def downgrade() -> None:
    op.drop_index("ix_conversations_deleted_at", "conversations")
