"""How long a turn's books and a user's statistics take on PostgreSQL, beside a database that is almost empty.

    python -m benchmarks.growth [MILLIONS_OF_ENTRIES]

Fills a database with copies of one settled exchange, ten million unless said otherwise, over the last hundred days: a
hundred of each of 100,000 users in 20 conversations, and a hundred thousand of one more in 10,000. What the ledger adds
up while it settles is added up afterwards. Then asks through the adapters, and prints medians, and the pages that a
turn reads: only how the rows of one column compare means anything on another machine. A million entries take 0.6 GB of
disk.

A turn reads its conversation with the last hundred messages, reserves, says whom it has asked, and settles. The long
conversation has had a thousand turns before.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final

from sqlalchemy import Table, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from tests.contracts.conftest import sql_storage
from tests.servers.postgres import open_postgres

from textllm_adapters.memory.clock import FixedClock
from textllm_adapters.postgres.engine import PostgresEngine, open_engine
from textllm_adapters.sql import migrations
from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sql.tables import conversations, ledger, sessions
from textllm_adapters.sql.usage_reports import SqlUsageReports
from textllm_adapters.testing.books import NOON, next_turn, reservation, settlement
from textllm_adapters.testing.storage import Storage
from textllm_adapters.wiring.storage import ledger_of
from textllm_core.report_usage import ReportUsage
from textllm_core.tenancy import Caller

CALLS = 50
TURNS = 400  # of which the median is taken
LONG_CONVERSATION = 1000  # turns
STATISTICS_S = 11  # an idle connection of PostgreSQL tells what it has read within ten seconds
LIMIT = "1000000000"  # that no one reaches
BATCH = 1_000_000
ENTRIES_OF_USER = 100
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
    others = "FROM ledger WHERE user_id NOT IN ('user', 'few') GROUP BY"
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


async def turn(storage: Storage, user_id: str, conversation_id: str | None) -> str:
    """The books of one turn, of a new conversation where none is given; its conversation."""
    asked = reservation(user_id=user_id, limit=LIMIT)
    if conversation_id is not None:
        asked = await next_turn(storage, conversation_id, user_id=user_id, limit=LIMIT)
        await storage.conversations.last_messages("tenant", user_id, conversation_id, limit=100)
    hold = await storage.ledger.reserve(asked)
    hold = await storage.ledger.pend(hold, provider_response_id=None, model="gpt-4o")
    await storage.ledger.settle(hold, settlement(transcript_id=None))
    return hold.conversation_id


async def turns(engine: PostgresEngine, user_id: str, conversation_id: str | None) -> str:
    """Milliseconds of a turn, and pages that it read."""
    storage, times = sql_storage(engine), []
    before = await pages_read(engine)
    for _ in range(TURNS):
        start = time.perf_counter()
        await turn(storage, user_id, conversation_id)
        times.append(time.perf_counter() - start)
    pages = (await pages_read(engine) - before) / TURNS
    return f"{statistics.median(times) * 1000:12.2f}{pages:8.0f}"


async def pages_read(engine: PostgresEngine) -> int:
    """From memory or disk, by all so far; this looks the same however busy the machine is."""
    await asyncio.sleep(STATISTICS_S)
    async with Database(engine).single(EVERYONE) as connection:
        pages = "SELECT blks_hit + blks_read FROM pg_stat_database WHERE datname = current_database()"
        return int(await connection.scalar(text(pages)) or 0)


async def measure(engine: PostgresEngine, user_id: str, long: str) -> str:
    """One row of figures; `long` is a conversation of the user's with many turns."""
    of_turns = await turns(engine, user_id, None) + await turns(engine, user_id, long)
    report_usage = ReportUsage(SqlUsageReports(engine), FixedClock(NOON))
    of_month = await median_ms(lambda: report_usage(CALLER, user_id, days=30))
    of_years = await median_ms(lambda: report_usage(CALLER, user_id, days=3660))
    by_conversation = await median_ms(lambda: report_usage.by_conversation(CALLER, user_id, days=30))
    return f"{of_turns}{of_month:12.2f}{of_years:12.2f}{by_conversation:18.2f}"


async def long_conversation(storage: Storage, user_id: str) -> str:
    conversation_id = await turn(storage, user_id, None)
    for _ in range(1, LONG_CONVERSATION):
        await turn(storage, user_id, conversation_id)
    return conversation_id


async def run(url: str, entries: int) -> None:
    engine = open_engine(url, command_timeout_s=None)
    try:
        await migrations.upgrade(engine)
        await settle_one(engine)
        storage = sql_storage(engine)
        titles = f"{'first turn':>12}{'pages':>8}{'1,001st':>12}{'pages':>8}{'30 days':>12}{'3660 days':>12}"
        print(f"{'ms, medians':40}{titles}{'by conversation':>18}")
        few = await long_conversation(storage, "few")
        print(f"{'an almost empty database':40}{await measure(engine, 'few', few)}")
        start = time.perf_counter()
        async with Database(engine).single(EVERYONE) as connection:
            await fill(connection, entries)
        async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            await connection.execute(text("VACUUM ANALYZE"))
            size = await connection.scalar(text("SELECT pg_size_pretty(pg_database_size(current_database()))"))
        print(f"filled in {time.perf_counter() - start:.0f} s, {size}")
        print(f"{f'{entries:,} entries: one of few':40}{await measure(engine, 'few', few)}")
        for user_id, of_user in (("user_7", f"{ENTRIES_OF_USER}"), ("heavy", "100,000")):
            long = await long_conversation(storage, user_id)
            print(f"{f'{entries:,} entries: one of {of_user}':40}{await measure(engine, user_id, long)}")
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
