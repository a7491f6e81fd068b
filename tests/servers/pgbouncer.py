"""PgBouncer before a PostgreSQL for tests: in transaction mode, on a Unix socket, gone with whoever started it."""

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from sqlalchemy import make_url
from tests.servers.postgres import GUARD, ROLE, as_unprivileged, hand_over

START_TIMEOUT_S = 20
PORT = 6432
CONFIGURATION = """
[databases]
* = {server}
[pgbouncer]
unix_socket_dir = {folder}
listen_port = {port}
auth_type = trust
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = {sessions}
max_client_conn = 1000
max_prepared_statements = {prepared}
server_login_retry = 1
logfile = {folder}/pgbouncer.log
"""


class PgBouncer:
    """A pooler before the server at `url`; needs no privileges.

        with PgBouncer(server.url, sessions=2) as pooler:
            url = pooler.before(server.create_database())

    Args:
        sessions: at the server, for each database.
        prepared: statements that it keeps for its clients; 0: it hands on what they prepare, as before 1.21.
    """

    def __init__(self, url: str, *, sessions: int, prepared: int = 200) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="textllm-pb-", dir="/tmp"))
        server = make_url(url)
        place = {"host": server.host or server.query.get("host"), "port": server.port}
        self._server = " ".join(f"{name}={value}" for name, value in place.items() if value)
        self._sessions, self._prepared = sessions, prepared

    def __enter__(self) -> Self:
        text = CONFIGURATION.format(
            server=self._server, folder=self.folder, port=PORT, sessions=self._sessions, prepared=self._prepared
        )
        (self.folder / "pgbouncer.ini").write_text(text)
        (self.folder / "users").write_text(f'"{ROLE}" ""\n')
        hand_over(self.folder)
        read_end, self._pipe = os.pipe()
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "sh", str(self.folder), pgbouncer() or "", str(self.folder / "pgbouncer.ini")],
            stdin=read_end,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            **as_unprivileged(),
        )
        os.close(read_end)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            assert self._guard.poll() is None, (self.folder / "pgbouncer.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return self

    def __exit__(self, *_exc: object) -> None:
        os.write(self._pipe, b"QUIT\n")
        self._guard.wait(START_TIMEOUT_S)
        os.close(self._pipe)
        shutil.rmtree(self.folder)

    def before(self, url: str) -> str:
        """The address of the database at `url`, through this."""
        return f"postgresql+asyncpg://{ROLE}@/{make_url(url).database}?host={self.folder}&port={PORT}"

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(self.folder / f".s.PGSQL.{PORT}"))
        except OSError:
            return False
        return True


def pgbouncer() -> str | None:
    """The program, of 1.21 or newer: older ones keep no prepared statements. None where there is none."""
    found = shutil.which("pgbouncer")
    if found is None:
        return None
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"PgBouncer (\d+)\.(\d+)", said)
    return found if version and (int(version[1]), int(version[2])) >= (1, 21) else None
