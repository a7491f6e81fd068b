"""Calls of functions that the last reply of a conversation asks for, whose results the next turn brings."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None
workers_go_on = True


def upgrade() -> None:
    op.add_column("conversations", sa.Column("open_calls", sa.Text))


def downgrade() -> None:
    op.drop_column("conversations", "open_calls")  # in place: a table made anew would take its messages with it
