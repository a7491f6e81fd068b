"""Whether what is written still gets where it will be looked for."""

import sqlite3
from pathlib import Path


class OpenedFile:
    """A database file as it was found. One that was moved, deleted or replaced since is written to by nobody.

    What is written into such a file is told as done, and gone with the process. SQLite itself looks only where it
    keeps no write-ahead log.
    """

    def __init__(self, path: Path) -> None:
        """
        Raises:
            OSError: there is no such file.
        """
        self._path, self._inode = path, path.stat().st_ino

    def check(self) -> None:
        """
        Raises:
            sqlite3.OperationalError: it is not there any more, or another one is; until it is back.
        """
        try:
            is_there = self._path.stat().st_ino == self._inode
        except OSError:
            is_there = False
        if not is_there:
            error = sqlite3.OperationalError("the database file was moved, deleted or replaced")
            error.sqlite_errorcode = sqlite3.SQLITE_READONLY_DBMOVED
            error.sqlite_errorname = "SQLITE_READONLY_DBMOVED"
            raise error
