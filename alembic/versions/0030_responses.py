"""What was asked for in responses that can be asked for again, for as long as their conversation is there."""

import sqlalchemy as sa
from alembic import op

from textllm_adapters.sql import types
from textllm_core.records.stored_responses import ResponseFailure

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None
workers_go_on = True

_SHOWN = "current_setting('textllm.tenant', true)"  # as 0006 has it
_IS_SHOWN = f"CASE WHEN {_SHOWN} = '*' THEN true ELSE tenant_id = {_SHOWN} END"


def upgrade() -> None:
    op.create_table(
        "responses",
        sa.Column("tenant_id", types.Id, nullable=False),
        sa.Column("user_id", types.Id, nullable=False),
        sa.Column("id", types.Id, nullable=False),
        sa.Column("conversation_id", types.Id, nullable=False),
        sa.Column("message_ids", types.Record(tuple[str, ...]), nullable=False),
        sa.Column("asked", types.PlainText, nullable=False),
        sa.Column("created_at", types.UtcDateTime, nullable=False),
        sa.Column("is_background", sa.Boolean, nullable=False),
        sa.Column("is_of_conversation", sa.Boolean, nullable=False),
        sa.Column("failure", types.Record(ResponseFailure)),
        sa.PrimaryKeyConstraint("tenant_id", "user_id", "id", name="pk_responses"),
        sa.ForeignKeyConstraint(
            ["tenant_id", "user_id", "conversation_id"],
            ["conversations.tenant_id", "conversations.user_id", "conversations.id"],
            name="fk_responses_conversations",
            ondelete="CASCADE",
        ),
    )
    op.create_index("ix_responses_id_tenant_id", "responses", ["id", "tenant_id"])
    op.create_index("ix_responses_conversation_id_tenant_id", "responses", ["conversation_id", "tenant_id"])
    if op.get_context().dialect.name == "postgresql":
        op.execute(f"CREATE POLICY tenant ON responses USING ({_IS_SHOWN})")
        op.execute("ALTER TABLE responses ENABLE ROW LEVEL SECURITY")
        op.execute("ALTER TABLE responses FORCE ROW LEVEL SECURITY")


def downgrade() -> None:
    op.drop_table("responses")
