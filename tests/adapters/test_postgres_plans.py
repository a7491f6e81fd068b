"""The plans of what each turn asks of PostgreSQL, where it knows nothing yet of what is in the tables.

A plan made on a young database is kept by the connection that made it until something has analysed the tables, and
meanwhile they grow. So it must be one that is good for any number of rows.
"""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from tests.contracts.conftest import sql_storage
from tests.servers.postgres import RunningServer

from textllm_adapters.postgres import openings, statements
from textllm_adapters.postgres.engine import PostgresEngine, open_engine
from textllm_adapters.postgres.lanes import Statement
from textllm_adapters.postgres.rate_limiter import PostgresRateLimiter
from textllm_adapters.sql.tables import metadata
from textllm_adapters.testing.books import NOON, next_turn, reservation, settlement
from textllm_adapters.testing.storage import Storage
from textllm_core.errors import BudgetExceededError
from textllm_core.records.files import StoredFile
from textllm_core.records.journal import JournalEntry
from textllm_core.records.messages import Idempotency, TextDelta

KEY = Idempotency("key", "POST /chat", "digest")
IDS = {"id", "response_id", "conversation_id", "key", "digest"}  # each names one thing, whosever it is


@pytest.fixture
async def young(postgres_server: RunningServer, migrated_postgres_url: str) -> AsyncIterator[PostgresEngine]:
    """A database as `textllm db upgrade` leaves it."""
    url = postgres_server.create_database(template=migrated_postgres_url)
    engine = open_engine(url)
    yield engine
    await engine.dispose()
    postgres_server.drop_database(url)


async def take_turns(engine: PostgresEngine) -> None:
    """Turns of all kinds, and what is read beside them."""
    storage, limiter = sql_storage(engine), PostgresRateLimiter(engine)
    await limiter.take("tenant", "user", per_minute=10)
    await limiter.give_back("tenant", "user", per_minute=10)
    first = reservation(idempotency=KEY)
    await turn(storage, first)
    await storage.ledger.replay("tenant", KEY)
    for more in ({}, {"idempotency": replace(KEY, key="other")}, {"at": NOON + timedelta(days=1)}):
        await turn(storage, await next_turn(storage, first.conversation_id, **more))
    with suppress(BudgetExceededError):
        await turn(storage, reservation(cost="100", limit="100"))
    await turn(storage, reservation())
    await storage.ledger.release(await storage.ledger.reserve(reservation()))
    await storage.ledger.release(await storage.ledger.reserve(reservation(idempotency=replace(KEY, key="last"))))
    await storage.conversations.get("tenant", first.conversation_id)
    await storage.conversations.last_messages("tenant", "user", first.conversation_id, limit=100)
    await take_files(storage)
    today = await storage.sessions.of_day("tenant", "user", NOON.date())
    assert today is not None
    assert await storage.sessions.get("tenant", today.id) == today


async def turn(storage: Storage, asked: Any) -> None:
    hold = await storage.ledger.reserve(replace(asked, is_resumable=True))
    hold = await storage.ledger.pend(hold, provider_response_id="theirs", model="gpt-4o")
    await storage.ledger.renew([hold], lease_until=hold.created_at + timedelta(seconds=60))
    await storage.journal.write([JournalEntry(hold, 1, (TextDelta("Hi"),))])
    await storage.journal.read("tenant", None, hold.response_id, after=0)
    await storage.journal.read("tenant", "user", hold.response_id, after=0)
    await storage.journal.is_watched(hold, at=NOON)
    await storage.ledger.settle(hold, settlement(remembered=b"{}"))


async def take_files(storage: Storage) -> None:
    file = StoredFile(
        user_id="user",
        key="LLM/one.png",
        folder="chat_images",
        name="one.png",
        content_type="image/png",
        size=1,
        sha256="0" * 64,
        created_at=NOON,
    )
    await storage.files.announce("tenant", file, max_total_bytes=None)
    await storage.files.make_ready("tenant", file)
    await storage.files.get("tenant", file.key)
    await storage.files.find("tenant", [file.key])
    await storage.files.hide("tenant", file.key, user_id=None)
    await storage.files.hide("tenant", file.key, user_id="user")
    await storage.files.give_up("tenant", "user", file.key)
    await storage.files.forget("tenant", "user", file.key)


async def plans_kept(connection: Any) -> list[tuple[str, Any]]:
    """The statements that a connection has prepared, each with the plan that is kept for whatever values."""
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    kept = await connection.fetch(
        "SELECT name, statement, cardinality(parameter_types) AS parameters FROM pg_prepared_statements"
        " WHERE statement ~ '^\\s*(WITH|SELECT|INSERT|UPDATE|DELETE) '"
    )
    plans = []
    for name, statement, parameters in kept:
        values = f"({', '.join(['NULL'] * parameters)})" if parameters else ""
        plan = await connection.fetchval(f'EXPLAIN (FORMAT JSON) EXECUTE "{name}"{values}')
        plans.append((statement, plan[0]["Plan"]))
    return plans


def scans_of(plan: Any) -> Iterator[Any]:
    """The parts of a plan that look for rows of our tables, of which the ledger has one for each month."""
    if plan.get("Relation Name", "").startswith("ledger_"):
        plan |= {"Relation Name": "ledger"}
    if plan.get("Relation Name") in metadata.tables and plan["Node Type"] != "ModifyTable":
        yield plan
    for below in plan.get("Plans", ()):
        yield from scans_of(below)


def finds_at_once(scan: Any) -> bool:
    """Whether the index takes it to the very rows: by the whole key, or by the id or the day of what they are of."""
    named = set(re.findall(r"\b([a-z_]+)\)?(?:::\w+)? = ", scan.get("Index Cond", "")))
    key = {column.name for column in metadata.tables[scan["Relation Name"]].primary_key}
    return bool(named & IDS) or named >= key - {"model"}  # of which a user's day has a few


async def test_what_a_turn_asks_finds_its_rows_at_once_on_a_database_that_was_never_analysed(
    young: PostgresEngine,
) -> None:
    await take_turns(young)
    async with young.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        hot = [of for of in (*vars(statements).values(), *vars(openings).values()) if isinstance(of, Statement)]
        hot += openings.OPENINGS.values()
        prepared = [await driver.prepare(statement.sql) for statement in hot]  # as the lanes have them
        kept = await plans_kept(driver)
    assert len(kept) > len(prepared) > 5
    found = [(scan, statement) for statement, plan in kept for scan in scans_of(plan)]
    assert {scan["Relation Name"] for scan, _ in found} >= {"conversations", "sessions", "holds", "idempotency_keys"}
    assert [
        (scan, statement)
        for scan, statement in found
        if not finds_at_once(scan) and not (scan["Relation Name"] == "holds" and "unnest" in statement)  # RENEW: of all
    ] == []
