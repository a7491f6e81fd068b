"""Connections to PostgreSQL by asyncpg."""

from typing import Any, Final

import msgspec
from sqlalchemy import ExceptionContext, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from textllm_adapters.sql.errors import READ_ONLY
from textllm_core.errors import ConfigurationError

_CONNECT_TIMEOUT_S: Final = 2
_POOL_TIMEOUT_S: Final = 30  # a burst waits for its turn; a server that is gone is noticed by the connection itself
# What a server says that is no primary any more, or ends: sessions that hear it are of no use, new ones may be.
_SERVER_IS_GONE: Final = (
    READ_ONLY,
    "57P01",  # shutdown by the administrator, or by a failover
    "57P02",  # crash shutdown
    "57P03",  # starting up, or in recovery
)
_POOL_SIZE: Final = 20  # connections at most; one beyond a pool that keeps fewer would be made anew each time


def open_engine(
    url: str, *, command_timeout_s: float | None = 4, pool_timeout_s: float = _POOL_TIMEOUT_S
) -> AsyncEngine:
    """An engine for any URL that libpq knows, with its parameters such as `sslmode`; connects when first used.

    The caller disposes of it. No wait is endless: for a place in the pool, a connection, or the answer to a command.

    Args:
        url: `postgres://…`, `postgresql://…` or `postgresql+asyncpg://…`.
        command_timeout_s: None: no limit, for migrations.
        pool_timeout_s: how long to wait for a place in the pool.
    Raises:
        ModuleNotFoundError: asyncpg is not installed.
        ConfigurationError: on first use; the URL cannot be read, or the server refuses its user or lacks its database.
    """
    import asyncpg  # type: ignore[import-untyped]  # it has no stubs; and is an extra, needed only from here on

    scheme, _, rest = url.partition("://")

    async def connect() -> Any:
        try:
            return await asyncpg.connect(
                f"{scheme.removesuffix('+asyncpg')}://{rest}",
                timeout=_CONNECT_TIMEOUT_S,
                command_timeout=command_timeout_s,
                server_settings={"application_name": "textllm"},
            )
        except asyncpg.ClientConfigurationError as error:
            raise ConfigurationError("The URL of the database cannot be read.") from error
        except asyncpg.InvalidCatalogNameError as error:
            raise ConfigurationError("DATABASE_URL names a database that does not exist; create it first.") from error
        except asyncpg.InvalidAuthorizationSpecificationError as error:
            raise ConfigurationError("PostgreSQL refuses the user or the password in DATABASE_URL.") from error
        except asyncpg.PostgresError as error:  # it starts, ends, or has as many connections as it may
            raise ConnectionError(f"PostgreSQL takes no connection now: {error.sqlstate}") from error

    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        pool_size=_POOL_SIZE,
        max_overflow=0,
        pool_timeout=pool_timeout_s,
        hide_parameters=True,
        json_serializer=lambda value: msgspec.json.encode(value).decode(),
        json_deserializer=msgspec.json.decode,
    )
    event.listen(engine.sync_engine, "checkout", _refuse_if_closed)
    event.listen(engine.sync_engine, "handle_error", _leave_if_gone)
    return engine


def _refuse_if_closed(connection: Any, _record: object, _proxy: object) -> None:
    """Have the pool replace connections that a restarted server closed: asyncpg knows without asking the server."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


def _leave_if_gone(context: ExceptionContext) -> None:
    """Have the pool replace all its connections once one of them hears that its server is no primary any more.

    Nothing closes them otherwise: a demoted server goes on answering, and refuses every write for ever.
    """
    if (getattr(context.original_exception, "sqlstate", None) or "") in _SERVER_IS_GONE:
        context.is_disconnect = True  # which invalidates the whole pool
