"""The writer of a SQLite file: calls that wait share a commit, and nothing else."""

import asyncio
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest

from textllm_adapters.sql.conversation_repository import SqlConversationRepository
from textllm_adapters.sql.health_probe import SqlHealthProbe
from textllm_adapters.sqlite.engine import SqliteEngine
from textllm_adapters.sqlite.engine import open_engine as open_sqlite_engine
from textllm_adapters.sqlite.ledger import SqliteLedger
from textllm_adapters.sqlite.writer import SqliteWriter
from textllm_adapters.testing.books import empty_conversation, reservation, settlement
from textllm_core.errors import StorageUnavailableError

FORKING = """
import asyncio, os, sys
from textllm_adapters.sqlite.engine import open_engine

engine = open_engine(sys.argv[1])
add = lambda connection: connection.execute("INSERT INTO notes VALUES (?)", [os.getpid()]) and None
asyncio.run(engine.writer.run(add))
if sys.argv[2] == "closed":
    engine.writer.close()
child = os.fork()
asyncio.run(engine.writer.run(add))
engine.writer.close()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os._exit(0)
"""


class Notes:
    """A file with one table, its writer, and what that told SQLite."""

    def __init__(self, path: Path) -> None:
        self.path, self.told = path, list[str]()
        self.writer = SqliteWriter(self._connect, busy_timeout_s=5)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE notes (note TEXT UNIQUE)")

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=0, isolation_level=None)
        connection.set_trace_callback(self.told.append)
        return connection

    def kept(self) -> list[str]:
        with closing(sqlite3.connect(self.path)) as connection:
            return [row[0] for row in connection.execute("SELECT note FROM notes ORDER BY rowid")]

    async def add(self, note: str) -> str:
        return await self.writer.run(adding(note))

    async def hold_up(self) -> tuple["asyncio.Task[None]", threading.Event]:
        """Let all that is asked for from now on wait until the event is set."""
        begun, go_on = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def wait(connection: sqlite3.Connection) -> None:
            loop.call_soon_threadsafe(begun.set)
            assert go_on.wait(30)

        waiting = asyncio.create_task(self.writer.run(wait))
        await begun.wait()
        return waiting, go_on


def adding(*notes: str) -> Callable[[sqlite3.Connection], str]:
    def add(connection: sqlite3.Connection) -> str:
        for note in notes:
            connection.execute("INSERT INTO notes VALUES (?)", [note])
        return notes[-1]

    return add


@pytest.fixture
async def notes(tmp_path: Path) -> AsyncIterator[Notes]:
    notes = Notes(tmp_path / "notes.db")
    yield notes
    await asyncio.to_thread(notes.writer.close)


async def test_calls_that_wait_share_a_commit_and_keep_their_order(notes: Notes) -> None:
    first, go_on = await notes.hold_up()
    adding = [asyncio.create_task(notes.add(str(number))) for number in range(10)]
    await asyncio.sleep(0)  # so that all have asked
    go_on.set()
    assert await asyncio.gather(first, *adding) == [None, *map(str, range(10))]
    assert notes.kept() == [*map(str, range(10))]
    assert notes.told.count("COMMIT") == 2


async def test_what_fails_after_it_has_written_is_undone_alone(notes: Notes) -> None:
    first, go_on = await notes.hold_up()
    calls = [asyncio.create_task(notes.writer.run(adding(*some))) for some in (["a"], ["b", "a"], ["c"])]
    await asyncio.sleep(0)
    go_on.set()
    _, *results = await asyncio.gather(first, *calls, return_exceptions=True)
    assert (results[0], results[2]) == ("a", "c")
    assert isinstance(results[1], sqlite3.IntegrityError)
    assert notes.kept() == ["a", "c"]


async def test_a_refusal_costs_the_others_nothing(notes: Notes) -> None:
    def refuse(connection: sqlite3.Connection) -> None:
        raise ValueError("refused")

    first, go_on = await notes.hold_up()
    refused, added = asyncio.create_task(notes.writer.run(refuse)), asyncio.create_task(notes.add("a"))
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(first, added)
    with pytest.raises(ValueError, match="refused"):
        await refused
    assert notes.told.count("ROLLBACK") == 0


async def test_what_its_caller_no_longer_waits_for_is_done_all_the_same(notes: Notes) -> None:
    first, go_on = await notes.hold_up()
    cancelled = asyncio.create_task(notes.add("a"))
    await asyncio.sleep(0)
    cancelled.cancel()
    go_on.set()
    await asyncio.gather(first, notes.add("b"))
    assert notes.kept() == ["a", "b"]


async def test_closing_waits_for_all_that_was_asked_for(notes: Notes) -> None:
    first, go_on = await notes.hold_up()
    adding = [asyncio.create_task(notes.add(str(number))) for number in range(3)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(asyncio.to_thread(notes.writer.close))
    go_on.set()
    await asyncio.gather(first, closing)
    assert notes.kept() == ["0", "1", "2"]
    assert await asyncio.gather(*adding) == ["0", "1", "2"]
    assert await notes.add("later") == "later"  # as an engine that was disposed of opens again


def test_a_process_that_ends_while_calls_wait_leaves_a_whole_file(tmp_path: Path) -> None:
    notes = Notes(tmp_path / "notes.db")
    program = f"{FORKING.partition('if sys')[0]}os._exit(0)"
    subprocess.run([sys.executable, "-c", program, f"sqlite:///{notes.path}"], check=True)
    assert len(notes.kept()) == 1


@pytest.mark.parametrize("before", ["closed", "open"])
def test_a_fork_writes_where_the_file_was_closed_before_and_else_refuses_to(tmp_path: Path, before: str) -> None:
    notes = Notes(tmp_path / "notes.db")
    with closing(sqlite3.connect(notes.path)) as connection:
        connection.executescript("DROP TABLE notes; CREATE TABLE notes (note TEXT)")
    forked = subprocess.run(
        [sys.executable, "-c", FORKING, f"sqlite:///{notes.path}", before],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert len(notes.kept()) == (3 if before == "closed" else 2)
    assert forked.returncode == (0 if before == "closed" else 1)
    assert ("close it before" in forked.stderr) == (before == "open")


async def test_a_full_disk_is_an_outage_and_over_when_there_is_room(sqlite_engine: SqliteEngine) -> None:
    def fill(connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")

    ledger = SqliteLedger(sqlite_engine)
    hold = await ledger.reserve(reservation())
    await sqlite_engine.writer.run(fill)  # of this connection alone, as long as it is open
    holds = [ledger.reserve(reservation(model="a" * 10_000)) for _ in range(50)]
    results = await asyncio.gather(*holds, return_exceptions=True)
    assert any(isinstance(result, StorageUnavailableError) for result in results)
    assert not any(isinstance(result, sqlite3.Error) for result in results)
    await ledger.reserve(reservation(model="a" * 10_000))
    assert await ledger.settle(hold, settlement()) is not None


async def test_a_file_that_cannot_be_written_is_an_outage(sqlite_engine: SqliteEngine) -> None:
    ledger = SqliteLedger(sqlite_engine)
    hold = await ledger.reserve(reservation())
    await sqlite_engine.writer.run(lambda connection: connection.execute("PRAGMA query_only = ON") and None)
    with pytest.raises(StorageUnavailableError):
        await ledger.settle(hold, settlement())
    assert await ledger.settle(hold, settlement()) is not None  # by a new connection


async def test_while_another_process_writes_nobody_waits_for_longer_than_his_own_time(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Time:
        now, asked = 0.0, 0

        def monotonic(self) -> float:
            return self.now

        def sleep(self, seconds: float) -> None:
            self.now += seconds

    time = Time()
    monkeypatch.setattr("textllm_adapters.sqlite.writer.time", time)

    async def rarely() -> None:
        async with notes.writer.pause():
            raise AssertionError("another process writes")

    with closing(sqlite3.connect(notes.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        asking = [each for number in range(10) for each in (rarely(), notes.add(str(number)))]
        errors = await asyncio.gather(*asking, return_exceptions=True)
    assert {getattr(error, "sqlite_errorname", error) for error in errors} == {"SQLITE_BUSY"}
    assert 5 <= time.now < 5.1
    assert await notes.add("later") == "later"


async def test_of_calls_that_wait_for_another_process_the_first_gives_up_first(notes: Notes) -> None:
    notes.writer._busy_timeout_s = 0.05
    with closing(sqlite3.connect(notes.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        first = asyncio.create_task(notes.add("a"))
        await asyncio.sleep(0)
        notes.writer._busy_timeout_s = 60
        second = asyncio.create_task(notes.add("b"))
        with pytest.raises(sqlite3.OperationalError):
            await first
        assert not second.done()
        other.execute("ROLLBACK")
        assert await second == "b"
    assert notes.kept() == ["b"]


async def test_who_waits_for_another_process_keeps_nobody_from_reading(sqlite_url: str) -> None:
    engine = open_sqlite_engine(sqlite_url, busy_timeout_s=60)
    repository = SqlConversationRepository(engine)
    known = await repository.add("tenant", empty_conversation("Hello"), keeps_messages=True)
    with closing(sqlite3.connect(sqlite_url.partition("///")[2], isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        adding = [
            asyncio.create_task(repository.add("tenant", empty_conversation("Hi"), keeps_messages=True))
            for _ in range(10)
        ]
        await asyncio.sleep(0.05)  # so that all have begun to wait, where they would take connections along
        async with asyncio.timeout(30):
            assert await repository.get("tenant", known.id) is not None
        assert not any(task.done() for task in adding)
        other.execute("ROLLBACK")
        assert len(await asyncio.gather(*adding)) == 10
    await engine.dispose()


async def test_what_is_rarely_written_gets_its_turn_among_what_always_is(sqlite_url: str) -> None:
    engine = open_sqlite_engine(sqlite_url, busy_timeout_s=0.001)  # who does not get a turn fails at once
    ledger, repository = SqliteLedger(engine), SqlConversationRepository(engine)
    is_over = False

    async def spend() -> None:
        while not is_over:
            await ledger.release(await ledger.reserve(reservation()))

    spending = [asyncio.create_task(spend()) for _ in range(8)]
    for _ in range(20):
        await repository.add("tenant", empty_conversation("Hello"), keeps_messages=True)
        assert await SqlHealthProbe(engine).check() is None
    is_over = True
    await asyncio.gather(*spending)
    await engine.dispose()


async def test_writers_of_several_processes_take_turns(sqlite_url: str) -> None:
    engines = [open_sqlite_engine(sqlite_url) for _ in range(3)]
    ledgers = [SqliteLedger(engine) for engine in engines]

    async def spend(ledger: SqliteLedger) -> None:
        for _ in range(10):
            await ledger.settle(await ledger.reserve(reservation(cost="1", limit="200")), settlement(cost="1"))

    await asyncio.gather(*[spend(ledger) for ledger in ledgers for _ in range(4)])
    assert sum(entry.cost for entry in await ledgers[0].entries("tenant", "user")) == 120
    for engine in engines:
        await engine.dispose()
