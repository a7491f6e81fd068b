"""The models that a key is limited to. Workers of the version before let such a key use all, until they are gone."""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0027"
branch_labels = None
depends_on = None
workers_go_on = True


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("models", sa.Text))


def downgrade() -> None:
    op.drop_column("api_keys", "models")
