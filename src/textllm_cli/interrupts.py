"""What commands run, and how Ctrl-C ends it."""

import asyncio
import signal
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def interruptibly(work: Coroutine[Any, Any, T]) -> T:
    """What the coroutine returns. Ctrl-C cancels it, so that it can settle what it has begun; before, nothing had."""
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which asyncio puts its own in the place of
    return asyncio.run(work)
