"""Journals of resumable replies, and what other processes ask of a running one."""

import sqlalchemy as sa
from alembic import op

from textllm_adapters.sql import types

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None
workers_go_on = True


def upgrade() -> None:
    op.add_column("holds", sa.Column("is_resumable", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("holds", sa.Column("cancel_asked", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("holds", sa.Column("watched_until", types.UtcDateTime))
    op.create_index(
        "ix_holds_cancel_asked",
        "holds",
        ["tenant_id"],
        postgresql_where=sa.text("cancel_asked"),
        sqlite_where=sa.text("cancel_asked"),
    )
    op.create_table(
        "reply_events",
        sa.Column("tenant_id", types.Id, nullable=False),
        sa.Column("user_id", types.Id, nullable=False),
        sa.Column("response_id", types.Id, nullable=False),
        sa.Column("first", sa.Integer, nullable=False),
        sa.Column("last", sa.Integer, nullable=False),
        sa.Column("events", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "user_id", "response_id", "first", name="pk_reply_events"),
    )
    op.create_table(
        "reply_ends",
        sa.Column("tenant_id", types.Id, nullable=False),
        sa.Column("user_id", types.Id, nullable=False),
        sa.Column("response_id", types.Id, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("remembered", types.PlainText, nullable=False),
        sa.Column("message_number", sa.Integer, nullable=False),
        sa.Column("spent", types.Money, nullable=False),
        sa.Column("ended_at", types.UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "user_id", "response_id", name="pk_reply_ends"),
    )
    op.create_index("ix_reply_ends_tenant_id_response_id", "reply_ends", ["tenant_id", "response_id"])
    op.create_index("ix_reply_ends_ended_at", "reply_ends", ["ended_at"])


def downgrade() -> None:
    op.drop_table("reply_ends")
    op.drop_table("reply_events")
    op.drop_index("ix_holds_cancel_asked", "holds")
    with op.batch_alter_table("holds") as holds:
        holds.drop_column("watched_until")
        holds.drop_column("cancel_asked")
        holds.drop_column("is_resumable")
