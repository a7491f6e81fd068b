"""How long a user's statistics take on PostgreSQL, beside a ledger that is almost empty.

    python -m benchmarks.stats [MILLIONS_OF_ENTRIES]

Fills a database with copies of one settled exchange, ten million unless said otherwise, over the last hundred days: a
thousand of each user in 20 conversations, and a hundred thousand of one more in 10,000. What the ledger adds up while
it settles is added up afterwards. Then asks through the adapter, and prints the median of 50 calls: only how the rows
of one column compare means anything on another machine. A million entries take 0.6 GB of disk.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final

from sqlalchemy import Table, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from tests.contracts.books import NOON, reservation, settlement
from tests.servers.postgres import open_postgres

from textllm_adapters.memory.clock import FixedClock
from textllm_adapters.postgres.engine import open_engine
from textllm_adapters.sql import migrations
from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sql.tables import conversations, ledger, sessions
from textllm_adapters.sql.usage_reports import SqlUsageReports
from textllm_adapters.wiring.storage import ledger_of
from textllm_core.report_usage import ReportUsage
from textllm_core.tenancy import Caller

CALLS = 50
BATCH = 1_000_000
ENTRIES_OF_USER = 1000
ENTRIES_OF_HEAVY_USER = 100_000
CALLER = Caller("tenant")

ENTRY: Final = {
    "user_id": "i.of_user",
    "response_id": "'resp_' || md5(i.of_user || i.n)",
    "conversation_id": "'conv_' || i.of_user || '_' || i.conversation",
    "session_id": "'sess_' || i.of_user || '_' || i.n % 100",
    "day": "one.day - i.n % 100",
    "model": "'model-' || i.n / 100 % 2",
    "created_at": "one.created_at - i.n % 100 * interval '1 day'",
}
SESSION: Final = {
    "user_id": "of.user_id",
    "day": "of.day",
    "id": "of.id",
    "total_tokens": "of.tokens",
    "total_cost": "of.cost",
}
CONVERSATION: Final = {
    "user_id": "of.user_id",
    "id": "of.id",
    "session_id": "of.session_id",
    "updated_at": "of.updated_at",
    "message_count": "of.entries",
    "total_tokens_input": "of.tokens_input",
    "total_tokens_output": "of.tokens_output",
    "total_cost": "of.cost",
}


def copies(table: Table, rows: str, changed: dict[str, str]) -> str:
    """Copies the row that the adapter wrote, once for each of `rows`, with some columns changed."""
    names = ", ".join(column.name for column in table.c)
    values = ", ".join(changed.get(column.name, f"one.{column.name}") for column in table.c)
    source = f"{table.name} AS one, {rows} WHERE one.user_id = 'user'"
    return f"INSERT INTO {table.name} ({names}) SELECT {values} FROM {source}"


async def settle_one(engine: AsyncEngine) -> None:
    books = ledger_of(engine)
    hold = await books.reserve(reservation())
    await books.settle(hold, settlement())


async def fill(connection: AsyncConnection, entries: int) -> None:
    await connection.execute(text("SET work_mem = '512MB'"))
    users = entries // ENTRIES_OF_USER
    for start in range(0, entries, BATCH):
        series = f"generate_series({start}, {min(start + BATCH, entries) - 1})"
        rows = f"(SELECT 'user_' || i % {users} AS of_user, i / {users} AS n FROM {series} AS i)"
        rows = f"(SELECT *, n % 100 / 5 AS conversation FROM {rows} AS i) AS i"
        await connection.execute(text(copies(ledger, rows, ENTRY)))
        await connection.commit()
    rows = f"generate_series(0, {ENTRIES_OF_HEAVY_USER - 1}) AS n"
    rows = f"(SELECT 'heavy' AS of_user, n, n % 10000 AS conversation FROM {rows}) AS i"
    await connection.execute(text(copies(ledger, rows, ENTRY)))
    await add_up(connection)
    await connection.commit()


async def add_up(connection: AsyncConnection) -> None:
    """What settling would have moved."""
    others = "FROM ledger WHERE user_id <> 'user' GROUP BY"
    sums = "count(*) AS entries, sum(input_tokens) AS tokens_input, sum(output_tokens) AS tokens_output"
    sums += ", sum(input_tokens + output_tokens) AS tokens, sum(cost) AS cost"
    await connection.execute(
        text(
            "INSERT INTO daily_usage (tenant_id, user_id, day, model, messages, input_tokens, output_tokens, cost) "
            "SELECT tenant_id, user_id, day, model, entries, tokens_input, tokens_output, cost "
            f"FROM (SELECT tenant_id, user_id, day, model, {sums} {others} 1, 2, 3, 4) AS of"
        )
    )
    rows = f"(SELECT user_id, day, session_id AS id, {sums} {others} 1, 2, 3) AS of"
    await connection.execute(text(copies(sessions, rows, SESSION)))
    newest = "(array_agg(session_id ORDER BY day DESC))[1] AS session_id, max(created_at) AS updated_at"
    rows = f"(SELECT user_id, conversation_id AS id, {newest}, {sums} {others} 1, 2) AS of"
    await connection.execute(text(copies(conversations, rows, CONVERSATION)))


async def median_ms(call: Callable[[], Awaitable[object]]) -> float:
    await call()  # the connection, and what it prepares
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        await call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000


async def measure(engine: AsyncEngine, user_id: str) -> str:
    """One row of figures."""
    report_usage = ReportUsage(SqlUsageReports(engine), FixedClock(NOON))
    of_month = await median_ms(lambda: report_usage(CALLER, user_id, days=30))
    of_years = await median_ms(lambda: report_usage(CALLER, user_id, days=3660))
    by_conversation = await median_ms(lambda: report_usage.by_conversation(CALLER, user_id, days=30))
    return f"{of_month:16.2f}{of_years:16.2f}{by_conversation:20.2f}"


async def run(url: str, entries: int) -> None:
    engine = open_engine(url, command_timeout_s=None)
    try:
        await migrations.upgrade(engine)
        await settle_one(engine)
        print(f"{'ms, median of ' + str(CALLS):40}{'30 days':>16}{'3660 days':>16}{'by conversation':>20}")
        print(f"{'a ledger of 1 entry':40}{await measure(engine, 'user')}")
        start = time.perf_counter()
        async with Database(engine).single(EVERYONE) as connection:
            await fill(connection, entries)
        async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            await connection.execute(text("VACUUM ANALYZE"))
            size = await connection.scalar(text("SELECT pg_size_pretty(pg_database_size(current_database()))"))
        print(f"filled in {time.perf_counter() - start:.0f} s, {size}")
        print(f"{f'{entries:,} entries: one of few':40}{await measure(engine, 'user')}")
        print(f"{f'{entries:,} entries: one of 1,000':40}{await measure(engine, 'user_7')}")
        print(f"{f'{entries:,} entries: one of 100,000':40}{await measure(engine, 'heavy')}")
    finally:
        await engine.dispose()


def main() -> None:
    entries = int(sys.argv[1] if len(sys.argv) > 1 else "10") * 1_000_000
    with open_postgres() as server:
        url = server.create_database()
        try:
            asyncio.run(run(url, entries))
        finally:
            server.drop_database(url)


if __name__ == "__main__":
    main()
