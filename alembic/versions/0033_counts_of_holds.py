"""What a provider had stated of a reply's usage when its exchange was last renewed: after a crash it is charged."""

import sqlalchemy as sa
from alembic import op

from textllm_adapters.sql import types
from textllm_core.usage import Usage

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None
workers_go_on = True


def upgrade() -> None:
    op.add_column("holds", sa.Column("counted", types.Record(Usage)))


def downgrade() -> None:
    op.drop_column("holds", "counted")
