"""When jobs are due that one of all processes does; and revoked keys are found by when they were revoked."""

import sqlalchemy as sa
from alembic import op

from textllm_adapters.sql import types

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None
workers_go_on = True


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("name", types.Id, nullable=False),
        sa.Column("due_at", types.UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_jobs"),
    )
    op.create_index("ix_api_keys_revoked_at", "api_keys", ["revoked_at"])


def downgrade() -> None:
    op.drop_index("ix_api_keys_revoked_at", "api_keys")
    op.drop_table("jobs")
