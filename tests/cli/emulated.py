"""A program on a terminal that shows what a person would see: an emulator behind a pseudo-terminal."""

import fcntl
import os
import signal
import struct
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyte
from tests.cli.terminal import PATIENCE_S, Terminal

UP, PASTE, PASTED = b"\x1b[A", b"\x1b[200~", b"\x1b[201~"


class _Answering(pyte.Screen):
    """A screen that answers what programs ask of a terminal, such as where its cursor is."""

    def __init__(self, columns: int, lines: int, answer: Callable[[bytes], None]) -> None:
        super().__init__(columns, lines)
        self._answer = answer

    def write_process_input(self, data: str) -> None:
        self._answer(data.encode())


class Emulated(Terminal):
    """A program, and the screen of its terminal."""

    def __init__(
        self, arguments: list[str], environment: dict[str, str], *, columns: int, lines: int, **options: Any
    ) -> None:
        super().__init__(arguments, {**environment, "COLUMNS": "", "LINES": ""}, **options)  # the terminal says it
        self.screen = _Answering(columns, lines, self.press)
        self._stream = pyte.ByteStream(self.screen)
        self.resize(columns, lines)

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.screen.resize(lines, columns)
        os.killpg(self.process.pid, signal.SIGWINCH)

    def paste(self, text: str) -> None:
        self.press(PASTE + text.replace("\n", "\r").encode() + PASTED)

    @property
    def text(self) -> str:
        """What stands on the screen, without what follows the last text of a line."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    def wait_for(self, text: str, *, within_s: float = PATIENCE_S) -> float:
        """Wait until `text` stands on the screen; how long that took in seconds."""
        return self.wait_until(lambda shown: text in shown, within_s=within_s)

    def wait_for_prompt(self) -> float:
        """Wait until an empty prompt stands in the last line."""
        return self.wait_until(lambda shown: shown.splitlines()[-1:] == [">"])

    def wait_until(self, is_shown: Callable[[str], bool], *, within_s: float = PATIENCE_S) -> float:
        begun = time.monotonic()
        while not is_shown(self.text):
            left = begun + within_s - time.monotonic()
            assert left > 0, f"it never came:\n{self.text}"
            self._read(patience_s=min(left, 0.5))
        return time.monotonic() - begun

    def _read(self, patience_s: float | None = None) -> bool:
        before = len(self.seen)
        is_open = super()._read(patience_s)
        self._stream.feed(self.seen[before:].encode())
        return is_open


@contextmanager
def emulated(
    arguments: list[str], environment: dict[str, str], *, columns: int = 80, lines: int = 24, **options: Any
) -> Iterator[Emulated]:
    program = Emulated(arguments, environment, columns=columns, lines=lines, **options)
    try:
        yield program
    finally:
        program.close()
