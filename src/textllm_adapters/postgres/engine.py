"""Connections to PostgreSQL by asyncpg: a pool for SQLAlchemy, and lanes beside it for what every turn asks."""

from typing import Any, Final

import asyncpg  # type: ignore[import-untyped]  # it has no stubs
import msgspec
from sqlalchemy import Engine, ExceptionContext, event
from sqlalchemy.exc import DisconnectionError, InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from textllm_adapters.postgres.lanes import LANES, SERVER_IS_GONE, Connect, Lanes
from textllm_adapters.sql.database import Database
from textllm_adapters.sql.opening import Opening
from textllm_core.errors import ConfigurationError

_CONNECT_TIMEOUT_S: Final = 2  # to a server nearby, which answers in milliseconds or not at all; turns wait for it
_POOL_TIMEOUT_S: Final = 30  # a burst waits for its turn; a server that is gone is noticed by the connection itself
_CONNECTIONS: Final = 20  # at most; the pool keeps all it makes, for one that it did not would be made anew each time


class PostgresEngine(AsyncEngine):
    """An engine with lanes of its own; whoever disposes of it closes them, too."""

    def __init__(self, engine: Engine, connect: Connect, opening: Opening) -> None:
        super().__init__(engine)
        self.opening = opening
        self.lanes = Lanes(connect, Database(self))

    async def dispose(self, close: bool = True) -> None:
        """Close the connections that are not in use."""
        await self.lanes.close()
        await super().dispose(close)


def open_engine(
    url: str, *, command_timeout_s: float | None = 4, pool_timeout_s: float = _POOL_TIMEOUT_S
) -> PostgresEngine:
    """An engine for any URL that libpq knows, with its parameters such as `sslmode`; connects when first used.

    The caller disposes of it. No wait is endless: for a place in the pool, a connection, or the answer to a command.

    Args:
        url: `postgres://…`, `postgresql://…` or `postgresql+asyncpg://…`.
        command_timeout_s: None: no limit, for migrations.
        pool_timeout_s: how long to wait for a place in the pool.
    Raises:
        ConfigurationError: on first use; the URL cannot be read, or the server refuses its user or lacks its database.
    """
    scheme, _, rest = url.partition("://")
    opening = Opening()

    async def connect() -> Any:
        opening.check()
        try:
            return await asyncpg.connect(
                f"{scheme.removesuffix('+asyncpg')}://{rest}",
                timeout=_CONNECT_TIMEOUT_S,
                command_timeout=command_timeout_s,
                max_cached_statement_lifetime=0,  # what is prepared stays so
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

    pool = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        pool_size=_CONNECTIONS - LANES,
        max_overflow=0,
        pool_timeout=pool_timeout_s,
        hide_parameters=True,
        json_serializer=lambda value: msgspec.json.encode(value).decode(),
        json_deserializer=msgspec.json.decode,
    )
    engine = PostgresEngine(pool.sync_engine, connect, opening)

    # Once one of the connections hears that its server is no primary any more, all are replaced, of the pool and of the
    # lanes. Nothing closes them otherwise: a demoted server goes on answering, and refuses every write for ever.

    def leave_if_gone(context: ExceptionContext) -> None:
        if (getattr(context.original_exception, "sqlstate", None) or "") in SERVER_IS_GONE:
            context.is_disconnect = True  # which invalidates the whole pool
            engine.lanes.leave()

    def check_out(connection: Any, _record: object, _proxy: object) -> None:
        if engine.lanes.is_server_gone:
            engine.lanes.is_server_gone = False
            raise InvalidatePoolError
        if connection.driver_connection.is_closed():  # by a restarted server; asyncpg knows without asking it
            raise DisconnectionError

    event.listen(engine.sync_engine, "checkout", check_out)
    event.listen(engine.sync_engine, "handle_error", leave_if_gone)
    return engine
