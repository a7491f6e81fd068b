"""Runs migrations on the connection that `textllm_adapters.sql.migrations` hands over.

In its transaction where it is in one, else each in a transaction of its own.
"""

from alembic import context

from textllm_adapters.sql import partial_indexes  # noqa: F401 - which makes them
from textllm_adapters.sql.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
