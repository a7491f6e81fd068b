"""API keys."""

import sqlalchemy as sa
from alembic import op

from textllm_adapters.sql import types

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None
workers_go_on = True


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("tenant_id", types.Id, nullable=False),
        sa.Column("id", types.Id, nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("user_id", types.Id),
        sa.Column("name", types.PlainText),
        sa.Column("hint", sa.String(16), nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("created_at", types.UtcDateTime, nullable=False),
        sa.Column("revoked_at", types.UtcDateTime),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_api_keys"),
    )
    op.create_index("ix_api_keys_digest", "api_keys", ["digest"], unique=True)
    op.create_index("ix_api_keys_tenant_id_created_at_id", "api_keys", ["tenant_id", "created_at", "id"])


def downgrade() -> None:
    op.drop_table("api_keys")
