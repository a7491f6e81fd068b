"""The table from SQLAlchemy's exceptions to ours, and what whoever runs the database is to do about each."""

import logging
import re
import sqlite3
from collections.abc import Mapping
from typing import Final, NamedTuple, Self

from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from textllm_adapters.translation import ErrorTable
from textllm_core.errors import StorageUnavailableError

READ_ONLY: Final = "25006"  # a standby, or a primary on its way down
_logger: Final = logging.getLogger("textllm")

_GONE: Final = "see whether the server in DATABASE_URL is up, and can be reached from here"
_OTHER_TABLES: Final = (
    "its tables are not those of this version: see `textllm db check`, and run `textllm db upgrade`; where somebody "
    "has restored or changed it, see whether all of it is there"
)
_POOLER: Final = (
    "the pooler before PostgreSQL keeps no prepared statements: set max_prepared_statements = 200 in PgBouncer, of "
    "version 1.21 or newer"
)
_ITS_LOG: Final = "see the log of PostgreSQL"
# SQLSTATE classes and codes for which no statement of ours is to blame: the server cannot do it now, or as it is set
# up. Of those that fit, the first. All others are defects of ours.
_SQLSTATES: Final[Mapping[str, str]] = {
    "08": _GONE,
    "0A000": "its tables were changed under way, which passes; else this server cannot do what PostgreSQL 15 can",
    READ_ONLY: "the server takes no writes: let DATABASE_URL name the primary, or all hosts of the pair",
    "25P03": "it ends transactions that pause for too short a time: raise idle_in_transaction_session_timeout",
    "25P04": "it ends transactions after too short a time: raise transaction_timeout",
    "26000": _POOLER,  # a prepared statement that another session has
    "28": "it refuses the role or the password in DATABASE_URL, which it took before",
    "3D000": "the database that DATABASE_URL names is there no more",
    "3F000": _OTHER_TABLES,
    "40": "transactions were in each other's way, which passes",
    "42501": "the role in DATABASE_URL has not every right that it needs: let it own the tables, or grant it SELECT, "
    "INSERT, UPDATE and DELETE on all of them",
    "42703": _OTHER_TABLES,  # a column
    "42704": _OTHER_TABLES,  # a type
    "42809": _OTHER_TABLES,  # a view in the place of a table
    "42883": _OTHER_TABLES,  # a function
    "42P01": _OTHER_TABLES,  # a table
    "42P05": _POOLER,
    "42P10": _OTHER_TABLES,  # a unique index
    "53100": "its disk is full: make room on it",
    "53200": "it has no memory left: give it more, or lower work_mem or max_connections",
    "53300": "it has as many connections as it may: raise max_connections, or put PgBouncer before it",
    "53": f"it has run out of something: {_ITS_LOG}",
    "54": f"it has reached a limit of its own, such as its transaction ids, which VACUUM frees: {_ITS_LOG}",
    "55": "somebody keeps a lock on what is needed: see pg_stat_activity",
    "57": "it is starting, stopping, or was told to end what took too long",
    "58": f"it cannot read or write its files: {_ITS_LOG}",
    "72": f"it has given up what a statement still had to read: {_ITS_LOG}",
    "F0": f"its own settings are wrong: {_ITS_LOG}",
    "P0": f"a trigger or a function in the database, which is none of ours, refuses it: {_ITS_LOG}",
    "XX": f"it, or what it keeps, is damaged: {_ITS_LOG}",
}
_DAMAGED: Final = "its file is damaged, or none of SQLite's: restore a backup"
_NO_ACCESS: Final = "its file, or the folder of it, cannot be opened or written: see its owner, its rights and the disk"
_SQLITE_CODES: Final[Mapping[int, str]] = {
    sqlite3.SQLITE_BUSY: "another process writes to its file for too long",
    sqlite3.SQLITE_LOCKED: "another process writes to its file for too long",
    sqlite3.SQLITE_NOMEM: "this machine has no memory left",
    sqlite3.SQLITE_PERM: _NO_ACCESS,
    sqlite3.SQLITE_AUTH: _NO_ACCESS,
    sqlite3.SQLITE_IOERR: _NO_ACCESS,
    sqlite3.SQLITE_CANTOPEN: _NO_ACCESS,
    sqlite3.SQLITE_READONLY: _NO_ACCESS,
    sqlite3.SQLITE_READONLY_DBMOVED: "its file was moved, deleted or replaced: bring it back, or start again",
    sqlite3.SQLITE_PROTOCOL: "its file is on a disk that keeps no locks, such as one of a network",
    sqlite3.SQLITE_NOLFS: "its file has grown larger than its disk allows",
    sqlite3.SQLITE_FULL: "its disk is full: make room on it",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_FORMAT: _DAMAGED,
    sqlite3.SQLITE_SCHEMA: _OTHER_TABLES,
}
_CHECKS_ROWS: Final = "ExecWithCheckOptions"  # within PostgreSQL; its messages are in the language of the server
_LACKS: Final = re.compile(r"no such (table|column): |table \S+ has no column named ")  # SQLite has no code for it


class Ailment(NamedTuple):
    """What ails a database: its name, without anything that was written, and what is to be done."""

    name: str
    advice: str

    @classmethod
    def of(cls, error: BaseException) -> Self | None:
        """What ails the database from which the error comes; None where a statement of ours is to blame."""
        if _writes_for_others(error):
            return None
        for cause in (error, getattr(error, "orig", None), error.__cause__):
            if sqlstate := getattr(cause, "sqlstate", None):
                advice = next((_SQLSTATES[known] for known in _SQLSTATES if sqlstate.startswith(known)), None)
                if advice is not None:
                    return cls(f"SQLSTATE {sqlstate}", advice)
            if isinstance(cause, sqlite3.Error):
                code = getattr(cause, "sqlite_errorcode", 0)
                for known in (code, code & 0xFF):  # its low byte is the primary one
                    if known in _SQLITE_CODES:
                        return cls(cause.sqlite_errorname, _SQLITE_CODES[known])
                if _LACKS.match(str(cause)):
                    return cls("a table or a column is missing", _OTHER_TABLES)
        if isinstance(error, PoolTimeoutError):
            return cls("all connections are in use", "it answers too slowly for what is asked of it")
        is_broken = isinstance(error, DBAPIError) and error.connection_invalidated
        is_unreachable = isinstance(error, DisconnectionError | OSError)
        return cls.of_loss(error) if is_broken or is_unreachable else None

    @classmethod
    def of_loss(cls, error: BaseException) -> Self:
        """Its connection broke, or none could be had."""
        return cls(type(error).__name__, _GONE)

    def log(self) -> None:
        _logger.warning("the database does not answer, or does not do what it is asked (%s): %s", *self)

    def told(self) -> StorageUnavailableError:
        """The error that callers get; its note is for who runs the service, as the log is."""
        told = StorageUnavailableError.of_database()
        told.add_note(f"Why ({self.name}): {self.advice}.")
        return told


def _writes_for_others(error: BaseException | None) -> bool:
    """Whether it wrote a row of another tenant. PostgreSQL has one SQLSTATE for that and for a right it lacks."""
    while error is not None:
        if getattr(error, "server_source_function", None) == _CHECKS_ROWS:
            return True
        error = error.__cause__
    return False


def _unavailable(error: Exception) -> StorageUnavailableError | None:
    if (ails := Ailment.of(error)) is None:
        return None
    ails.log()
    return ails.told()


STORAGE_ERRORS: Final[ErrorTable] = {
    sqlite3.Error: _unavailable,
    DBAPIError: _unavailable,
    DisconnectionError: _unavailable,
    PoolTimeoutError: _unavailable,
    OSError: _unavailable,  # no connection; and TimeoutError: no answer
}
