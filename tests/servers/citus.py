"""A Citus cluster for tests: a coordinator and two nodes, which cannot outlive the process that started them.

Citus has to be there: `TEXTLLM_TEST_CITUS` names the folder of `initdb` and `postgres` of a PostgreSQL that has it.
Debian has no package of it; its makers do, and it can be built with the headers of Debian's PostgreSQL.
"""

import asyncio
import os
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import asyncpg  # type: ignore[import-untyped]  # it has no stubs
from sqlalchemy import make_url
from tests.servers.postgres import PostgresServer

SCRIPT = Path(__file__).parents[2] / "deploy" / "citus" / "distribute.sql"
NODES = 2
SETTINGS = {
    "shared_preload_libraries": "citus",
    "citus.node_conninfo": "sslmode=disable",
    "citus.shard_count": "8",  # for tests; 32 by default
    "citus.enable_statistics_collection": "off",
    "max_prepared_transactions": "100",
    "max_connections": "300",
}


def citus() -> Path | None:
    """The folder of the programs; None where nobody named one."""
    named = os.environ.get("TEXTLLM_TEST_CITUS")
    return Path(named) if named else None


class CitusCluster:
    """A cluster with one database, in which nothing is yet.

    Attributes:
        url: of the database at the coordinator, as the role that owns its tables.
    """

    def __init__(self, binaries: Path) -> None:
        self._stack = ExitStack()
        self._servers = [PostgresServer(binaries, port=port, settings=SETTINGS) for port in free_ports(1 + NODES)]
        self.url = ""

    def __enter__(self) -> Self:
        try:
            names = [self._stack.enter_context(server).create_database() for server in self._servers[:1]]
            name = make_url(names[0]).database
            asyncio.run(self._join(str(name)))
        except BaseException:
            self._stack.close()
            raise
        self.url = names[0]
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stack.close()

    def distribute(self) -> None:
        """Spread the tables, which are there now."""
        asyncio.run(_execute(self.url, SCRIPT.read_text()))

    async def _join(self, name: str) -> None:
        coordinator, *nodes = self._servers
        for node in nodes:
            self._stack.enter_context(node)
            await _execute(node.superuser_url, f'CREATE DATABASE "{name}" OWNER textllm')
        for server in self._servers:
            await _execute(in_database(server.superuser_url, name), "CREATE EXTENSION citus")
        places = f"SELECT citus_set_coordinator_host('127.0.0.1', {coordinator.port});"
        places += "".join(f"SELECT citus_add_node('127.0.0.1', {node.port});" for node in nodes)
        await _execute(in_database(coordinator.superuser_url, name), places)


def in_database(url: str, name: str) -> str:
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


async def _execute(url: str, statements: str) -> None:
    connection = await asyncpg.connect(url.replace("+asyncpg", "", 1))
    try:
        await connection.execute(statements)
    finally:
        await connection.close()
