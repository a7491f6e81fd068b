"""A hold keeps what its session was before it, so that a turn that is given back leaves no trace there."""

import sqlalchemy as sa
from alembic import op

from textllm_adapters.sql import types

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None
workers_go_on = True


def upgrade() -> None:
    op.add_column("holds", sa.Column("session_was_active", sa.Boolean, nullable=False, server_default=sa.true()))
    op.add_column("holds", sa.Column("session_last_activity", types.UtcDateTime))


def downgrade() -> None:
    with op.batch_alter_table("holds") as holds:
        for column in ("session_last_activity", "session_was_active"):
            holds.drop_column(column)
