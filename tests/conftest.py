"""Databases for every test: one PostgreSQL server a run (a worker, where tests run in parallel), copied ready-made.

And buckets: one S3 server a run.
"""

import asyncio
import atexit
import gc
import os
import shutil
import signal
import ssl
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from botocore.loaders import create_loader
from hypothesis import HealthCheck, settings
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.servers.citus import CitusCluster, citus
from tests.servers.memory import folder_in_memory
from tests.servers.pgbouncer import PgBouncer, pgbouncer
from tests.servers.postgres import ReusableDatabase, RunningServer, open_postgres
from tests.servers.s3 import S3Server, open_bucket
from tests.servers.swift import SwiftServer

from textllm_adapters.postgres.engine import PostgresEngine
from textllm_adapters.postgres.engine import open_engine as open_postgres_engine
from textllm_adapters.s3.blob_store import S3BlobStore
from textllm_adapters.sql import migrations
from textllm_adapters.sql.tables import metadata
from textllm_adapters.sqlite.engine import SqliteEngine
from textllm_adapters.sqlite.engine import open_engine as open_sqlite_engine

# How long an example takes says how busy the machine is, and nothing about the code.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

BUNDLE_BYTES = 100_000  # the certificates of the world's authorities have twice as many, one of a test a hundredth
LONGEST = {"test_types_of_pages.py", "test_shutdown.py", "test_crashes.py", "test_docs_pages.py", "test_benchmarks.py"}
DAY_S = 60  # that one test takes at most, on two cores where others work, too
SLOW_TIMEOUT_S = 2400  # the longest of the slow tests takes 19 minutes on two cores
# New objects until Python looks for circles among all that thousands of tests have loaded, which takes a while; 20 MB.
OBJECTS = 100_000


def pytest_configure() -> None:
    """Keep the tests' folders in memory where there is plenty: SQLite waits for the disk at each commit.

    And keep what was compiled, also where the machine's owner would rather not: hundreds of processes are started.
    And look for circles of objects less often: each time, all that was loaded is looked through.
    And let Ctrl-C end what is started here: a run behind `&` in a script, and all its children, would ignore it.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.set_threshold(OBJECTS)
    atexit.register(gc.freeze)
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if memory := folder_in_memory():
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))  # whoever has set it has chosen


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let slow tests take their time, and begin with the longest of the others, so that none is left for the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT_S))


def pytest_collection_finish() -> None:
    """What was collected stays: it need not be looked through."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def no_authorities() -> Iterator[None]:
    """No test asks the internet: nobody reads the certificates of the world's authorities, a client 20 ms long."""
    load = ssl.SSLContext.load_verify_locations

    def load_ours(context: ssl.SSLContext, cafile: str | Path | None = None, *more: Any, **other: Any) -> None:
        if cafile is None or Path(cafile).stat().st_size < BUNDLE_BYTES:
            load(context, cafile, *more, **other)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl.SSLContext, "load_verify_locations", load_ours)
        yield


@pytest.fixture
def one_day() -> None:
    """For tests of today's session or budget, by the machine's clock: midnight (UTC) is not in the midst of them."""
    begun = datetime.now(UTC)
    while (begun + timedelta(seconds=DAY_S)).date() > begun.date() == datetime.now(UTC).date():
        time.sleep(0.1)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[RunningServer]:
    """A server that makes databases, started when a test first needs one."""
    with open_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def migrated_postgres_url(postgres_server: RunningServer) -> Iterator[str]:
    """A database with all tables, to be copied; nobody may be connected to it."""
    url = postgres_server.create_database()
    run_migrations(open_postgres_engine(url))
    yield url
    postgres_server.drop_database(url)


@pytest.fixture(scope="session")
def migrated_sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with all tables, to be copied; nobody may be connected to it."""
    path = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    run_migrations(open_sqlite_engine(f"sqlite:///{path}"))
    return path


@pytest.fixture
def empty_postgres_url(postgres_server: RunningServer) -> Iterator[str]:
    """A database of this test alone, without tables."""
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture(scope="session")
def reusable_postgres(postgres_server: RunningServer, migrated_postgres_url: str) -> Iterator[ReusableDatabase]:
    """What `postgres_url` takes; for nobody else."""
    database = ReusableDatabase(postgres_server, migrated_postgres_url)
    yield database
    database.drop()


@pytest.fixture
def postgres_url(reusable_postgres: ReusableDatabase) -> str:
    """A database of this test alone, with all tables, empty."""
    return reusable_postgres.emptied()


@pytest.fixture
def sqlite_url(migrated_sqlite_file: Path, tmp_path: Path) -> str:
    """A database of this test alone, with all tables."""
    path = tmp_path / "textllm.db"
    shutil.copy(migrated_sqlite_file, path)
    return f"sqlite:///{path}"


@pytest.fixture
async def postgres_engine(postgres_url: str) -> AsyncIterator[PostgresEngine]:
    """Connections to `postgres_url`."""
    engine = open_postgres_engine(postgres_url)
    yield engine
    await engine.dispose()


@pytest.fixture(scope="session")
def pgbouncer_server(postgres_server: RunningServer) -> Iterator[PgBouncer]:
    """A pooler before the server, which makes do with a few sessions of it; started when a test first needs one."""
    if pgbouncer() is None:
        pytest.skip("needs PgBouncer 1.21 or newer in the PATH")
    with PgBouncer(postgres_server.url, sessions=4) as pooler:
        yield pooler


@pytest.fixture
async def pgbouncer_engine(pgbouncer_server: PgBouncer, postgres_url: str) -> AsyncIterator[PostgresEngine]:
    """Connections to `postgres_url` through a pooler."""
    engine = open_postgres_engine(pgbouncer_server.before(postgres_url))
    yield engine
    await engine.dispose()


@pytest.fixture(scope="session")
def citus_url() -> Iterator[str]:
    """A database of a Citus cluster, over whose nodes its tables are spread; started when a test first needs one."""
    if (binaries := citus()) is None:
        pytest.skip("needs Citus: TEXTLLM_TEST_CITUS names the folder of a PostgreSQL's programs that has it")
    with CitusCluster(binaries) as cluster:
        run_migrations(open_postgres_engine(cluster.url))
        cluster.distribute()
        yield cluster.url


@pytest.fixture
async def citus_engine(citus_url: str) -> AsyncIterator[PostgresEngine]:
    """Connections to it; the tables are empty."""
    engine = open_postgres_engine(citus_url)
    async with engine.begin() as connection:
        await connection.execute(text(f"TRUNCATE {', '.join(metadata.tables)}"))
    yield engine
    await engine.dispose()


@pytest.fixture
async def sqlite_engine(sqlite_url: str) -> AsyncIterator[SqliteEngine]:
    """Connections to `sqlite_url`."""
    engine = open_sqlite_engine(sqlite_url)
    yield engine
    await engine.dispose()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """An S3 that looks at no signature, started when a test first needs one; to be left as it was.

    Clients share what botocore reads of its data, which is half the work of opening one, and wait little before they
    ask again what failed.
    """
    with S3Server() as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.session.create_loader", cache(create_loader))
        patch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.01)
        yield server


@pytest.fixture(scope="session")
def swift_server() -> Iterator[SwiftServer]:
    """An S3 API that checks all it is asked, started when a test first needs one."""
    with SwiftServer() as server:
        yield server


@pytest.fixture
async def s3_store(s3_server: S3Server) -> AsyncIterator[S3BlobStore]:
    """A store in a bucket of this test alone."""
    bucket = s3_server.create_bucket()
    async with open_bucket(s3_server, bucket) as store:
        yield store
    s3_server.delete_bucket(bucket)


@pytest.fixture
async def swift_store(swift_server: SwiftServer) -> AsyncIterator[S3BlobStore]:
    """A store in a bucket of this test alone."""
    async with open_bucket(swift_server, swift_server.create_bucket()) as store:
        yield store


def run_migrations(engine: AsyncEngine) -> None:
    """Make all tables, and let go of the database."""

    async def run() -> None:
        await migrations.upgrade(engine)
        await engine.dispose()

    # A loop of its own in a thread of its own: the fixture may be asked for from inside a loop.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, run()).result()
