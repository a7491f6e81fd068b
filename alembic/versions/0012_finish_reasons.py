"""Why a reply ended where it does, beside the reply itself."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None
workers_go_on = True


def upgrade() -> None:
    op.add_column("messages", sa.Column("finish_reason", sa.String(16)))


def downgrade() -> None:
    with op.batch_alter_table("messages") as messages:
        messages.drop_column("finish_reason")
