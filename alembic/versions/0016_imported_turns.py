"""How many turns of a conversation came with an import, so that the audit does not look for them in the ledger."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None
workers_go_on = True


def upgrade() -> None:
    op.add_column("conversations", sa.Column("imported_turns", sa.Integer, nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("conversations", "imported_turns")  # in place: a table made anew would take its messages with it
