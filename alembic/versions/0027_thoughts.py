"""How much a model had thought when its exchange was last renewed: after a crash it is part of the estimate."""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0025"
branch_labels = None
depends_on = None
workers_go_on = True


def upgrade() -> None:
    op.add_column("holds", sa.Column("thought", sa.BigInteger, nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("holds", "thought")
