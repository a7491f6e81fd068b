"""Connections to PostgreSQL by asyncpg: a pool for SQLAlchemy, and lanes beside it for what every turn asks."""

from typing import Any, Final

import msgspec
from sqlalchemy import Engine, ExceptionContext, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from textllm_adapters.postgres.citus import without_locks
from textllm_adapters.postgres.connections import LIFETIME_S, Connections
from textllm_adapters.postgres.lanes import LANES, Lanes
from textllm_adapters.sql.database import IS_POOLED, Database

_POOL_TIMEOUT_S: Final = 30  # a burst waits for its turn; a server that is gone is noticed by the connection itself
_IS_NEW: Final = "textllm.is_new"  # in the pool's notes on a connection: nobody has had it yet
_CONNECTIONS: Final = 20  # at most; the pool keeps all it makes, for one that it did not would be made anew each time


class PostgresEngine(AsyncEngine):
    """An engine with lanes of its own; whoever disposes of it closes them, too."""

    def __init__(self, engine: Engine, connections: Connections) -> None:
        super().__init__(engine)
        self.opening = connections.opening
        self.lanes = Lanes(connections, Database(self))

    async def dispose(self, close: bool = True) -> None:
        """Close the connections that are not in use."""
        await self.lanes.close()
        await super().dispose(close)


def open_engine(
    url: str,
    *,
    command_timeout_s: float | None = 4,
    pool_timeout_s: float = _POOL_TIMEOUT_S,
    lifetime_s: float = LIFETIME_S,
) -> PostgresEngine:
    """An engine for any URL that libpq knows, also with several hosts (`Connections`); connects when first used.

    The caller disposes of it. No wait is endless: for a place in the pool, a connection, or the answer to a command.

    Args:
        url: `postgres://…`, `postgresql://…` or `postgresql+asyncpg://…`.
        command_timeout_s: None: no limit, for migrations.
        pool_timeout_s: how long to wait for a place in the pool.
        lifetime_s: how old a connection may become.
    Raises:
        ConfigurationError: on first use; the URL cannot be read, or the server refuses its user or lacks its database.
    """
    connections = Connections(url, command_timeout_s=command_timeout_s, lifetime_s=lifetime_s)
    pool = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connections.open,
        pool_size=_CONNECTIONS - LANES,
        max_overflow=0,
        pool_timeout=pool_timeout_s,
        hide_parameters=True,
        json_serializer=lambda value: msgspec.json.encode(value).decode(),
        json_deserializer=msgspec.json.decode,
    )
    engine = PostgresEngine(pool.sync_engine, connections)

    def connected(connection: Any, record: ConnectionPoolEntry) -> None:
        record.info[IS_POOLED] = connection.driver_connection.is_pooled
        record.info[_IS_NEW] = True

    def check_out(connection: Any, record: ConnectionPoolEntry, _proxy: object) -> None:
        # One that was just opened is as good as can be had: SQLAlchemy gives up after two that are refused here.
        if not record.info.pop(_IS_NEW, False) and not connections.is_fit(connection.driver_connection):
            connection.driver_connection.terminate()  # idle, and maybe at a server that takes no leave
            raise DisconnectionError

    def leave_if_lost(context: ExceptionContext) -> None:
        lost, error = context.connection, context.original_exception
        if lost is None or lost.invalidated or not isinstance(error, Exception):  # else it is only cancelled
            return
        if connections.notices_loss(lost.connection.driver_connection, error):
            context.is_disconnect = True

    def say_to_citus(
        connection: Any, _cursor: object, statement: str, parameters: object, *_more: object
    ) -> tuple[str, object]:
        has_citus = connection.connection.driver_connection.has_citus
        return (without_locks(statement) if has_citus else statement), parameters

    event.listen(engine.sync_engine, "before_cursor_execute", say_to_citus, retval=True)
    event.listen(engine.sync_engine, "connect", connected)
    event.listen(engine.sync_engine, "checkout", check_out)
    event.listen(engine.sync_engine, "handle_error", leave_if_lost)
    return engine
