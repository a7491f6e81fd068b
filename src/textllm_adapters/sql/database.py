"""Connections that show the rows of one tenant alone, so that a statement which forgets to name it finds no others.

PostgreSQL keeps this lock, by policies that compare each row with a setting of the session. SQLite has none.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Final, Protocol, runtime_checkable

from sqlalchemy import Connection, bindparam, event, func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from textllm_adapters.sql.types import Id

EVERYONE: Final = "*"  # and no tenant's id
SETTING: Final = "textllm.tenant"  # which the policies read

IS_POOLED: Final = "textllm.is_pooled"  # in the pool's notes on a connection: it keeps no session between transactions

_SHOW: Final = select(func.set_config(SETTING, bindparam("of_tenant", type_=Id), False))
_SHOW_HERE: Final = select(func.set_config(SETTING, bindparam("of_tenant", type_=Id), True))  # in this transaction


def shared_tenant(tenant_ids: Iterable[str]) -> str:
    """The tenant that all of them are; else EVERYONE."""
    tenants = set(tenant_ids)
    return tenants.pop() if len(tenants) == 1 else EVERYONE


def is_pooled(connection: AsyncConnection) -> bool:
    """Whether it leads to a pooler, and may have another session for each transaction."""
    return bool(connection.info.get(IS_POOLED))


def has_transactions(connection: Connection) -> bool:
    """Whether what begins on it is a transaction; else each statement is one."""
    return connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT"


def _show_everyone(connection: Connection) -> None:
    if has_transactions(connection):
        connection.execute(_SHOW_HERE, {"of_tenant": EVERYONE})


@runtime_checkable
class Pausing(Protocol):
    """An engine beside which something else writes, by a connection of its own, and pauses for transactions."""

    def pause(self) -> AbstractAsyncContextManager[None]:
        """While the block runs, nothing else is written."""
        ...


class Database:
    """Connections to a database, each for the rows of a tenant or, for jobs, of EVERYONE.

    A connection goes on showing what it has shown last, so that to show the same again costs nothing. Where it leads to
    a pooler, which may have another session for each transaction, each is told.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self.dialect: Final = engine.dialect.name
        self._transactions = engine
        self._single = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._pause = engine.pause if isinstance(engine, Pausing) else nullcontext

    @asynccontextmanager
    async def transaction(self, tenant_id: str) -> AsyncIterator[AsyncConnection]:
        """A transaction, committed unless an exception leaves it."""
        # Who waits for a turn takes no connection from who only reads.
        async with self._pause(), self._transactions.connect() as connection:
            if not (pooled := is_pooled(connection)) and not self._shows(connection, tenant_id):
                # Before the transaction: one that rolled back would take the setting back as well.
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                await self._show(connection, tenant_id)
                await connection.execution_options(isolation_level=connection.default_isolation_level)
            async with connection.begin():
                if pooled:
                    await connection.execute(_SHOW_HERE, {"of_tenant": tenant_id})
                yield connection

    @asynccontextmanager
    async def single(self, tenant_id: str) -> AsyncIterator[AsyncConnection]:
        """A connection on which each statement is a transaction of its own; or all of them, where there is a pooler."""
        async with self._single.connect() as connection:
            if is_pooled(connection):
                await connection.execution_options(isolation_level=connection.default_isolation_level)
                async with connection.begin():
                    await connection.execute(_SHOW_HERE, {"of_tenant": tenant_id})
                    yield connection
                return
            if not self._shows(connection, tenant_id):
                await self._show(connection, tenant_id)
            yield connection

    @asynccontextmanager
    async def unbegun(self) -> AsyncIterator[AsyncConnection]:
        """A connection of PostgreSQL's on which the caller begins each transaction, for the rows of EVERYONE."""
        async with self._transactions.connect() as connection:
            event.listen(connection.sync_connection, "begin", _show_everyone)
            yield connection

    def batch(self, tenant_id: str) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection for one statement that writes, and whose rows are written together or not at all."""
        # asyncpg makes that one transaction by itself, without the round trips to begin and to commit it. On SQLite,
        # where one can write at a time, it waits for its turn.
        return self.single(tenant_id) if self.dialect == "postgresql" else self.transaction(tenant_id)

    def _shows(self, connection: AsyncConnection, tenant_id: str) -> bool:
        return self.dialect != "postgresql" or connection.info.get(SETTING) == tenant_id

    async def _show(self, connection: AsyncConnection, tenant_id: str) -> None:
        connection.info.pop(SETTING, None)  # nobody knows it, should this be cut short
        await connection.execute(_SHOW, {"of_tenant": tenant_id})
        await connection.commit()  # of SQLAlchemy alone, which sees a transaction wherever there is a statement
        connection.info[SETTING] = tenant_id
