"""Connections to a SQLite file: those of aiosqlite, to read and for what is rarely written, and the writer."""

import asyncio
import sqlite3
import time
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, Final
from weakref import WeakSet

import aiosqlite
from sqlalchemy import Connection, event, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from textllm_adapters.sql.opening import Opening
from textllm_adapters.sqlite.opened_file import OpenedFile
from textllm_adapters.sqlite.rows import from_json, to_json
from textllm_adapters.sqlite.writer import SqliteWriter
from textllm_core.errors import ConfigurationError

_BUSY_TIMEOUT_S: Final = 5  # another process that writes, such as the command line, takes milliseconds
_POOL_TIMEOUT_S: Final = 10  # twice as long as whoever has a connection may wait for the file
_POOL_SIZE: Final = 5


class SqliteEngine(AsyncEngine):
    """An engine, and the writer of its file; both end when it is disposed of.

    So do the connections' threads, also those of work that was cancelled: one that outlived the event loop would find
    nobody to tell its result, and complain on stderr.
    """

    __slots__ = ("_threads", "opening", "writer")

    def __init__(self, engine: AsyncEngine, threads: WeakSet[Thread], writer: SqliteWriter, opening: Opening) -> None:
        super().__init__(engine.sync_engine)
        self._threads, self.writer, self.opening = threads, writer, opening

    def pause(self) -> AbstractAsyncContextManager[None]:
        return self.writer.pause()

    async def dispose(self, close: bool = True) -> None:
        await asyncio.to_thread(self.writer.close)
        await super().dispose(close)
        await asyncio.to_thread(_join, list(self._threads))


def open_engine(url: str, *, busy_timeout_s: float = _BUSY_TIMEOUT_S) -> SqliteEngine:
    """An engine for `sqlite:///PATH`; the file, for its owner's eyes alone, and its folder are made.

    The caller disposes of it.

    Args:
        busy_timeout_s: how long to wait while another process writes.
    Raises:
        ConfigurationError: the file cannot be made, or is something else.
    """
    database = make_url(url).set(drivername="sqlite+aiosqlite")
    path = Path(database.database or "")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)  # what SQLite puts beside it gets the same mode
        file = OpenedFile(path)
    except OSError as error:
        raise ConfigurationError(f"The database {path} cannot be opened: {error.strerror}.") from error
    if path.is_dir():
        raise ConfigurationError(f"The database {path} is a directory; DATABASE_URL must name a file.")
    # It is not read here to see what it is: to close it would take away all locks that this process has on it, and
    # another process would then remove the log in which this one goes on writing (sqlite.org, "How To Corrupt").
    threads: WeakSet[Thread] = WeakSet()
    opening = Opening()

    def connect(*args: Any, **options: Any) -> aiosqlite.Connection:
        opening.check()
        file.check()
        connection = aiosqlite.connect(*args, **options)
        connection._thread.daemon = True  # as SQLAlchemy would do: a forgotten one keeps no process alive
        threads.add(connection._thread)
        return connection

    engine = create_async_engine(
        database,
        connect_args={"timeout": busy_timeout_s, "async_creator_fn": connect},
        pool_size=_POOL_SIZE,
        max_overflow=0,  # more connections would only wait for each other, and not in turn
        pool_timeout=_POOL_TIMEOUT_S,
        hide_parameters=True,
        json_serializer=to_json,
        json_deserializer=from_json,
    )
    event.listen(engine.sync_engine, "connect", _configure)
    event.listen(engine.sync_engine, "begin", partial(_begin, file))
    connect_writer = partial(_connect, path, busy_timeout_s, opening)
    writer = SqliteWriter(connect_writer, busy_timeout_s=busy_timeout_s, check=file.check)
    return SqliteEngine(engine, threads, writer, opening)


def _connect(path: Path, busy_timeout_s: float, opening: Opening) -> sqlite3.Connection:
    """The writer's connection."""
    opening.check()
    connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None)  # its transactions are its own
    _configure(connection, None)
    connection.execute("PRAGMA busy_timeout = 0")  # it waits in its own way from here on
    return connection


def _join(threads: list[Thread]) -> None:
    """Wait for their ends, for as long as a statement may take."""
    deadline = time.monotonic() + _BUSY_TIMEOUT_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def _configure(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")  # these are books: what was committed survives a power cut
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()
    connection.create_function("lower", 1, _lower, deterministic=True)


def _lower(text: str | None) -> str | None:
    """Every alphabet in small letters, as PostgreSQL has it: SQLite's own `lower` knows only A to Z."""
    return None if text is None else text.lower()


def _begin(file: OpenedFile, connection: Connection) -> None:
    """Take the write lock at once: a transaction that reads first and writes later could be refused half-way."""
    file.check()
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
