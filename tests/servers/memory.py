"""Where to keep what need not outlive the tests: in memory a commit waits for no disk, and a file is soon made."""

import os
import shutil
from pathlib import Path

SPARE_BYTES = 2 * 1024**3  # a run takes some 300 MB for each of its servers, and 100 MB beside them, kept three times


def folder_in_memory() -> Path | None:
    """Where folders can be made that are kept in memory, if there is plenty of it."""
    memory = Path("/dev/shm")  # of Linux
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > SPARE_BYTES:
        return memory
    return None
