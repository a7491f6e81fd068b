"""The table of responses, which belongs to those in `tables`."""

from typing import Final

from sqlalchemy import Boolean, Column, ForeignKeyConstraint, Index, PrimaryKeyConstraint, Table

from textllm_adapters.sql.tables import metadata
from textllm_adapters.sql.types import Id, PlainText, Record, UtcDateTime
from textllm_core.records.stored_responses import ResponseFailure

# Responses that can be asked for again. asked: what is told of the request. failure: why it failed.
responses: Final = Table(
    "responses",
    metadata,
    Column("tenant_id", Id, nullable=False),
    Column("user_id", Id, nullable=False),
    Column("id", Id, nullable=False),
    Column("conversation_id", Id, nullable=False),
    Column("message_ids", Record(tuple[str, ...]), nullable=False),
    Column("asked", PlainText, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("is_background", Boolean, nullable=False),
    Column("is_of_conversation", Boolean, nullable=False),
    Column("failure", Record(ResponseFailure)),
    PrimaryKeyConstraint("tenant_id", "user_id", "id", name="pk_responses"),
    ForeignKeyConstraint(
        ["tenant_id", "user_id", "conversation_id"],
        ["conversations.tenant_id", "conversations.user_id", "conversations.id"],
        name="fk_responses_conversations",
        ondelete="CASCADE",
    ),
    Index("ix_responses_id_tenant_id", "id", "tenant_id"),
    Index("ix_responses_conversation_id_tenant_id", "conversation_id", "tenant_id"),
)
