"""A year of turns on PostgreSQL, with all that is removed meanwhile: what grows, what a turn reads, and who waits.

    python -m benchmarks.year [TURNS_A_MONTH] [MONTHS]

Takes turns through the adapters, 5,000 a month for 12 months unless said otherwise: a 200th of a million a month. Their
times are those of a year to come; each day's turns are taken at once, and beside them what a server removes. A third of
the turns begin a conversation, half of them have an Idempotency-Key, a third a journal. Users leave their
conversations after 50 days: half of them are deleted, and erased after 30 days more; the others are erased 60 days
after their last turn. The ledger is kept for 3 months. So all is there for the first time in the fifth month; from then
on only `daily_usage` should grow, which keeps its sums for ever.

Of each month it prints what the database has, the pages that one of its last turns reads, how many of their plans are
new, and the longest that a turn waited for a lock of what removes (PostgreSQL tells of waits from 5 ms on). Then each
table and index, in the fifth month and in the last. Autovacuum looks each second, since a day takes less than one.
"""

import asyncio
import json
import random
import re
import sys
from collections import defaultdict, deque
from collections.abc import Iterator, Set
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from msgspec.structs import replace as changed
from sqlalchemy import make_url, text
from tests.contracts.conftest import sql_storage
from tests.servers.postgres import PostgresServer

from textllm_adapters.memory.application import SCRIPTED_FILE_POLICY, SCRIPTED_POLICY, memory_ports
from textllm_adapters.memory.blob_store import MemoryBlobStore
from textllm_adapters.memory.clock import FixedClock
from textllm_adapters.memory.llm import ScriptedLLM
from textllm_adapters.memory.prices import FixedPrices
from textllm_adapters.memory.store import MemoryStore
from textllm_adapters.postgres.engine import PostgresEngine, open_engine
from textllm_adapters.postgres.ledger import PostgresLedger
from textllm_adapters.sql import migrations
from textllm_adapters.sql.audit import SqlAudit
from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sql.schedule import SqlSchedule
from textllm_adapters.testing.books import exchange, reservation, settlement
from textllm_adapters.testing.storage import Storage
from textllm_adapters.wiring.storage import api_keys_of, rate_limiter_of
from textllm_core.application import TextLLM
from textllm_core.chat.running import RunningExchanges
from textllm_core.policy import Retention
from textllm_core.records.journal import JournalEntry
from textllm_core.records.ledger import Reservation
from textllm_core.records.messages import Idempotency, TextDelta

TENANT: Final = "tenant"
USERS: Final = 1000
AT_ONCE: Final = 16  # turns
DAYS: Final = 30  # of a month that is taken; the clock goes on by the month's own length
LEFT_AFTER: Final = 50  # days of turns
KEPT: Final = Retention(deleted=timedelta(days=30), conversations=timedelta(days=60), ledger_months=3)
STEADY: Final = 5  # the month from which on as much goes as comes
SAMPLE: Final = 200  # turns, of which the pages and the plans are told
WAITS_FROM_MS: Final = 5  # PostgreSQL tells of longer ones
SETTINGS: Final = {
    "autovacuum_naptime": "1s",
    "log_lock_waits": "on",
    "deadlock_timeout": f"{WAITS_FROM_MS}ms",
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_buffers": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_format": "json",
}
PLAN: Final = re.compile(r"LOG:  duration: [\d.]+ ms  plan:\n((?:\t.*\n)+)")
WAIT: Final = re.compile(
    r"LOG:  process (?P<who>\d+) "
    r"(?:still waiting .*\n.*DETAIL:  (?P<others>.*)|acquired .* after (?P<ms>[\d.]+) ms.*)\n"
)
UPKEEP: Final = "SELECT pid FROM pg_stat_activity WHERE application_name = 'upkeep'"
SHORT: Final = ("holds", "estimates", "idempotency_keys", "reply_events", "reply_ends", "rate_buckets", "erasures")
OF_USER: Final = ("conversations", "messages")
SIZES: Final = """
    SELECT coalesce(pg_partition_root(c.oid), c.oid)::regclass::text,
        coalesce(pg_partition_root(t.oid), t.oid)::regclass::text,
        sum(CASE c.relkind WHEN 'i' THEN pg_relation_size(c.oid) ELSE pg_table_size(c.oid) END)::bigint
    FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid JOIN pg_class t ON t.oid = coalesce(i.indrelid, c.oid)
    WHERE c.relkind IN ('r', 'i') AND c.relnamespace = 'public'::regnamespace GROUP BY 1, 2
"""
DEAD: Final = "SELECT coalesce(sum(n_dead_tup), 0) FROM pg_stat_user_tables"


@dataclass
class Year:
    """What is done in it.

    Attributes:
        open: conversations by user, the newest last, in which no turn runs; made: all that are there, with their day.
    """

    engine: PostgresEngine
    cleaning: PostgresEngine
    clock: FixedClock
    superuser_url: str
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    open: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    made: deque[tuple[int, str, str]] = field(default_factory=deque)
    day: int = 0

    async def month(self, turns: int) -> int:
        """A month's turns, and what is removed beside them: how many rows."""
        first = self.clock.now()
        length = (first + timedelta(days=31)).replace(day=1) - first
        removed = 0
        for _ in range(DAYS):
            await self.leave_old()
            cleaning = asyncio.create_task(self.clean())
            await asyncio.gather(*[self.users(turns // DAYS // AT_ONCE) for _ in range(AT_ONCE)])
            removed += await cleaning
            self.day += 1
            self.clock.advance(length / DAYS)
        return removed

    async def users(self, turns: int) -> None:
        storage = sql_storage(self.engine)
        for _ in range(turns):
            await self.turn(storage)

    async def turn(self, storage: Storage) -> None:
        user, at = f"user{int(self.chance.triangular(0, USERS, 0))}", self.clock.now()
        known = self.open[user].pop() if self.open[user] and self.chance.random() < 2 / 3 else None
        asked = await self.asked(storage, user, known, at)
        ledger = storage.ledger
        assert isinstance(ledger, PostgresLedger)
        _, hold = await ledger.admit(asked, per_minute=1_000_000)
        hold = hold or await ledger.reserve(asked)
        said = JournalEntry(hold, 1, (TextDelta("word " * 160),)) if asked.is_resumable else None
        hold = await ledger.pend(hold, provider_response_id=None, model="gpt-4o", said=said)
        messages = exchange("word " * 40, "word " * 160)
        end = settlement(at=at, cost="0.0025", messages=messages, remembered=b"{}", transcript_id=None)
        await ledger.settle(hold, end)
        if known is None:
            self.made.append((self.day, user, hold.conversation_id))
        self.open[user].append(hold.conversation_id)

    async def asked(self, storage: Storage, user: str, known: str | None, at: datetime) -> Reservation:
        more: dict[str, Any] = {"user_id": user, "at": at, "limit": "1000000", "cost": "0.05"}
        if known is not None:
            state = await storage.conversations.state(TENANT, known)
            assert state is not None
            more |= {"conversation_id": known, "revision": state.revision}
        asked = reservation(**more)
        key = Idempotency(asked.response_id, "POST /chat", "0" * 64) if self.chance.random() < 1 / 2 else None
        return changed(asked, is_resumable=self.chance.random() < 1 / 3, idempotency=key)

    async def leave_old(self) -> None:
        conversations = sql_storage(self.engine).conversations
        while self.made and self.made[0][0] <= self.day - LEFT_AFTER:
            _, user, conversation_id = self.made.popleft()
            self.open[user].remove(conversation_id)
            if self.chance.random() < 1 / 2:
                await conversations.hide(TENANT, user, conversation_id, at=self.clock.now())

    async def superuser(self, statement: str) -> None:
        engine = open_engine(self.superuser_url)
        async with engine.begin() as connection:
            await connection.execute(text(statement))
        await engine.dispose()

    async def clean(self) -> int:
        """What a server does each minute, and each hour."""
        storage = sql_storage(self.cleaning)
        ports = memory_ports(MemoryStore(), ScriptedLLM(), FixedPrices({}), clock=self.clock, blobs=MemoryBlobStore())
        ports = replace(
            ports,
            ledger=storage.ledger,
            upkeep=storage.upkeep,
            conversations=storage.conversations,
            files=storage.files,
            journal=storage.journal,
            rate_limiter=rate_limiter_of(self.cleaning),
            api_keys=api_keys_of(self.cleaning),
            schedule=SqlSchedule(self.cleaning),
        )
        policy = changed(SCRIPTED_POLICY, retention=KEPT)
        textllm = TextLLM.over(ports, policy, SCRIPTED_FILE_POLICY, RunningExchanges(ports.journal, self.clock))
        return sum((await textllm.remove_expired()).values())


def plans_of(log: str) -> Iterator[Any]:
    """What `auto_explain` has written, by statement."""
    for found in PLAN.findall(log):
        yield json.loads(found)


def shape(plan: Any) -> str:
    """Its nodes and indexes, whichever month of the ledger they are of."""
    named = f"{plan['Node Type']} {plan.get('Relation Name', '')} {plan.get('Index Name', '')}"
    below = ", ".join(map(shape, plan.get("Plans", ())))
    return f"{re.sub('ledger_(before|default|[0-9]{4}_[0-9]{2})', 'ledger', named)} ({below})"


@dataclass
class Measured:
    """What one month came to.

    Attributes:
        sizes: bytes of each table and index, those of the ledger's months together.
        longest_ms: that a turn's statement has waited for a lock that the upkeep had, or stood in line for.
    """

    sizes: dict[tuple[str, str], int]
    dead: int
    pages: float
    new_plans: Set[str]
    longest_ms: float
    removed: int

    def of(self, *tables: str) -> float:
        """Megabytes of tables with their indexes."""
        return sum(size for (_, table), size in self.sizes.items() if table in tables) / 1e6

    def row(self, month: int) -> str:
        groups = [("ledger",), OF_USER, ("sessions",), ("daily_usage",), SHORT]
        sizes = "".join(f"{self.of(*tables):12.2f}" for tables in groups)
        rest = f"{self.dead:8}{self.pages:8.1f}{len(self.new_plans):11}{self.longest_ms:10.0f}{self.removed:9}"
        return f"{month:5}{sizes}{rest}"


TITLES: Final = (
    f"{'month':5}{'ledger':>12}{'messages':>12}{'sessions':>12}{'daily sums':>12}{'short-lived':>12}"
    f"{'dead':>8}{'pages':>8}{'new plans':>11}{'wait, ms':>10}{'removed':>9}"
)


async def sample(server: PostgresServer, url: str, year: Year, seen: set[str]) -> tuple[float, Set[str]]:
    """Pages that a turn reads, and those of its plans that were never seen before."""
    before = len(server.log)
    await year.superuser("ALTER ROLE textllm SET auto_explain.log_min_duration = 0")
    engine = open_engine(url)  # whose connections tell their plans
    turning, year.engine = year.engine, engine
    for _ in range(SAMPLE):
        await year.turn(sql_storage(engine))
    year.engine = turning
    await engine.dispose()
    await year.superuser("ALTER ROLE textllm RESET auto_explain.log_min_duration")
    pages, shapes = 0, set()
    for told in plans_of(server.log[before:]):
        plan = told["Plan"]
        pages += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        shapes.add(f"{' '.join(told['Query Text'].split())[:60]}… {shape(plan)}")
    new = shapes - seen
    seen |= shapes
    return pages / SAMPLE, new


def longest_wait(log: str, upkeep: Set[int]) -> float:
    """Milliseconds that others have waited for locks which these processes had, or stood in line for before them."""
    longest, behind = 0.0, dict[int, bool]()
    for wait in WAIT.finditer(log):
        who = int(wait["who"])
        if wait["others"] is not None:
            behind[who] = who not in upkeep and not upkeep.isdisjoint(map(int, re.findall(r"\d+", wait["others"])))
        elif behind.pop(who, False):
            longest = max(longest, float(wait["ms"]))
    return longest


async def ask(engine: PostgresEngine, question: str) -> Any:
    async with Database(engine).single(EVERYONE) as connection:
        return (await connection.execute(text(question))).all()


async def run(server: PostgresServer, turns: int, months: int) -> None:
    url = server.create_database()
    of_upkeep = make_url(url).update_query_dict({"application_name": "upkeep"}).render_as_string()
    engine, cleaning = open_engine(url, command_timeout_s=None), open_engine(of_upkeep)
    await migrations.upgrade(engine)
    this_month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    clock = FixedClock((this_month + timedelta(days=31)).replace(day=1))  # of which the ledger has a table
    year, seen = Year(engine, cleaning, clock, server.superuser_url), set[str]()
    steady = last = None
    print(f"{turns:,} turns a month of {USERS:,} users; megabytes with indexes; dead rows; pages that a turn reads")
    print(TITLES)
    for month in range(1, months + 1):
        before = len(server.log)
        removed = await year.month(turns)
        upkeep = {pid for (pid,) in await ask(engine, UPKEEP)}
        longest_ms = longest_wait(server.log[before:], upkeep)
        pages, new = await sample(server, url, year, seen)
        sizes = {(name, table): size for name, table, size in await ask(engine, SIZES)}
        [(dead,)] = await ask(engine, DEAD)
        last = Measured(sizes, dead, pages, new, longest_ms, removed)
        steady = last if month == STEADY else steady
        print(last.row(month), flush=True)
        if month > STEADY:
            print("".join(f"      {plan}\n" for plan in sorted(new)), end="")
    if steady is not None and last is not None:
        print(f"\n{'MB of a table or an index':48}{f'month {STEADY}':>10}{f'month {months}':>10}")
        for name, table in sorted(steady.sizes):
            then, at_last = (of.sizes.get((name, table), 0) / 1e6 for of in (steady, last))
            if max(then, at_last) >= 0.1:
                print(f"{name:48}{then:10.2f}{at_last:10.2f}")
    print("\nwhat the audit finds:", [drift async for drift in SqlAudit(engine).drifts()])
    for one in (engine, cleaning):
        await one.dispose()


def main() -> None:
    turns, months = (int(given) for given in [*sys.argv[1:], *("5000", "12")[len(sys.argv) - 1 :]])
    with PostgresServer(settings=SETTINGS) as server:
        asyncio.run(run(server, turns, months))


if __name__ == "__main__":
    main()
