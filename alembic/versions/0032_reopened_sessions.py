"""Which sessions were ended, and are active again only because turns are running in them."""

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None
workers_go_on = True


def upgrade() -> None:
    op.add_column("sessions", sa.Column("is_reopened", sa.Boolean, nullable=False, server_default=sa.false()))


def downgrade() -> None:
    op.drop_column("sessions", "is_reopened")
