"""The indexes that have a part of a table. Migrations need them, and no statement does.

They stand apart from `tables`, since what names a database loads the whole of SQLAlchemy's module for it.
"""

from sqlalchemy import Index

from textllm_adapters.sql.tables import conversations, holds, ledger

Index(
    "ix_conversations_created_at_id",
    conversations.c.created_at,
    conversations.c.id,
    postgresql_where=conversations.c.expires_at.is_(None),
    sqlite_where=conversations.c.expires_at.is_(None),
)
Index(
    "ix_conversations_deleted_at",
    conversations.c.deleted_at,
    postgresql_where=conversations.c.deleted_at.is_not(None),
    sqlite_where=conversations.c.deleted_at.is_not(None),
)
Index(
    "ix_conversations_expires_at",
    conversations.c.expires_at,
    postgresql_where=conversations.c.expires_at.is_not(None),
    sqlite_where=conversations.c.expires_at.is_not(None),
)
Index(
    "ix_holds_cancel_asked",
    holds.c.tenant_id,
    postgresql_where=holds.c.cancel_asked,
    sqlite_where=holds.c.cancel_asked,
)
Index(
    "ix_ledger_payer_id_tenant_id",
    ledger.c.payer_id,
    ledger.c.tenant_id,
    postgresql_where=ledger.c.payer_id.is_not(None),
    sqlite_where=ledger.c.payer_id.is_not(None),
)
