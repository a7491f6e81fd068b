"""What a request brings before its last message: as that itself, it would else be lost with its process."""

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None
workers_go_on = True


def upgrade() -> None:
    op.add_column("holds", sa.Column("said_before", sa.Text, nullable=False, server_default="[]"))


def downgrade() -> None:
    op.drop_column("holds", "said_before")
