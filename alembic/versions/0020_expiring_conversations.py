"""When a conversation goes by itself that is in no list: one made for a single turn, or for a response alone."""

import sqlalchemy as sa
from alembic import op

from textllm_adapters.sql import types

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None
workers_go_on = True


def upgrade() -> None:
    op.add_column("conversations", sa.Column("expires_at", types.UtcDateTime))


def downgrade() -> None:
    op.drop_column("conversations", "expires_at")  # in place: a table made anew would take its messages with it
