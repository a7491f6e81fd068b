"""The tables of files, which belong to those in `tables`."""

from typing import Final

from sqlalchemy import BigInteger, Column, Index, PrimaryKeyConstraint, String, Table

from textllm_adapters.sql.tables import metadata
from textllm_adapters.sql.types import Id, PlainText, UtcDateTime

# status: announced, ready or hidden. size counts in file_totals for as long as the row is there.
files: Final = Table(
    "files",
    metadata,
    Column("tenant_id", Id, nullable=False),
    Column("user_id", Id, nullable=False),
    Column("key", Id, nullable=False),
    Column("folder", String(16), nullable=False),
    Column("name", PlainText, nullable=False),
    Column("content_type", PlainText, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("purpose", String(16), nullable=False, server_default="user_data"),
    PrimaryKeyConstraint("tenant_id", "user_id", "key", name="pk_files"),
    Index("ix_files_key_tenant_id", "key", "tenant_id"),
    Index("ix_files_tenant_id_folder_created_at", "tenant_id", "folder", "created_at"),
    Index("ix_files_tenant_id_user_id_folder_created_at", "tenant_id", "user_id", "folder", "created_at"),
    Index("ix_files_status_created_at", "status", "created_at"),
)

# What the files of a tenant have together, so that a quota can be kept by one statement.
file_totals: Final = Table(
    "file_totals",
    metadata,
    Column("tenant_id", Id, nullable=False),
    Column("size", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant_id", name="pk_file_totals"),
)
