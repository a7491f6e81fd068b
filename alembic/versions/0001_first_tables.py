"""Conversations, sessions, holds, the ledger, messages and rate buckets."""

import sqlalchemy as sa
from alembic import op

from textllm_adapters.sql import types

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None
workers_go_on = True


def upgrade() -> None:
    op.create_table(
        "conversations",
        sa.Column("tenant_id", types.Id, nullable=False),
        sa.Column("user_id", types.Id, nullable=False),
        sa.Column("id", types.Id, nullable=False),
        sa.Column("session_id", types.Id),
        sa.Column("created_at", types.UtcDateTime, nullable=False),
        sa.Column("updated_at", types.UtcDateTime, nullable=False),
        sa.Column("message_count", sa.Integer, nullable=False),
        sa.Column("total_tokens_input", sa.BigInteger, nullable=False),
        sa.Column("total_tokens_output", sa.BigInteger, nullable=False),
        sa.Column("total_cost", types.Money, nullable=False),
        sa.Column("title", types.PlainText),
        sa.Column("summary", types.PlainText),
        sa.Column("tags", types.Tags, nullable=False),
        sa.Column("metadata", types.Labels, nullable=False),
        sa.Column("is_deleted", sa.Boolean, nullable=False),
        sa.Column("deleted_at", types.UtcDateTime),
        sa.Column("last_image_url", types.PlainText),
        sa.Column("transcript_id", types.PlainText),
        sa.Column("context_tokens", sa.BigInteger, nullable=False),
        sa.Column("keeps_messages", sa.Boolean, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("last_message", sa.Integer, nullable=False),
        sa.Column("turn_id", types.Id),
        sa.Column("turn_until", types.UtcDateTime),
        sa.PrimaryKeyConstraint("tenant_id", "user_id", "id", name="pk_conversations"),
    )
    op.create_index("ix_conversations_tenant_id_id", "conversations", ["tenant_id", "id"])
    op.create_index(
        "ix_conversations_tenant_id_user_id_session_id", "conversations", ["tenant_id", "user_id", "session_id"]
    )
    op.create_table(
        "sessions",
        sa.Column("tenant_id", types.Id, nullable=False),
        sa.Column("user_id", types.Id, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("id", types.Id, nullable=False),
        sa.Column("created_at", types.UtcDateTime, nullable=False),
        sa.Column("last_activity", types.UtcDateTime, nullable=False),
        sa.Column("total_tokens", sa.BigInteger, nullable=False),
        sa.Column("total_cost", types.Money, nullable=False),
        sa.Column("reserved", types.Money, nullable=False),
        sa.Column("conversation_count", sa.Integer, nullable=False),
        sa.Column("is_active", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "user_id", "day", name="pk_sessions"),
    )
    op.create_index("ix_sessions_tenant_id_id", "sessions", ["tenant_id", "id"])
    op.create_table(
        "daily_usage",
        sa.Column("tenant_id", types.Id, nullable=False),
        sa.Column("user_id", types.Id, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("model", types.Name, nullable=False),
        sa.Column("messages", sa.Integer, nullable=False),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("cost", types.Money, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "user_id", "day", "model", name="pk_daily_usage"),
    )
    op.create_table(
        "holds",
        sa.Column("tenant_id", types.Id, nullable=False),
        sa.Column("user_id", types.Id, nullable=False),
        sa.Column("response_id", types.Id, nullable=False),
        sa.Column("conversation_id", types.Id, nullable=False),
        sa.Column("session_id", types.Id, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("model", types.PlainText, nullable=False),
        sa.Column("price", sa.Text, nullable=False),
        sa.Column("input_estimate", sa.BigInteger, nullable=False),
        sa.Column("amount", types.Money, nullable=False),
        sa.Column("made_conversation", sa.Boolean, nullable=False),
        sa.Column("provider_response_id", types.PlainText),
        sa.Column("idempotency_scope", types.PlainText),
        sa.Column("idempotency_key", types.PlainText),
        sa.Column("created_at", types.UtcDateTime, nullable=False),
        sa.Column("lease_until", types.UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "user_id", "response_id", name="pk_holds"),
        sa.ForeignKeyConstraint(
            ["tenant_id", "user_id", "conversation_id"],
            ["conversations.tenant_id", "conversations.user_id", "conversations.id"],
            name="fk_holds_conversations",
        ),
    )
    op.create_index("ix_holds_lease_until", "holds", ["lease_until"])
    op.create_table(
        "ledger",
        sa.Column("tenant_id", types.Id, nullable=False),
        sa.Column("user_id", types.Id, nullable=False),
        sa.Column("response_id", types.Id, nullable=False),
        sa.Column("conversation_id", types.Id, nullable=False),
        sa.Column("session_id", types.Id, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("model", types.PlainText, nullable=False),
        sa.Column("provider_response_id", types.PlainText),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("estimated", sa.Boolean, nullable=False),
        sa.Column("answered", sa.Boolean, nullable=False),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("cache_write_tokens", sa.BigInteger, nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger, nullable=False),
        sa.Column("held", types.Money, nullable=False),
        sa.Column("cost", types.Money, nullable=False),
        sa.Column("price_source", types.PlainText, nullable=False),
        sa.Column("rates", sa.Text),
        sa.Column("service_tier", types.PlainText),
        sa.Column("metadata", types.Labels),
        sa.Column("created_at", types.UtcDateTime, nullable=False),
        sa.Column("settled_at", types.UtcDateTime),
        sa.Column("time_to_first_token_ms", sa.Integer),
        sa.PrimaryKeyConstraint("tenant_id", "user_id", "response_id", name="pk_ledger"),
    )
    op.create_index("ix_ledger_tenant_id_response_id", "ledger", ["tenant_id", "response_id"])
    op.create_table(
        "messages",
        sa.Column("tenant_id", types.Id, nullable=False),
        sa.Column("user_id", types.Id, nullable=False),
        sa.Column("conversation_id", types.Id, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("id", types.Id, nullable=False),
        sa.Column("response_id", types.Id, nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("content", types.Content, nullable=False),
        sa.Column("created_at", types.UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "user_id", "conversation_id", "number", name="pk_messages"),
        sa.ForeignKeyConstraint(
            ["tenant_id", "user_id", "conversation_id"],
            ["conversations.tenant_id", "conversations.user_id", "conversations.id"],
            name="fk_messages_conversations",
            ondelete="CASCADE",
        ),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("tenant_id", types.Id, nullable=False),
        sa.Column("scope", types.PlainText, nullable=False),
        sa.Column("key", types.PlainText, nullable=False),
        sa.Column("fingerprint", types.PlainText, nullable=False),
        sa.Column("response_id", types.Id, nullable=False),
        sa.Column("created_at", types.UtcDateTime, nullable=False),
        sa.Column("remembered", types.PlainText),
        sa.Column("message_number", sa.Integer),
        sa.Column("spent", types.Money),
        sa.PrimaryKeyConstraint("tenant_id", "scope", "key", name="pk_idempotency_keys"),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])
    op.create_table(
        "rate_buckets",
        sa.Column("tenant_id", types.Id, nullable=False),
        sa.Column("user_id", types.Id, nullable=False),
        sa.Column("level", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("admitted", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "user_id", name="pk_rate_buckets"),
        prefixes=["UNLOGGED"] if op.get_context().dialect.name == "postgresql" else [],
    )


def downgrade() -> None:
    for table in (
        "rate_buckets",
        "idempotency_keys",
        "messages",
        "ledger",
        "holds",
        "daily_usage",
        "sessions",
        "conversations",
    ):
        op.drop_table(table)
