"""Conversations are found by what was said in them. The words of messages are kept once somebody looks for some."""

import sqlalchemy as sa
from alembic import op

from textllm_adapters.sql import types

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None
workers_go_on = True

_SHOWN = "current_setting('textllm.tenant', true)"  # as 0006 has it
_IS_SHOWN = f"CASE WHEN {_SHOWN} = '*' THEN true ELSE tenant_id = {_SHOWN} END"


def upgrade() -> None:
    op.create_table(
        "message_words",
        sa.Column("tenant_id", types.Id, nullable=False),
        sa.Column("user_id", types.Id, nullable=False),
        sa.Column("conversation_id", types.Id, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("words", types.Words, nullable=False),
        sa.Column("place", sa.BigInteger),
        sa.PrimaryKeyConstraint("tenant_id", "user_id", "conversation_id", "number", name="pk_message_words"),
        sa.ForeignKeyConstraint(
            ["tenant_id", "user_id", "conversation_id", "number"],
            ["messages.tenant_id", "messages.user_id", "messages.conversation_id", "messages.number"],
            name="fk_message_words_messages",
            ondelete="CASCADE",
        ),
    )
    if op.get_context().dialect.name == "postgresql":
        op.execute("CREATE INDEX ix_message_words_words ON message_words USING gin (words)")
        op.execute(f"CREATE POLICY tenant ON message_words USING ({_IS_SHOWN})")
        op.execute("ALTER TABLE message_words ENABLE ROW LEVEL SECURITY")
        op.execute("ALTER TABLE message_words FORCE ROW LEVEL SECURITY")
        return
    op.create_index("ix_message_words_place", "message_words", ["place"])
    op.execute("CREATE VIRTUAL TABLE message_index USING fts5 (words)")
    op.execute(
        "CREATE TRIGGER message_words_added AFTER INSERT ON message_words BEGIN"
        " INSERT INTO message_index (rowid, words) VALUES (new.place, new.words); END"
    )
    op.execute(
        "CREATE TRIGGER message_words_gone AFTER DELETE ON message_words BEGIN"
        " DELETE FROM message_index WHERE rowid = old.place; END"
    )


def downgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        op.execute("DROP TABLE message_index")
    op.drop_table("message_words")
