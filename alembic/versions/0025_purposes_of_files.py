"""What a file was uploaded for, in the words of OpenAI's API."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None
workers_go_on = True


def upgrade() -> None:
    op.add_column("files", sa.Column("purpose", sa.String(16), nullable=False, server_default="user_data"))


def downgrade() -> None:
    op.drop_column("files", "purpose")  # in place: a table made anew would lose what it is not told of
