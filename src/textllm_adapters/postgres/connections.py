"""Connections of asyncpg's: opened where a server takes writes, and known for as long as they are of use.

A failover ends an era. Once one connection hears that its server is no primary any more, or hears nothing at all, none
that was opened before is used again. Nothing closes them otherwise: a demoted server goes on answering, and refuses
every write for ever.
"""

import random
import time
from collections.abc import Sequence
from typing import Any, Final

import asyncpg  # type: ignore[import-untyped]  # it has no stubs

from textllm_adapters.postgres.citus import HAS_CITUS, SHOW_SHARDS
from textllm_adapters.postgres.hosts import READ_WRITE, Host, hosts_of, wanted_of
from textllm_adapters.sql.errors import READ_ONLY
from textllm_adapters.sql.opening import Opening
from textllm_core.errors import ConfigurationError

LIFETIME_S: Final = 1800.0  # as the settings have it, with its reason
_TIMEOUT_S: Final = 2  # to a server nearby, which answers in milliseconds or not at all; turns wait for it
_TIMEOUT_OF_ONE_S: Final = 1  # of several: one that is silent must leave time for the next
_YOUNGEST: Final = 0.9  # of a lifetime: what was opened at once is not all renewed at once

_NO_DATABASE: Final = "DATABASE_URL names a database that does not exist; create it first."
_REFUSED: Final = "PostgreSQL refuses the user or the password in DATABASE_URL."
_ENCODINGS: Final = ("UTF8", "SQL_ASCII")  # of the databases that keep every character

# What a server says that is no primary any more, or ends: sessions that hear it are of no use, new ones may be.
_SERVER_IS_GONE: Final = (
    READ_ONLY,
    "57P01",  # shutdown by the administrator, or by a failover
    "57P02",  # crash shutdown
    "57P03",  # starting up, or in recovery
    "08",  # connections that broke; a pooler says so whose server is gone
)
# Asked, not read from what is told when a connection opens: a pooler tells what was true for its first connection.
_ASK: Final = f"""
    SELECT pg_catalog.pg_backend_pid(), pg_catalog.pg_is_in_recovery(),
        pg_catalog.current_setting('transaction_read_only') = 'on', {HAS_CITUS}
"""


class ReadOnlyServerError(ConnectionError):
    """The server at the address takes no writes: it is a standby, or was told so."""

    sqlstate = READ_ONLY  # what it would say to the first write


class Connection(asyncpg.Connection):  # type: ignore[misc]  # it has no stubs
    """One of asyncpg's.

    Attributes:
        is_pooled: a pooler is at its other end, which may carry out each transaction in another session.
        has_citus: the tables may lie on many nodes.
        era, ends_at: for `Connections` alone.
    """

    __slots__ = ("ends_at", "era", "has_citus", "is_pooled")

    is_pooled: bool
    has_citus: bool
    era: int
    ends_at: float


class Connections:
    """Opens connections to the database that a URL names, at the first of its hosts that takes writes.

    Args:
        url: any that libpq knows, with its parameters such as `sslmode`; also as `postgresql+asyncpg://…`. Its
            `target_session_attrs` is `read-write` where it does not say so; it may also be `primary` or `any`.
        command_timeout_s: how long to wait for the answer to a command; None: no limit.
        lifetime_s: of a connection; an older one is replaced before it is used again.
    Attributes:
        opening: asked before each one.
    """

    def __init__(self, url: str, *, command_timeout_s: float | None, lifetime_s: float = LIFETIME_S) -> None:
        scheme, _, rest = url.partition("://")
        self._url = f"{scheme.removesuffix('+asyncpg')}://{rest}"
        self._command_timeout_s, self._lifetime_s = command_timeout_s, lifetime_s
        self._hosts: Sequence[Host] = ()
        self._era = 0
        self._has_opened = False
        self.opening: Final = Opening()

    async def open(self) -> Connection:
        """
        Raises:
            OSError: no server takes connections, and writes.
            ConfigurationError: the URL cannot be read; the server refuses its user, or lacks its database, or that has
                not been made for UTF-8. Once there was a connection, the settings are right, and it is the server that
                has changed: OSError.
            ServiceUnavailableError: no more is opened.
        """
        self.opening.check()
        era = self._era  # of the beginning: what ends it meanwhile may be about this one, too
        try:
            connection = await self._open()
        except ValueError as error:  # asyncpg's own is one, too
            raise ConfigurationError("The URL of the database cannot be read.") from error
        except (asyncpg.InvalidCatalogNameError, asyncpg.InvalidAuthorizationSpecificationError) as error:
            if self._has_opened:
                raise ConnectionError(f"PostgreSQL takes no connection any more: {error.sqlstate}") from error
            is_missing = isinstance(error, asyncpg.InvalidCatalogNameError)
            raise ConfigurationError(_NO_DATABASE if is_missing else _REFUSED) from error
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            # It starts, ends, or has as many connections as it may.
            said = getattr(error, "sqlstate", type(error).__name__)
            raise ConnectionError(f"PostgreSQL takes no connection now: {said}") from error
        self._has_opened = True
        connection.era = era
        connection.ends_at = time.monotonic() + self._lifetime_s * random.uniform(_YOUNGEST, 1)  # noqa: S311
        return connection

    def is_fit(self, connection: Any) -> bool:
        """Whether to use it once more."""
        return connection.era == self._era and connection.ends_at > time.monotonic() and not connection.is_closed()

    def notices_loss(self, connection: Connection | None, error: Exception) -> bool:
        """Whether the error says that the server is gone, or no primary any more; then its era is over.

        Args:
            connection: what the error came from; None: it could not be opened.
        """
        sqlstate = getattr(error, "sqlstate", None) or ""
        is_closed = connection is not None and connection.is_closed()
        if not (sqlstate.startswith(_SERVER_IS_GONE) or isinstance(error, OSError) or is_closed):
            return False
        if connection is not None and connection.era == self._era:
            self._era += 1
        return True

    async def _open(self) -> Connection:
        """To the host that had the last one, or else to the next that takes writes."""
        if not self._hosts:
            self._hosts = hosts_of(self._url)
        failure: Exception | None = None
        for number, host in enumerate(hosts := self._hosts):
            try:
                connection = await self._open_at(host)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:  # a standby may lack the database
                failure = error
            else:
                self._hosts = [*hosts[number:], *hosts[:number]]
                return connection
        assert failure is not None  # there is one host at least
        raise failure

    async def _open_at(self, host: Host) -> Connection:
        timeout_s = _TIMEOUT_OF_ONE_S if host else _TIMEOUT_S
        connection: Connection = await asyncpg.connect(
            self._url,
            **host,
            connection_class=Connection,
            timeout=timeout_s,
            command_timeout=self._command_timeout_s,
            max_cached_statement_lifetime=0,  # what is prepared stays so
            server_settings={"application_name": "textllm"},
            target_session_attrs="any",
        )
        try:
            pid, is_in_recovery, is_read_only, has_citus = await connection.fetchrow(_ASK, timeout=timeout_s)
            if has_citus:
                await connection.execute(SHOW_SHARDS, timeout=timeout_s)
        except BaseException:
            connection.terminate()
            raise
        wanted = wanted_of(self._url)
        if is_read_only if wanted == READ_WRITE else is_in_recovery and wanted == "primary":
            connection.terminate()
            raise ReadOnlyServerError("PostgreSQL takes no writes here.")
        if (encoding := connection.get_settings().server_encoding) not in _ENCODINGS:
            connection.terminate()
            raise ConfigurationError(
                f"The database that DATABASE_URL names keeps the characters of {encoding} alone. Make one that keeps "
                "all of them: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0."
            )
        connection.has_citus = has_citus
        connection.is_pooled = pid != connection.get_server_pid()  # a pooler has keys of its own for its clients
        return connection
