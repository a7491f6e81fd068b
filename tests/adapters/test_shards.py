"""What a turn asks of PostgreSQL touches the rows of one shard, as Citus lays them out, and no statement joins across.

Nobody needs Citus to see that: the tables are partitioned by the columns of its script, and the server itself tells
which partitions a statement has read or written.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # it has no stubs
import pytest
from tests.conftest import run_migrations
from tests.servers.openai import Fault, OpenAIStandIn, Reply
from tests.servers.postgres import PostgresServer

from textllm_adapters.postgres.engine import open_engine
from textllm_adapters.settings import load_settings
from textllm_adapters.sql import horizons  # noqa: F401 - which is one of the tables
from textllm_adapters.sql.tables import metadata
from textllm_adapters.wiring import open_textllm
from textllm_core import Caller, TextLLM, TextTurn
from textllm_core.errors import TextLLMError
from textllm_core.records.messages import Idempotency, ReplyStarted, TextDelta
from textllm_core.records.parts import InputText
from textllm_core.records.response_turns import ResponseTurn

SCRIPT = Path(__file__).parents[2] / "deploy" / "citus" / "distribute.sql"
SHARDS = 8
# What the script calls, writing down what it is told.
CITUS = """
    CREATE TABLE told (place serial, name text, shard_by text, beside text);
    CREATE FUNCTION create_distributed_table(table_name regclass, distribution_column text, colocate_with text)
    RETURNS void LANGUAGE sql AS 'INSERT INTO told (name, shard_by, beside) VALUES ($1, $2, $3)';
    CREATE FUNCTION create_reference_table(table_name regclass)
    RETURNS void LANGUAGE sql AS 'INSERT INTO told (name) VALUES ($1)';
"""
UNIQUE = """
    SELECT indrelid::regclass::text AS name, array_agg(attname::text) AS columns
    FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
    WHERE indisunique AND indrelid::regclass::text = ANY ($1) GROUP BY indexrelid, indrelid
"""
FOREIGN = """
    SELECT conrelid::regclass::text AS name, confrelid::regclass::text AS named, pg_get_constraintdef(oid) AS said,
        ARRAY(SELECT attname::text FROM unnest(conkey) WITH ORDINALITY AS k (number, place)
            JOIN pg_attribute ON attrelid = conrelid AND attnum = k.number ORDER BY place) AS columns,
        ARRAY(SELECT attname::text FROM unnest(confkey) WITH ORDINALITY AS k (number, place)
            JOIN pg_attribute ON attrelid = confrelid AND attnum = k.number ORDER BY place) AS of_named
    FROM pg_constraint WHERE contype = 'f' AND conparentid = 0
"""
EXPLAINING = {
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_timing": "off",
    "auto_explain.log_format": "json",
    "auto_explain.log_nested_statements": "on",  # what foreign keys ask
}
PLAN = re.compile(r"LOG:  duration: [\d.]+ ms  plan:\n((?:\t.*\n)+)")
# What goes on beside the turns, for those of all users at once: what is due, renewed, to be cancelled, or struck off.
UPKEEP = re.compile(r"\b(?:next_at|lease_until|until|attempts) [<>]|WHERE holds\.cancel_asked|WITH (?:alive|struck) AS")
ADA = Caller("acme", "user", "ada", "key_ada")
SERVICE = Caller("acme", "service", None, "key_service")


@dataclass(frozen=True)
class Shard:
    """How the script places a table: by a column, or, where that is None, whole on every node."""

    by: str | None
    group: str  # tables of one group have the rows of one value on one node


@dataclass(frozen=True)
class Spread:
    """A database whose tables are partitioned as the script distributes them."""

    server: PostgresServer
    url: str
    shards: Mapping[str, Shard]


async def told_by_script(connection: Any) -> dict[str, Shard]:
    """What the script says, in its order; the tables are left as they were, but for their policies."""
    await connection.execute(CITUS)
    await connection.execute(SCRIPT.read_text())
    shards: dict[str, Shard] = {}
    for row in await connection.fetch("SELECT * FROM told ORDER BY place"):
        assert row["name"] not in shards
        beside = row["beside"] in (None, "none")
        shards[row["name"]] = Shard(row["shard_by"], row["name"] if beside else shards[row["beside"]].group)
    return shards


async def spread(url: str) -> Mapping[str, Shard]:
    """Partition the tables; their foreign keys stay."""
    connection = await asyncpg.connect(url.replace("+asyncpg", "", 1))
    try:
        shards = await told_by_script(connection)
        keys = await connection.fetch(FOREIGN)
        for table in metadata.sorted_tables:
            if (by := shards[table.name].by) is None:
                continue
            await connection.execute(f"""
                ALTER TABLE {table} RENAME TO whole;
                CREATE TABLE {table} (LIKE whole INCLUDING ALL) PARTITION BY HASH ({by});
                DROP TABLE whole CASCADE;
            """)
            for number in range(SHARDS):
                await connection.execute(
                    f"CREATE TABLE {table}_{number} PARTITION OF {table}"
                    f" FOR VALUES WITH (MODULUS {SHARDS}, REMAINDER {number})"
                )
        for key in keys:
            await connection.execute(f"ALTER TABLE {key['name']} ADD {key['said']}")
    finally:
        await connection.close()
    return shards


@pytest.fixture(scope="module")
def spread_database() -> Iterator[Spread]:
    with PostgresServer(settings=EXPLAINING) as server:
        run_migrations(open_engine(url := server.create_database()))
        yield Spread(server, url, asyncio.run(spread(url)))


async def test_the_script_distributes_each_table_once_by_a_column_of_all_its_unique_keys(
    postgres_url: str,
) -> None:
    connection = await asyncpg.connect(postgres_url.replace("+asyncpg", "", 1))
    transaction = connection.transaction()
    await transaction.start()
    try:
        shards = await told_by_script(connection)
        assert shards.keys() == metadata.tables.keys()
        spread_ones = [name for name, shard in shards.items() if shard.by is not None]
        unique = await connection.fetch(UNIQUE, spread_ones)
        assert {row["name"] for row in unique} == set(spread_ones)
        assert [row for row in unique if shards[row["name"]].by not in row["columns"]] == []
        for key in await connection.fetch(FOREIGN):
            own, named = shards[key["name"]], shards[key["named"]]
            assert own.group == named.group
            assert (own.by, named.by) in zip(key["columns"], key["of_named"], strict=True)
            assert list(shards).index(key["named"]) < list(shards).index(key["name"])
        shown = await connection.fetchval("SELECT count(*) FROM pg_class WHERE relrowsecurity OR relforcerowsecurity")
        assert shown == 0  # of a node's own connections the policies know no tenant
    finally:
        await transaction.rollback()
        await connection.close()


def scans_of(plan: Any) -> Iterator[str]:
    """The tables and partitions whose rows a plan has looked for."""
    if "Relation Name" in plan and plan["Node Type"] != "ModifyTable" and plan["Actual Loops"]:
        yield plan["Relation Name"]
    for below in plan.get("Plans", ()):
        yield from scans_of(below)


def tables_of(plan: Any) -> set[str]:
    return {relation.rpartition("_")[0] for relation in scans_of(plan)}


def touched_by(plan: Any, shards: Mapping[str, Shard]) -> dict[str, set[int]]:
    """The shards that it has touched of each group of tables."""
    touched: dict[str, set[int]] = {}
    for relation in scans_of(plan):
        name, _, number = relation.rpartition("_")
        if number.isdigit() and shards[name].by is not None:
            touched.setdefault(shards[name].group, set()).add(int(number))
    return touched


@dataclass
class Watched:
    """What one run has asked.

    Attributes:
        plans: those of its statements.
    """

    plans: list[Any]
    shards: Mapping[str, Shard]

    def tables(self) -> set[str]:
        """Whatever has been looked for."""
        return {table for plan in self.plans for table in tables_of(plan)}

    def across(self, at_most: int = 1) -> set[str]:
        """The tables of statements that have touched more shards of a group of tables."""
        touched = [(touched_by(plan, self.shards), tables_of(plan)) for plan in self.plans]
        return set().union(*[tables for some, tables in touched if max(map(len, some.values()), default=0) > at_most])


@asynccontextmanager
async def watching(spread: Spread) -> AsyncIterator[Watched]:
    """What is asked of the server in the block."""
    watched, before = Watched([], spread.shards), len(spread.server.log)
    yield watched
    for found in PLAN.findall(spread.server.log[before:]):
        said = json.loads(found)
        if not UPKEEP.search(said["Query Text"]):
            watched.plans.append(said["Plan"])


async def places_of(spread: Spread, table: str, user_id: str) -> set[str]:
    """The partitions in which the user has rows."""
    connection = await asyncpg.connect(spread.url.replace("+asyncpg", "", 1))
    try:
        found = await connection.fetch(f"SELECT tableoid::regclass::text FROM {table} WHERE user_id = $1", user_id)
        return {row[0] for row in found}
    finally:
        await connection.close()


async def written_across(spread: Spread, *user_ids: str) -> list[set[str]]:
    """Where transactions have written rows of these users, still there, on more shards than one."""
    connection = await asyncpg.connect(spread.url.replace("+asyncpg", "", 1))
    written: dict[str, set[str]] = {}
    try:
        for name in (name for name, shard in spread.shards.items() if shard.group == "conversations"):
            rows = f"SELECT xmin::text AS by, tableoid::regclass::text AS at FROM {name} WHERE user_id = ANY ($1)"
            for row in await connection.fetch(rows, user_ids):
                written.setdefault(row["by"], set()).add(row["at"])
    finally:
        await connection.close()
    return [places for places in written.values() if len({place.rpartition("_")[2] for place in places}) > 1]


@pytest.fixture
async def textllm(spread_database: Spread, tmp_path: Path) -> AsyncIterator[tuple[TextLLM, OpenAIStandIn]]:
    with OpenAIStandIn(api_key="sk-test") as provider:
        environ = {
            "TEXTLLM_DATA_DIR": str(tmp_path),
            "OPENAI_API_KEY": "sk-test",
            "OPENAI_BASE_URL": provider.base_url,
            "DATABASE_URL": spread_database.url,
            "TEXTLLM_RATE_LIMIT_PER_MINUTE": "1000",
        }
        async with open_textllm(load_settings(environ=environ, cwd=tmp_path)) as textllm:
            yield textllm, provider


Road = Callable[[TextLLM, OpenAIStandIn, Caller, str | None], Coroutine[Any, Any, None]]


async def talk(textllm: TextLLM, _provider: OpenAIStandIn, caller: Caller, user_id: str | None) -> None:
    """A new conversation and two further turns, and what is read beside them."""
    first = await textllm.send_message(caller, TextTurn("one", user_id=user_id))
    for text in ("two", "three"):
        await textllm.send_message(caller, TextTurn(text, first.conversation_id, user_id=user_id))
    if caller.user_id is not None:
        await textllm.conversations.get(caller, first.conversation_id)
        await textllm.conversations.messages(caller, first.conversation_id)
        await textllm.administration.get_session(caller, first.session_id)
        await textllm.conversations.list(caller)


async def stream(textllm: TextLLM, _provider: OpenAIStandIn, caller: Caller, user_id: str | None) -> None:
    """A reply with a journal, which is read again."""
    turn = TextTurn("Tell me.", user_id=user_id, is_resumable=True)
    async with aclosing(textllm.send_message.stream(caller, turn)) as events:
        said = [event async for event in events]
    assert isinstance(said[0], ReplyStarted)
    resumed = await textllm.resume_reply(caller, said[0].response_id)
    assert [event async for _, event in resumed.events][-1] == said[-1]


async def repeat(textllm: TextLLM, provider: OpenAIStandIn, caller: Caller, user_id: str | None) -> None:
    """A turn with an idempotency key, and the same again."""
    turn = TextTurn("Once.", user_id=user_id, idempotency=Idempotency(f"{caller.id}:{user_id}", "POST /chat", "print"))
    first = await textllm.send_message(caller, turn)
    asked = len(provider.responses)
    assert (await textllm.send_message(caller, turn)).response_id == first.response_id
    assert len(provider.responses) == asked


async def cancel(textllm: TextLLM, provider: OpenAIStandIn, caller: Caller, user_id: str | None) -> None:
    """A reply that is cut short."""
    provider.script(Reply(text="one two three", end="stall", end_after=2))
    async with aclosing(textllm.send_message.stream(caller, TextTurn("Go on.", user_id=user_id))) as events:
        async for event in events:
            if isinstance(event, ReplyStarted):
                response_id = event.response_id
            if isinstance(event, TextDelta):
                break
    await textllm.cancel_reply(caller, response_id)


async def release(textllm: TextLLM, provider: OpenAIStandIn, caller: Caller, user_id: str | None) -> None:
    """A turn that the provider refuses, in a conversation and as the first of one."""
    first = await textllm.send_message(caller, TextTurn("one", user_id=user_id))
    for conversation_id in (first.conversation_id, None):
        provider.script(Fault.http(400))
        with pytest.raises(TextLLMError):
            await textllm.send_message(caller, TextTurn("two", conversation_id, user_id=user_id))


async def respond(textllm: TextLLM, provider: OpenAIStandIn, caller: Caller, user_id: str | None) -> None:
    """Responses that can be asked for again, and one that the provider refuses."""
    conversation = await textllm.conversations.create(caller, user_id=user_id)
    for answers in (True, True, False):
        if not answers:
            provider.script(Fault.http(400))
        asked = ResponseTurn(content=(InputText("Go on."),), conversation_id=conversation.id, user_id=user_id)
        with nullcontext() if answers else pytest.raises(TextLLMError):
            await textllm.responses.create.answer(caller, asked)
    first = ResponseTurn(content=(InputText("Hello."),), user_id=user_id)
    await textllm.responses.create.answer(caller, first)


ROADS = pytest.mark.parametrize("road", [talk, stream, repeat, cancel, release, respond])


@ROADS
@pytest.mark.parametrize(("caller", "user_id"), [(ADA, None), (SERVICE, "bob")], ids=["users-key", "service-key"])
async def test_a_turn_of_a_user_touches_one_shard(
    spread_database: Spread, textllm: tuple[TextLLM, OpenAIStandIn], road: Road, caller: Caller, user_id: str | None
) -> None:
    async with watching(spread_database) as watched:
        await road(*textllm, caller, user_id)
    assert watched.tables() >= {"conversations", "holds", "sessions"}
    # Which says whose conversation a turn of `/chat` goes on in, but no more.
    by_id: dict[Road, set[str]] = {stream: {"holds", "reply_ends"}, respond: {"conversations"}}
    assert watched.across() == (by_id.get(road, set()) if caller is SERVICE else set())
    assert await written_across(spread_database, "ada", "bob") == []


@ROADS
async def test_where_no_user_is_named_an_id_is_looked_for_everywhere_and_the_key_is_charged_on_its_own_shard(
    spread_database: Spread, textllm: tuple[TextLLM, OpenAIStandIn], road: Road
) -> None:
    async with watching(spread_database) as watched:
        await road(*textllm, SERVICE, None)
    conversations, streams = {"conversations"}, {"holds", "reply_ends"}
    by_id: dict[Road, set[str]] = {talk: conversations, release: conversations, respond: conversations, stream: streams}
    assert watched.across(at_most=2) == by_id.get(road, set())
    charged = {relation for plan in watched.plans for relation in scans_of(plan) if relation.startswith("sessions")}
    assert charged == await places_of(spread_database, "sessions", "key_service")
