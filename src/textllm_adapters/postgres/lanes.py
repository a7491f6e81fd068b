"""Connections for what every turn asks: they carry many turns' statements in one round trip and one commit.

No timer waits for company. What comes while the same statement is under way for the same tenant is gathered, and goes
together once that has ended: a statement that comes alone goes at once, and under load batches grow by themselves.
"""

import asyncio
import re
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from textllm_adapters.postgres.citus import without_locks
from textllm_adapters.postgres.connections import Connection, Connections
from textllm_adapters.sql.database import SETTING, Database
from textllm_adapters.sql.errors import STORAGE_ERRORS, Ailment
from textllm_adapters.sql.types import askable
from textllm_adapters.translation import translated

LANES: Final = 8  # about as many as there are different statements under way at once
_AT_ONCE: Final = 64  # calls in a batch, whose locks are held until the last of them is done
# Locks last for one batch of somebody else's. One that is held longer must not stop all who share the lane: they part.
# Plans are made once: those for whatever values are as good as any here (tests hold them to it).
_PREPARE: Final = "SET lock_timeout = '250ms'; SET plan_cache_mode = force_generic_plan"
_PREPARE_CITUS: Final = "SET lock_timeout = '250ms'; SET plan_cache_mode = force_custom_plan"
_SHOW: Final = f"SELECT set_config('{SETTING}', $1, false)"
# The same for one transaction. In digits, for a parameter would take a round trip more.
_BEGIN: Final = f"""
    BEGIN; SET LOCAL lock_timeout = '250ms'; SET LOCAL plan_cache_mode = force_generic_plan;
    SELECT set_config('{SETTING}', convert_from(decode('%s', 'hex'), 'UTF8'), true)
"""
_CLOSE_TIMEOUT_S: Final = 2  # as long as opening one may take
_PARAMETER: Final = re.compile(r"(?<!:):([a-z_]+)")


class Statement:
    """SQL that returns exactly one row, whatever it finds; its parameters are called `:name`.

    Args:
        order: the parameters by which a batch is sorted: those that name what others may want to lock, too. Batches
            which lock in one order do not wait for each other in a circle.
    """

    def __init__(self, text: str, *, order: tuple[str, ...] = ("user",)) -> None:
        names = tuple(dict.fromkeys(_PARAMETER.findall(text)))
        self.sql: Final = _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", text)
        self.sql_for_citus: Final = without_locks(self.sql)
        self._names: Final = names
        self._order: Final = tuple(map(names.index, order))

    def values(self, parameters: Mapping[str, object]) -> tuple[object, ...]:
        return tuple(map(parameters.__getitem__, self._names))

    def place(self, values: Sequence[object]) -> list[Any]:
        """Where a call with these values stands in its batch."""
        return [values[number] for number in self._order]


@dataclass(slots=True)
class _Call:
    values: tuple[object, ...]
    answer: asyncio.Future[Any]

    def tell(self, row: Any) -> None:
        if not self.answer.done():  # whoever asked may have been cancelled
            self.answer.set_result(row)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


_Group: TypeAlias = tuple[Statement, str]  # what may go together: the same statement for the same tenant


class Lanes:
    """A few connections, each for the rows of one tenant at a time, as `Database` has it.

    Args:
        connections: whose these are.
        database: others of them, for calls that cannot go together.
    """

    def __init__(self, connections: Connections, database: Database) -> None:
        self._connections, self._database = connections, database
        self._idle = [_Lane(connections) for _ in range(LANES)]
        self._lanes = tuple(self._idle)
        self._gathered: dict[_Group, list[_Call]] = {}  # of all groups that are waiting or under way
        self._waiting: deque[_Group] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, statement: Statement, tenant_id: str, parameters: Mapping[str, object]) -> Any:
        """The row that the statement returns, once it is committed; its columns are asked for by position.

        Raises:
            StorageUnavailableError: the database does not answer; it may yet have done what it was asked.
            sqlalchemy.exc.DBAPIError: the statement fails, and did nothing.
        """
        call = _Call(statement.values(parameters), asyncio.get_running_loop().create_future())
        group = statement, tenant_id
        if (gathered := self._gathered.get(group)) is not None:
            gathered.append(call)
        else:
            self._gathered[group] = [call]
            self._waiting.append(group)
            if self._idle:
                self._start(self._run(self._idle_for(tenant_id)))
        return await call.answer

    def _idle_for(self, tenant_id: str) -> "_Lane":
        """One that shows the tenant's rows already, if there is one: to show others' costs a round trip."""
        place = next((n for n, lane in enumerate(self._idle) if lane.shows == tenant_id), -1)
        return self._idle.pop(place)

    async def close(self) -> None:
        """Let what is under way come to its end, and close the connections. What is asked later opens new ones."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.gather(*[lane.leave() for lane in self._lanes])

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, lane: "_Lane") -> None:
        while self._waiting:
            group = self._waiting.popleft()
            gathered = self._gathered[group]
            calls = [call for call in gathered[:_AT_ONCE] if not call.answer.done()]
            del gathered[:_AT_ONCE]
            if calls:
                await self._carry_out(lane, group, calls)
            if gathered:
                self._waiting.append(group)
            else:
                del self._gathered[group]
        self._idle.append(lane)

    async def _carry_out(self, lane: "_Lane", group: _Group, calls: list[_Call]) -> None:
        statement, tenant_id = group
        if len(calls) > 1:
            calls.sort(key=lambda call: statement.place(call.values))
        try:
            rows = await lane.fetch(statement, tenant_id, [call.values for call in calls])
        except Exception as error:  # noqa: BLE001 - whatever it is, it is for those who wait
            if self._connections.notices_loss(lane.connection, error):
                self._start(lane.leave())  # while nobody waits for it
                ails = Ailment.of(error) or Ailment.of_loss(error)
                ails.log()
                for call in calls:
                    call.fail(ails.told())
            else:  # nothing of it happened, and only one of them may be to blame
                for call in calls:
                    self._start(self._ask_alone(group, call))
        else:
            for call, row in zip(calls, rows, strict=True):
                call.tell(row)

    async def _ask_alone(self, group: _Group, call: _Call) -> None:
        statement, tenant_id = group
        try:
            with translated(STORAGE_ERRORS):
                async with self._database.single(tenant_id) as connection:
                    call.tell((await connection.exec_driver_sql(statement.sql, call.values)).one())
        except Exception as error:  # noqa: BLE001 - it is for who waits
            call.fail(error)


class _Lane:
    """One connection, opened when it is first used, and again when it was lost.

    Attributes:
        connection: None before it is opened.
        shows: the tenant whose rows it goes on showing; None: not known, or not for longer than a transaction.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.connection: Connection | None = None
        self.shows: str | None = None

    async def fetch(self, statement: Statement, tenant_id: str, batch: Sequence[tuple[object, ...]]) -> Sequence[Any]:
        """The rows of the batch, in its order, once all of it is committed."""
        connection = self.connection
        if connection is None or not self._connections.is_fit(connection):
            connection = await self._renewed()
        if connection.is_pooled:
            return await _fetch_by_transaction(connection, statement, tenant_id, batch)
        if self.shows != tenant_id:
            self.shows = None
            await connection.fetchval(_SHOW, askable(tenant_id))
            self.shows = tenant_id
        sql = statement.sql_for_citus if connection.has_citus else statement.sql
        return await connection.fetchmany(sql, batch)  # type: ignore[no-any-return]

    async def _renewed(self) -> Connection:
        if self.connection is not None:
            self.connection.terminate()  # idle, and maybe at a server that takes no leave
        self.connection = self.shows = None
        connection = await self._connections.open()
        try:
            if not connection.is_pooled:
                await connection.execute(_PREPARE_CITUS if connection.has_citus else _PREPARE)
        except BaseException:
            connection.terminate()
            raise
        self.connection = connection
        return connection

    def leave(self) -> Coroutine[Any, Any, None]:
        """Have no connection any more; what is returned closes the one it had."""
        connection, self.connection = self.connection, None
        return _close(connection)


async def _close(connection: Connection | None) -> None:
    """Also what it was cancelled in, which would go on at the server otherwise."""
    if connection is not None and not connection.is_closed():
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await connection.close()
        except Exception:  # noqa: BLE001 - a server that is gone takes no leave
            connection.terminate()


async def _fetch_by_transaction(
    connection: Connection, statement: Statement, tenant_id: str, batch: Sequence[tuple[object, ...]]
) -> Sequence[Any]:
    """As `_Lane.fetch`, where the next transaction may have another session: each brings what it needs."""
    try:
        await connection.execute(_BEGIN % askable(tenant_id).encode().hex())
        rows = await connection.fetchmany(statement.sql, batch)
        await connection.execute("COMMIT")
    except BaseException:
        try:
            await connection.execute("ROLLBACK")
        except Exception:  # noqa: BLE001 - the first error tells; nobody knows what this connection is in
            connection.terminate()
        raise
    return rows  # type: ignore[no-any-return]
