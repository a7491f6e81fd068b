"""A killed process does not take its turn's metadata with it."""

import sqlalchemy as sa
from alembic import op

from textllm_adapters.sql import types

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None
workers_go_on = True


def upgrade() -> None:
    op.add_column("holds", sa.Column("metadata", types.Labels))


def downgrade() -> None:
    with op.batch_alter_table("holds") as holds:
        holds.drop_column("metadata")
