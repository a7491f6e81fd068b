"""Ends work that takes too much of the processor, and not the process with it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class TookTooLongError(BaseException):
    """Work took more than its share. No `except Exception` of a library takes it for a fault of a file."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """End the block once the process has spent so much more of the processor's time. For the main thread alone.

    Raises:
        TookTooLongError: it was ended.
    """

    def end(*_: object) -> None:
        raise TookTooLongError

    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
