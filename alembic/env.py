"""Runs migrations on the connection that `textllm_adapters.sql.migrations` hands over.

In its transaction where it is in one, else each in a transaction of its own.
"""

from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo

from textllm_adapters.sql import file_tables, partial_indexes, response_table  # noqa: F401 - which make them
from textllm_adapters.sql.migrations import ALEMBICS
from textllm_adapters.sql.tables import metadata

SINCE = "0019"  # which has the column


def keep_old_workers_away(ctx: MigrationContext, step: MigrationInfo, **_more: Any) -> None:
    """After a step that workers of the version before do not survive: none of them may begin."""
    [revision] = [script for script in step.up_revisions if script is not None]
    if step.is_upgrade and revision.revision > SINCE and not revision.module.workers_go_on:
        assert ctx.connection is not None
        ctx.connection.execute(ALEMBICS.update().values(oldest=revision.revision))


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transaction_per_migration=True,
    on_version_apply=keep_old_workers_away,
)
with context.begin_transaction():
    context.run_migrations()
