"""Real processes, on pipes or on a terminal of their own."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = [sys.executable, str(Path(__file__).with_name("app_over_memory.py"))]
PATIENCE_S = 60  # a hang fails; nothing else depends on it
CTRL_C = b"\x03"
CTRL_D = b"\x04"


class World:
    """What the programs of one test share: the script, the gate and the ledger."""

    def __init__(self, folder: Path) -> None:
        self._gate, self._ledger = folder / "gate", folder / "ledger"

    def environment(self, replies: list[list[str]], *, gated: bool, **more: str) -> dict[str, str]:
        names = {"TEXTLLM_TEST_REPLIES": json.dumps(replies), "TEXTLLM_TEST_LEDGER": str(self._ledger)}
        gate = {"TEXTLLM_TEST_GATE": str(self._gate)} if gated else {}
        return os.environ | {"TERM": "xterm"} | names | gate | more

    def open_gate(self) -> None:
        """Let replies go on behind their first delta."""
        self._gate.touch()

    def ledger(self) -> list[dict[str, Any]]:
        """The entries that the program left."""
        return [json.loads(line) for line in self._ledger.read_text().splitlines()]


class Terminal:
    """A program whose three streams are one terminal."""

    def __init__(
        self, arguments: list[str], environment: dict[str, str], program: Sequence[str] = PROGRAM, **streams: Any
    ) -> None:
        self._master, slave = pty.openpty()
        at = {"stdin": slave, "stdout": slave, "stderr": slave} | streams
        self.process = subprocess.Popen([*program, *arguments], env=environment, start_new_session=True, **at)
        os.close(slave)
        self.seen = ""
        self._read_for = 0

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def read_until(self, text: str) -> None:
        """Read until `text` stands on the screen, behind what was read for before."""
        deadline = time.monotonic() + PATIENCE_S
        while (found := self.seen.find(text, self._read_for)) < 0:
            assert time.monotonic() < deadline, f"{text!r} never came: {self.seen!r}"
            assert self._read(), f"{text!r} did not come: {self.seen!r}"
        self._read_for = found + len(text)

    def interrupt_until(self, text: str) -> None:
        """Press Ctrl-C until `text` stands on the screen: readline misses it while it shows its prompt."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.seen:
            assert time.monotonic() < deadline, f"{text!r} never came: {self.seen!r}"
            self.press(CTRL_C)
            while text not in self.seen and self._read(patience_s=2):
                pass

    def end(self) -> int:
        """Read the rest; the return code."""
        while self._read():
            pass
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self._master)

    def _read(self, patience_s: float | None = None) -> bool:
        """Read what comes next; False at the end, and after a silence of `patience_s`, which else is a failure."""
        ready, _, _ = select.select([self._master], [], [], patience_s or PATIENCE_S)
        if not ready:
            assert patience_s is not None, f"nothing more came: {self.seen!r}"
            return False
        try:
            content = os.read(self._master, 65536)
        except OSError:  # Linux's way to say that nobody holds the other end any more
            return False
        self.seen += content.decode()
        return bool(content)


@contextmanager
def terminal(arguments: list[str], environment: dict[str, str], **streams: Any) -> Iterator[Terminal]:
    program = Terminal(arguments, environment, **streams)
    try:
        yield program
    finally:
        program.close()
