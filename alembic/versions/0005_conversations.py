"""What the provider is still to forget, and the way from an exchange to its idempotency key."""

import sqlalchemy as sa
from alembic import op

from textllm_adapters.sql import types

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None
workers_go_on = True


def upgrade() -> None:
    op.create_table(
        "erasures",
        sa.Column("tenant_id", types.Id, nullable=False),
        sa.Column("user_id", types.Id, nullable=False),
        sa.Column("id", types.Id, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("provider_id", types.PlainText, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_at", types.UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "user_id", "id", name="pk_erasures"),
    )
    op.create_index("ix_erasures_next_at", "erasures", ["next_at"])
    op.create_index("ix_idempotency_keys_tenant_id_response_id", "idempotency_keys", ["tenant_id", "response_id"])


def downgrade() -> None:
    op.drop_index("ix_idempotency_keys_tenant_id_response_id", "idempotency_keys")
    op.drop_table("erasures")
