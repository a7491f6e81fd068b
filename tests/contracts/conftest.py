"""Every adapter of the storage ports, each over a store of its own that is empty when a test begins."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from msgspec.structs import replace
from opentelemetry.sdk.trace import TracerProvider
from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.servers.s3 import S3Server, open_bucket

from textllm_adapters.filesystem.blob_store import open_blob_store as open_files
from textllm_adapters.filesystem.health_probe import FilesystemHealthProbe
from textllm_adapters.memory.api_key_repository import MemoryApiKeyRepository
from textllm_adapters.memory.audit import MemoryAudit
from textllm_adapters.memory.clock import FixedClock
from textllm_adapters.memory.conversation_repository import MemoryConversationRepository
from textllm_adapters.memory.erasures import MemoryErasures
from textllm_adapters.memory.file_repository import MemoryFileRepository
from textllm_adapters.memory.ledger import MemoryLedger
from textllm_adapters.memory.ledger_upkeep import MemoryLedgerUpkeep
from textllm_adapters.memory.rate_limiter import MemoryRateLimiter
from textllm_adapters.memory.reply_journal import MemoryReplyJournal
from textllm_adapters.memory.session_repository import MemorySessionRepository
from textllm_adapters.memory.store import MemoryStore
from textllm_adapters.memory.stored_responses import MemoryStoredResponses
from textllm_adapters.memory.telemetry import MemoryTelemetry
from textllm_adapters.memory.tracer import MemoryTracer
from textllm_adapters.memory.usage_reports import MemoryUsageReports
from textllm_adapters.postgres.api_key_repository import PostgresApiKeyRepository
from textllm_adapters.postgres.engine import PostgresEngine
from textllm_adapters.postgres.engine import open_engine as open_postgres_engine
from textllm_adapters.postgres.rate_limiter import PostgresRateLimiter
from textllm_adapters.s3.blob_store import S3BlobStore
from textllm_adapters.s3.health_probe import S3HealthProbe
from textllm_adapters.sql.api_key_repository import SqlApiKeyRepository
from textllm_adapters.sql.audit import SqlAudit
from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sql.file_repository import SqlFileRepository
from textllm_adapters.sql.health_probe import SqlHealthProbe
from textllm_adapters.sql.session_repository import SqlSessionRepository
from textllm_adapters.sql.tables import daily_usage, holds, metadata, rate_buckets
from textllm_adapters.sql.usage_reports import SqlUsageReports
from textllm_adapters.sqlite.engine import SqliteEngine
from textllm_adapters.sqlite.engine import open_engine as open_sqlite_engine
from textllm_adapters.sqlite.rate_limiter import SqliteRateLimiter
from textllm_adapters.telemetry.listeners import Listeners
from textllm_adapters.telemetry.logs import LogTelemetry
from textllm_adapters.telemetry.metrics import PrometheusTelemetry
from textllm_adapters.telemetry.traces import OpenTelemetryTracer
from textllm_adapters.testing.health_probe import Probing
from textllm_adapters.testing.rate_limiter import Limiting
from textllm_adapters.testing.storage import Auditing, Storage
from textllm_adapters.wiring.storage import (
    conversations_of,
    erasures_of,
    journal_of,
    ledger_of,
    responses_of,
    upkeep_of,
)
from textllm_core.events import Unheard
from textllm_core.ports.api_key_repository import ApiKeyRepository
from textllm_core.ports.telemetry import Telemetry
from textllm_core.ports.tracer import Tracer
from textllm_core.records.ledger import Hold
from textllm_core.steps import Untraced

DATABASES = [
    "memory",
    "sqlite",
    "postgres",
    pytest.param("pgbouncer", marks=pytest.mark.pgbouncer),
    pytest.param("citus", marks=pytest.mark.citus),
]

# There each node has a snapshot of its own, and who leases rows waits for others that do.
ELSE_ON_CITUS = {
    "test_turns_that_run_meanwhile_raise_no_alarm_and_lose_nothing_to_a_repair": "the audit sees turns half done",
    "test_no_two_workers_get_the_same": "they do not, but one that comes at the same time may get fewer",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say what is not the same on Citus (docs/scale.md)."""
    for item in items:
        name, _, of = item.name.partition("[")
        if name in ELSE_ON_CITUS and of.startswith("citus"):
            item.add_marker(pytest.mark.xfail(reason=ELSE_ON_CITUS[name], strict=False))


def storage_of(store: MemoryStore) -> Storage:
    return Storage(
        MemoryLedger(store),
        MemoryLedgerUpkeep(store),
        MemoryConversationRepository(store),
        MemorySessionRepository(store),
        MemoryUsageReports(store),
        MemoryReplyJournal(store),
        MemoryFileRepository(store),
        MemoryErasures(store),
        MemoryStoredResponses(store),
    )


def sql_storage(engine: AsyncEngine) -> Storage:
    return Storage(
        ledger_of(engine),
        upkeep_of(engine),
        conversations_of(engine),
        SqlSessionRepository(engine),
        SqlUsageReports(engine),
        journal_of(engine),
        SqlFileRepository(engine),
        erasures_of(engine),
        responses_of(engine),
    )


@pytest.fixture
def memory_storage() -> Storage:
    return storage_of(MemoryStore())


@pytest.fixture
def sqlite_storage(sqlite_engine: AsyncEngine) -> Storage:
    return sql_storage(sqlite_engine)


@pytest.fixture
def postgres_storage(postgres_engine: AsyncEngine) -> Storage:
    return sql_storage(postgres_engine)


@pytest.fixture
def pgbouncer_storage(pgbouncer_engine: PostgresEngine) -> Storage:
    return sql_storage(pgbouncer_engine)


@pytest.fixture
def citus_storage(citus_engine: PostgresEngine) -> Storage:
    return sql_storage(citus_engine)


@pytest.fixture(params=DATABASES)
def storage(request: pytest.FixtureRequest) -> Storage:
    """One of the stores."""
    chosen = request.getfixturevalue(f"{request.param}_storage")
    assert isinstance(chosen, Storage)
    return chosen


@pytest.fixture
def memory_api_keys() -> ApiKeyRepository:
    return MemoryApiKeyRepository(MemoryStore())


@pytest.fixture
def sqlite_api_keys(sqlite_engine: AsyncEngine) -> ApiKeyRepository:
    return SqlApiKeyRepository(sqlite_engine)


@pytest.fixture
def postgres_api_keys(postgres_engine: PostgresEngine) -> ApiKeyRepository:
    return PostgresApiKeyRepository(postgres_engine)


@pytest.fixture
def pgbouncer_api_keys(pgbouncer_engine: PostgresEngine) -> ApiKeyRepository:
    return PostgresApiKeyRepository(pgbouncer_engine)


@pytest.fixture
def citus_api_keys(citus_engine: PostgresEngine) -> ApiKeyRepository:
    return PostgresApiKeyRepository(citus_engine)


@pytest.fixture(params=DATABASES)
def api_keys(request: pytest.FixtureRequest) -> ApiKeyRepository:
    """One of the repositories of keys."""
    chosen: ApiKeyRepository = request.getfixturevalue(f"{request.param}_api_keys")
    return chosen


@pytest.fixture
def memory_auditing() -> Auditing:
    store = MemoryStore()

    async def move(table: str, counter: str, by: Decimal | int) -> None:
        if table == "conversations":
            for key, kept in store.conversations.items():
                value = getattr(kept.conversation, counter) + by
                store.conversations[key] = replace(kept, conversation=replace(kept.conversation, **{counter: value}))
        elif table == "daily_usage":
            for of, used in store.daily_usage.items():
                store.daily_usage[of] = replace(used, **{counter: getattr(used, counter) + by})
        elif counter == "reserved":
            for day, today in store.sessions.items():
                store.sessions[day] = replace(today, reserved=today.reserved + by)
        else:
            for day, today in store.sessions.items():
                value = getattr(today.session, counter) + by
                store.sessions[day] = replace(today, session=replace(today.session, **{counter: value}))

    async def forget(hold: Hold) -> None:
        del store.holds[hold.tenant_id, hold.user_id, hold.response_id]

    async def forget_usage() -> None:
        store.daily_usage.clear()

    return Auditing(storage_of(store), MemoryAudit(store), move, forget, forget_usage)


@pytest.fixture
def sqlite_auditing(sqlite_engine: AsyncEngine) -> Auditing:
    return _sql_auditing(sqlite_engine)


@pytest.fixture
def postgres_auditing(postgres_engine: AsyncEngine) -> Auditing:
    return _sql_auditing(postgres_engine)


def _sql_auditing(engine: AsyncEngine) -> Auditing:
    async def move(table: str, counter: str, by: Decimal | int) -> None:
        spoilt = metadata.tables[table]
        async with Database(engine).transaction(EVERYONE) as connection:
            await connection.execute(update(spoilt).values({counter: spoilt.c[counter] + by}))

    async def forget(hold: Hold) -> None:
        async with Database(engine).transaction(EVERYONE) as connection:
            await connection.execute(delete(holds).where(holds.c.response_id == hold.response_id))

    async def forget_usage() -> None:
        async with Database(engine).transaction(EVERYONE) as connection:
            await connection.execute(delete(daily_usage))

    return Auditing(sql_storage(engine), SqlAudit(engine), move, forget, forget_usage)


@pytest.fixture
def pgbouncer_auditing(pgbouncer_engine: PostgresEngine) -> Auditing:
    return _sql_auditing(pgbouncer_engine)


@pytest.fixture
def citus_auditing(citus_engine: PostgresEngine) -> Auditing:
    return _sql_auditing(citus_engine)


@pytest.fixture(params=DATABASES)
def auditing(request: pytest.FixtureRequest) -> Auditing:
    """One of the audits."""
    chosen = request.getfixturevalue(f"{request.param}_auditing")
    assert isinstance(chosen, Auditing)
    return chosen


@pytest.fixture
def memory_limiting() -> Limiting:
    clock = FixedClock(datetime(2026, 12, 31, 23, 59, 59, 999_999, UTC))

    async def wait(time: timedelta) -> None:
        clock.advance(time)

    return Limiting(MemoryRateLimiter(clock), wait)


@pytest.fixture
def sqlite_limiting(sqlite_engine: SqliteEngine) -> Limiting:
    return Limiting(SqliteRateLimiter(sqlite_engine), _waiting(sqlite_engine))


@pytest.fixture
def postgres_limiting(postgres_engine: PostgresEngine) -> Limiting:
    return Limiting(PostgresRateLimiter(postgres_engine), _waiting(postgres_engine))


def _waiting(engine: AsyncEngine) -> Callable[[timedelta], Awaitable[None]]:
    """The database's clock goes its own way; so the buckets are made older instead."""

    async def wait(time: timedelta) -> None:
        microseconds = time // timedelta(microseconds=1)
        async with Database(engine).transaction(EVERYONE) as connection:
            await connection.execute(update(rate_buckets).values(updated_at=rate_buckets.c.updated_at - microseconds))

    return wait


@pytest.fixture
def pgbouncer_limiting(pgbouncer_engine: PostgresEngine) -> Limiting:
    return Limiting(PostgresRateLimiter(pgbouncer_engine), _waiting(pgbouncer_engine))


@pytest.fixture
def citus_limiting(citus_engine: PostgresEngine) -> Limiting:
    return Limiting(PostgresRateLimiter(citus_engine), _waiting(citus_engine))


@pytest.fixture(params=DATABASES)
def limiting(request: pytest.FixtureRequest) -> Limiting:
    """One of the rate limiters."""
    chosen = request.getfixturevalue(f"{request.param}_limiting")
    assert isinstance(chosen, Limiting)
    return chosen


@pytest.fixture
async def sqlite_probing(sqlite_engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[Probing]:
    file = tmp_path / "secret.db"
    broken = open_sqlite_engine(f"sqlite:///{file}")  # which connects when it is first used
    file.write_text("This is no database. " * 100)
    yield Probing(SqlHealthProbe(sqlite_engine), SqlHealthProbe(broken))
    await broken.dispose()


@pytest.fixture
async def postgres_probing(postgres_engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[Probing]:
    broken = open_postgres_engine(f"postgresql://someone:secret@/nothing?host={tmp_path}")
    yield Probing(SqlHealthProbe(postgres_engine), SqlHealthProbe(broken))
    await broken.dispose()


@pytest.fixture
async def filesystem_probing(tmp_path: Path) -> Probing:
    working, broken = await open_files(tmp_path / "files"), await open_files(tmp_path / "secret")
    broken.unfinished.rmdir()
    return Probing(FilesystemHealthProbe(working), FilesystemHealthProbe(broken), "storage")


@pytest.fixture
async def s3_probing(s3_server: S3Server, s3_store: S3BlobStore) -> AsyncIterator[Probing]:
    bucket = s3_server.create_bucket()
    async with open_bucket(s3_server, bucket) as broken:
        s3_server.delete_bucket(bucket)
        yield Probing(S3HealthProbe(s3_store), S3HealthProbe(broken), "storage")


@pytest.fixture(params=["sqlite", "postgres", "filesystem", "s3"])
def probing(request: pytest.FixtureRequest) -> Probing:
    """One of the probes, twice."""
    chosen = request.getfixturevalue(f"{request.param}_probing")
    assert isinstance(chosen, Probing)
    return chosen


@pytest.fixture(params=["unheard", "memory", "logs", "metrics", "traces", "listeners"])
def telemetry(request: pytest.FixtureRequest) -> Telemetry:
    kinds: dict[str, Callable[[], Telemetry]] = {
        "unheard": Unheard,
        "memory": MemoryTelemetry,
        "logs": LogTelemetry,
        "metrics": PrometheusTelemetry,
        "traces": lambda: OpenTelemetryTracer(TracerProvider(shutdown_on_exit=False), provider="openai"),
        "listeners": lambda: Listeners(MemoryTelemetry(), PrometheusTelemetry()),
    }
    return kinds[request.param]()


@pytest.fixture(params=["untraced", "memory", "opentelemetry"])
def tracer(request: pytest.FixtureRequest) -> Tracer:
    kinds: dict[str, Callable[[], Tracer]] = {
        "untraced": Untraced,
        "memory": MemoryTracer,
        "opentelemetry": lambda: OpenTelemetryTracer(TracerProvider(shutdown_on_exit=False), provider="openai"),
    }
    return kinds[request.param]()
