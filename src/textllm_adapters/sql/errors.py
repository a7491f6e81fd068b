"""The table from SQLAlchemy's exceptions to ours."""

import logging
import sqlite3
from typing import Final

from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from textllm_adapters.translation import ErrorTable
from textllm_core.errors import StorageUnavailableError

READ_ONLY: Final = "25006"  # a standby, or a primary on its way down
_logger: Final = logging.getLogger("textllm")

# SQLSTATE classes and codes which say that the server cannot do now what it could do at another time.
_SQLSTATES: Final = (
    "08",  # connection exceptions
    READ_ONLY,
    "26000",  # a prepared statement that another session has, by a pooler which keeps none for its clients
    "40",  # rolled back: deadlock, serialization failure
    "42P05",  # the same, the other way round
    "53",  # insufficient resources: disk full, too many connections
    "55P03",  # lock not available
    "57",  # operator intervention: shutdown, starting up, statement timeout
    "58",  # system errors: I/O
)
_SQLITE_CODES: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CORRUPT,  # the log names it; what is damaged is an outage until it is restored
        sqlite3.SQLITE_NOTADB,
    }
)


def _unavailable(error: Exception) -> StorageUnavailableError:
    _logger.warning("the database does not answer: %s", type(error).__name__)
    return StorageUnavailableError.of_database()


def _of_driver(error: DBAPIError) -> StorageUnavailableError | None:
    sqlstate = getattr(error.orig, "sqlstate", None) or ""
    sqlite_code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF  # the low byte is the primary code
    if error.connection_invalidated or sqlstate.startswith(_SQLSTATES) or sqlite_code in _SQLITE_CODES:
        # Their texts quote what was written.
        named = f"SQLSTATE {sqlstate}" if sqlstate else getattr(error.orig, "sqlite_errorname", "the connection broke")
        _logger.warning("the database does not answer, or takes no writes: %s", named)
        return StorageUnavailableError.of_database()
    return None


def _of_sqlite(error: sqlite3.Error) -> StorageUnavailableError | None:
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in _SQLITE_CODES:
        _logger.warning("the database does not answer, or takes no writes: %s", error.sqlite_errorname)
        return StorageUnavailableError.of_database()
    return None


STORAGE_ERRORS: Final[ErrorTable] = {
    sqlite3.Error: _of_sqlite,
    DBAPIError: _of_driver,
    DisconnectionError: _unavailable,
    PoolTimeoutError: _unavailable,
    OSError: _unavailable,  # no connection; and TimeoutError: no answer
}
