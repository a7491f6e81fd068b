"""A log file that several processes write to, and that begins anew when it is full."""

import logging
import os
from io import TextIOWrapper
from pathlib import Path
from typing import Final

_MODE: Final = 0o640  # read by whoever collects logs, and by nobody else


class SharedRotatingFile(logging.FileHandler):
    """Appends to `path`; full ones become `path.1`, the newest, to `path.<kept>`.

    Each line is one write at the file's end, which the system does whole (POSIX: O_APPEND), so that lines of several
    processes do not mix. Who finds the file full renames it under a lock, once; the others see that their file has
    another name now, and open the new one. A line written meanwhile is in the renamed file, and none is lost.

    Args:
        max_bytes: from which size on a file is full.
        kept: how many full ones are kept.
    """

    def __init__(self, path: Path, *, max_bytes: int, kept: int) -> None:
        super().__init__(path, encoding="utf-8")
        self._path, self._max_bytes, self._kept = path, max_bytes, kept

    def _open(self) -> TextIOWrapper:
        """The file, made for its owner and group alone: it tells who asked for what, and when."""
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, mode=_MODE)
        self._opened = os.fstat(descriptor)
        return os.fdopen(descriptor, "a", encoding=self.encoding)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, to a new file where it is time."""
        try:
            found = self._found()
            if found is not None and found.st_size >= self._max_bytes:
                self._rotate()
                found = self._found()
            if found is None or not os.path.samestat(found, self._opened):
                former = self.setStream(self._open())
                if former is not None:
                    former.close()
        except OSError:
            self.handleError(record)  # it grows on where it is
        super().emit(record)

    def _found(self) -> os.stat_result | None:
        """What has the file's name now."""
        try:
            return os.stat(self.baseFilename)  # noqa: PTH116 - as cheap as can be, for each line
        except FileNotFoundError:
            return None

    def _rotate(self) -> None:
        import fcntl  # not there on Windows, where no server runs

        with open(self._numbered("lock"), "a", opener=_for_owner_and_group) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = self._found()
            if found is None or found.st_size < self._max_bytes:  # another process was faster
                return
            for number in range(self._kept - 1, 0, -1):
                if (older := self._numbered(str(number))).exists():
                    older.replace(self._numbered(str(number + 1)))
            self._path.replace(self._numbered("1"))

    def _numbered(self, suffix: str) -> Path:
        return self._path.with_name(f"{self._path.name}.{suffix}")


def _for_owner_and_group(path: str, flags: int) -> int:
    return os.open(path, flags, mode=_MODE)
