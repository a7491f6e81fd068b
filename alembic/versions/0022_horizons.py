"""From when on a table is whole of which old rows are removed."""

import sqlalchemy as sa
from alembic import op

from textllm_adapters.sql import types

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None
workers_go_on = True


def upgrade() -> None:
    op.create_table(
        "horizons",
        sa.Column("name", types.Id, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("at", types.UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_horizons"),
    )


def downgrade() -> None:
    op.drop_table("horizons")
