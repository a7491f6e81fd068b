"""Which versions may use a database that a newer one has upgraded: those that know the revision `oldest`."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None
workers_go_on = True


def upgrade() -> None:
    op.add_column("alembic_version", sa.Column("oldest", sa.String(32), nullable=False, server_default=revision))


def downgrade() -> None:
    op.drop_column("alembic_version", "oldest")
