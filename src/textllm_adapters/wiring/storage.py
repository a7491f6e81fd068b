"""Where records and files are kept."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, TypeGuard

from textllm_adapters.clock import SystemClock
from textllm_adapters.settings import Settings
from textllm_core.errors import ConfigurationError, StorageUnavailableError

if TYPE_CHECKING:  # an adapter is imported once it is chosen, so that no one pays for the others
    from sqlalchemy.ext.asyncio import AsyncEngine

    from textllm_adapters.postgres.engine import PostgresEngine
    from textllm_adapters.settings import Secret
    from textllm_adapters.sqlite.engine import SqliteEngine
    from textllm_core.ports.api_key_repository import ApiKeyRepository
    from textllm_core.ports.blob_store import BlobStore
    from textllm_core.ports.clock import Clock
    from textllm_core.ports.conversation_repository import ConversationRepository
    from textllm_core.ports.erasures import Erasures
    from textllm_core.ports.health_probe import HealthProbe
    from textllm_core.ports.ledger import Ledger
    from textllm_core.ports.ledger_upkeep import LedgerUpkeep
    from textllm_core.ports.rate_limiter import RateLimiter
    from textllm_core.ports.reply_journal import ReplyJournal
    from textllm_core.ports.stored_responses import StoredResponses
    from textllm_core.ports.turnstile import Turnstile
    from textllm_core.records.schema import SchemaStep


_RETRY_S: Final = 0.5  # a start is late by no more than that once the database is there
_logger: Final = logging.getLogger("textllm")
_STORAGE_PREFIX: Final = "LLM/"  # what the keys of all files begin with


async def open_database(stack: AsyncExitStack, settings: Settings, *, patience_s: float) -> AsyncEngine:
    """The database of the settings, with the tables of this version, until the stack is closed.

    Args:
        patience_s: how long to wait for one that does not answer yet.
    Raises:
        ConfigurationError: its tables are of another version.
        StorageUnavailableError: it does not answer.
    """
    from textllm_adapters.sql import migrations

    engine = engine_of(settings)
    stack.push_async_callback(close_database, engine)
    if engine.dialect.name == "sqlite":
        await migrations.upgrade(engine)
        return engine
    deadline = asyncio.get_running_loop().time() + patience_s
    while True:
        try:
            is_up_to_date = await migrations.is_up_to_date(engine)
            break
        except StorageUnavailableError:
            if asyncio.get_running_loop().time() >= deadline:
                raise
            await asyncio.sleep(_RETRY_S)
    if not is_up_to_date:
        revision = await migrations.current_revision(engine)
        raise ConfigurationError(
            f"The database is at revision {revision or 'none'}, but this version needs {migrations.head_revision()}; "
            "run `textllm db upgrade`."
        )
    from textllm_adapters.postgres.poolers import are_statements_handed_on
    from textllm_adapters.postgres.row_security import is_row_security_active

    if await are_statements_handed_on(engine):
        _logger.warning(
            "the pooler between this service and PostgreSQL keeps no prepared statements: unless it keeps sessions, "
            "turns will fail; set max_prepared_statements = 200 in PgBouncer, of version 1.21 or newer"
        )
    if not await is_row_security_active(engine):
        _logger.warning(
            "row-level security does not bind the role in DATABASE_URL: superusers and roles with BYPASSRLS pass it "
            "by, and on Citus it is off. Only the service's own statements keep tenants apart; unless this is Citus, "
            "connect as an ordinary role that owns the tables"
        )
    return engine


async def close_database(engine: PostgresEngine | SqliteEngine) -> None:
    """For good: it connects to nothing any more."""
    await engine.dispose()
    engine.opening.is_over = True


def engine_of(settings: Settings, *, command_timeout_s: float | None = 4) -> PostgresEngine | SqliteEngine:
    """An engine that connects when it is used.

    Raises:
        ConfigurationError: what it needs is not installed.
    """
    if settings.database.startswith("postgresql"):
        try:
            from textllm_adapters.postgres.engine import open_engine as open_postgres
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                "DATABASE_URL names PostgreSQL, which needs the extra `postgres` (in the checkout: "
                "uv pip install -c constraints.txt -e '.[postgres]', or uv run --extra postgres textllm …)."
            ) from error
        lifetime_s = settings.database_connection_lifetime_s
        return open_postgres(settings.database, command_timeout_s=command_timeout_s, lifetime_s=lifetime_s)
    from textllm_adapters.sqlite.engine import open_engine as open_sqlite

    return open_sqlite(settings.database)


def _is_postgres(engine: AsyncEngine) -> TypeGuard[PostgresEngine]:
    return engine.dialect.name == "postgresql"


async def open_clock(stack: AsyncExitStack, engine: AsyncEngine) -> Clock:
    """The time that all processes on this database share, until the stack is closed.

    Raises:
        StorageUnavailableError: the database does not answer.
    """
    if not _is_postgres(engine):
        return SystemClock()  # of the one machine
    from textllm_adapters.postgres.clock import PostgresClock

    clock = await PostgresClock.of(engine)
    await stack.enter_async_context(in_background(clock.kept))
    return clock


@asynccontextmanager
async def in_background(
    job: Callable[[], Coroutine[object, object, object]], *, every_s: float | None = None
) -> AsyncIterator[None]:
    """Do it while the block does its work: once, or on an interval."""

    async def repeat() -> None:
        while True:
            with suppress(StorageUnavailableError):  # the next run does it
                await job()
            if every_s is None:
                return
            await asyncio.sleep(every_s)

    working = asyncio.create_task(repeat())
    try:
        yield
    finally:
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working


def ledger_of(engine: AsyncEngine) -> Ledger:
    """The books in this database."""
    if _is_postgres(engine):
        from textllm_adapters.postgres.ledger import PostgresLedger

        return PostgresLedger(engine)
    from textllm_adapters.sqlite.ledger import SqliteLedger

    return SqliteLedger(_sqlite(engine))


def upkeep_of(engine: AsyncEngine) -> LedgerUpkeep:
    """What keeps the books in this database from growing for ever."""
    if _is_postgres(engine):
        from textllm_adapters.postgres.ledger_upkeep import PostgresLedgerUpkeep

        return PostgresLedgerUpkeep(engine)
    from textllm_adapters.sql.ledger_upkeep import SqlLedgerUpkeep

    return SqlLedgerUpkeep(engine)


def rate_limiter_of(engine: AsyncEngine) -> RateLimiter:
    """The rate limits that all processes on this database share."""
    if _is_postgres(engine):
        from textllm_adapters.postgres.rate_limiter import PostgresRateLimiter

        return PostgresRateLimiter(engine)
    from textllm_adapters.sqlite.rate_limiter import SqliteRateLimiter

    return SqliteRateLimiter(_sqlite(engine))


def turnstile_of(engine: AsyncEngine) -> Turnstile:
    """The rate limits and the books in this database, asked at once."""
    if _is_postgres(engine):
        from textllm_adapters.postgres.ledger import PostgresLedger

        return PostgresLedger(engine)
    from textllm_adapters.sqlite.ledger import SqliteLedger

    return SqliteLedger(_sqlite(engine))


def conversations_of(engine: AsyncEngine) -> ConversationRepository:
    """The conversations in this database."""
    if _is_postgres(engine):
        from textllm_adapters.postgres.conversation_repository import PostgresConversationRepository

        return PostgresConversationRepository(engine)
    from textllm_adapters.sql.conversation_repository import SqlConversationRepository

    return SqlConversationRepository(engine)


def api_keys_of(engine: AsyncEngine) -> ApiKeyRepository:
    """The API keys in this database."""
    if _is_postgres(engine):
        from textllm_adapters.postgres.api_key_repository import PostgresApiKeyRepository

        return PostgresApiKeyRepository(engine)
    from textllm_adapters.sql.api_key_repository import SqlApiKeyRepository

    return SqlApiKeyRepository(engine)


def journal_of(engine: AsyncEngine) -> ReplyJournal:
    """What running replies have said, for all processes on this database."""
    if _is_postgres(engine):
        from textllm_adapters.postgres.reply_journal import PostgresReplyJournal

        return PostgresReplyJournal(engine)
    from textllm_adapters.sqlite.reply_journal import SqliteReplyJournal

    return SqliteReplyJournal(_sqlite(engine))


def responses_of(engine: AsyncEngine) -> StoredResponses:
    """The responses in this database that can be asked for again."""
    if _is_postgres(engine):
        from textllm_adapters.postgres.stored_responses import PostgresStoredResponses

        return PostgresStoredResponses(engine)
    from textllm_adapters.sql.stored_responses import SqlStoredResponses

    return SqlStoredResponses(engine)


def erasures_of(engine: AsyncEngine) -> Erasures:
    """What is still to be erased at the provider, by any process on this database."""
    if _is_postgres(engine):
        from textllm_adapters.postgres.erasures import PostgresErasures

        return PostgresErasures(engine)
    from textllm_adapters.sql.erasures import SqlErasures

    return SqlErasures(engine)


def _sqlite(engine: AsyncEngine) -> SqliteEngine:
    from textllm_adapters.sqlite.engine import SqliteEngine

    assert isinstance(engine, SqliteEngine)  # there are two kinds of databases
    return engine


async def upgrade_database(settings: Settings) -> str:
    """Bring the database to the tables of this version; returns the revision now in force.

    Raises:
        ConfigurationError, StorageUnavailableError
    """
    from textllm_adapters.sql import migrations

    engine = engine_of(settings, command_timeout_s=None)
    try:
        await migrations.upgrade(engine)
        return await migrations.current_revision(engine) or ""  # never: there are tables now
    finally:
        await engine.dispose()


async def database_revision(settings: Settings) -> tuple[str | None, str]:
    """The revision the database is at, None for an empty one, and the one this version needs.

    Raises:
        ConfigurationError, StorageUnavailableError
    """
    from textllm_adapters.sql import migrations

    engine = engine_of(settings)
    try:
        return await migrations.current_revision(engine), migrations.head_revision()
    finally:
        await engine.dispose()


async def database_steps(settings: Settings) -> Sequence[SchemaStep]:
    """What `upgrade_database` would do, in its order; nothing is changed.

    Raises:
        ConfigurationError, StorageUnavailableError
    """
    from textllm_adapters.sql import migrations

    engine = engine_of(settings)
    try:
        return await migrations.steps_to_head(engine)
    finally:
        await engine.dispose()


async def open_blobs(stack: AsyncExitStack, settings: Settings) -> tuple[BlobStore, HealthProbe]:
    """Where files are kept, and what tells whether it answers.

    Raises:
        ConfigurationError
    """
    if not settings.s3.enabled:
        from textllm_adapters.filesystem.blob_store import open_blob_store as open_files
        from textllm_adapters.filesystem.health_probe import FilesystemHealthProbe

        files = await open_files(settings.data_dir / "files")
        return files, FilesystemHealthProbe(files)
    require_s3_sdk()
    from textllm_adapters.s3.blob_store import open_blob_store
    from textllm_adapters.s3.health_probe import S3HealthProbe

    s3 = settings.s3
    bucket = await stack.enter_async_context(
        open_blob_store(
            bucket=s3.bucket or "",  # never: the settings refuse to be enabled without one
            prefix=_STORAGE_PREFIX,
            region=s3.region,
            endpoint=s3.endpoint,
            access_key=_revealed(s3.access_key_id),
            secret_key=_revealed(s3.secret_access_key),
            session_token=_revealed(s3.session_token),
        )
    )
    return bucket, S3HealthProbe(bucket)


def _revealed(secret: Secret | None) -> str | None:
    return None if secret is None else secret.reveal()


def require_s3_sdk() -> None:
    """
    Raises:
        ConfigurationError: it is not installed.
    """
    if importlib.util.find_spec("aioboto3") is None:
        raise ConfigurationError(
            "S3_ENABLED needs the extra `s3` (in the checkout: "
            "uv pip install -c constraints.txt -e '.[s3]', or uv run --extra s3 textllm …)."
        )
