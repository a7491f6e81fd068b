"""Runs migrations on the connection that `textllm_adapters.sql.migrations` hands over, in its transaction."""

from alembic import context

from textllm_adapters.sql import partial_indexes  # noqa: F401 - which makes them
from textllm_adapters.sql.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
