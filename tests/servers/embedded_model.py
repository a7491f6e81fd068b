"""The real model file for tests, fetched once for each user of this machine and kept in the user's cache."""

import fcntl
from pathlib import Path

from platformdirs import user_cache_path

from textllm_adapters.embedded.model_file import ensure_model


def cached_model() -> Path:
    """The path of the model. The lock is so that parallel test processes do not each fetch it."""
    folder = user_cache_path("textllm-tests", ensure_exists=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return ensure_model(folder)
