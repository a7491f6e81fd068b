"""Where the processes of one service count together. Who only starts them needs no prometheus_client for it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

SHARED_DIR: Final = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client's own; it looks for it when it is imported


@contextmanager
def shared_counters() -> Iterator[None]:
    """Let the processes that are started in the block count in one place, so that each can tell the sums."""
    with TemporaryDirectory(prefix="textllm-metrics-", ignore_cleanup_errors=True) as folder:
        held = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(held, fcntl.LOCK_SH)  # what tidies up old temporary files leaves a locked folder alone
            os.environ[SHARED_DIR] = folder
            yield
        finally:
            os.environ.pop(SHARED_DIR, None)
            os.close(held)


def forget_process(pid: int) -> None:
    """Take what a process that has ended had at the moment out of the sums; what it has counted stays in them.

    As prometheus_client's `mark_process_dead`: gauges of the modes that begin with "live" are those of the moment.
    """
    for file in Path(os.environ[SHARED_DIR]).glob(f"gauge_live*_{pid}.db"):
        file.unlink(missing_ok=True)
