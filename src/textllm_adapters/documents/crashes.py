"""Reading that goes on behind a page on which a library crashes. Runs in the child alone.

A crash ends a process and all that it has read, so reading is done by a copy of the child; the child itself waits.
"""

import mmap
import os
import signal
import sys
from collections.abc import Callable
from typing import Final

_CRASHES: Final = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP})
_MOST: Final = 3  # after each, the pages before are read again
_SIZE: Final = 4  # bytes of a page's number


class CrashedPages:
    """Which pages crash, and which one is being read: shared by the child and its copies.

    Attributes:
        pages: the indices of pages that no copy shall read in the same way again.
        is_hopeless: nor any other page: it crashes when the file is opened, or too often.
    """

    def __init__(self) -> None:
        self.pages: set[int] = set()
        self.is_hopeless = False
        self._begun = mmap.mmap(-1, _SIZE)

    def begin(self, index: int) -> None:
        """This page is read from now on."""
        self._begun[:] = (index + 1).to_bytes(_SIZE, "big")

    def crash(self) -> None:
        """A copy has died of what it had begun."""
        number = int.from_bytes(self._begun[:], "big")
        self.is_hopeless = number == 0 or len(self.pages) == _MOST
        self.pages.add(number - 1)
        self._begun[:] = bytes(_SIZE)


def outlive(work: Callable[[], object], crashed: CrashedPages) -> None:
    """Do it in a copy of this process, once more after each crash; end as the last copy did."""
    while True:
        copy = os.fork()
        if not copy:
            try:
                work()
            finally:
                os._exit(0 if sys.exc_info()[0] is None else 1)
        _, status = os.waitpid(copy, 0)
        if not os.WIFSIGNALED(status):
            os._exit(os.WEXITSTATUS(status))
        if os.WTERMSIG(status) not in _CRASHES or crashed.is_hopeless:
            os.kill(os.getpid(), os.WTERMSIG(status))
        crashed.crash()
