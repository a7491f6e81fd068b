"""Files, and how many bytes each tenant has in them."""

import sqlalchemy as sa
from alembic import op

from textllm_adapters.sql import types

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None
workers_go_on = True


def upgrade() -> None:
    op.create_table(
        "files",
        sa.Column("tenant_id", types.Id, nullable=False),
        sa.Column("user_id", types.Id, nullable=False),
        sa.Column("key", types.Id, nullable=False),
        sa.Column("folder", sa.String(16), nullable=False),
        sa.Column("name", types.PlainText, nullable=False),
        sa.Column("content_type", types.PlainText, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created_at", types.UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "user_id", "key", name="pk_files"),
    )
    op.create_index("ix_files_tenant_id_key", "files", ["tenant_id", "key"])
    op.create_index("ix_files_tenant_id_folder_created_at", "files", ["tenant_id", "folder", "created_at"])
    op.create_index(
        "ix_files_tenant_id_user_id_folder_created_at", "files", ["tenant_id", "user_id", "folder", "created_at"]
    )
    op.create_index("ix_files_status_created_at", "files", ["status", "created_at"])
    op.create_table(
        "file_totals",
        sa.Column("tenant_id", types.Id, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", name="pk_file_totals"),
    )


def downgrade() -> None:
    op.drop_table("file_totals")
    op.drop_table("files")
