"""Lines that come through a pipe, or from a terminal that can do no more, and replies printed as they come."""

from __future__ import annotations

import asyncio
import io
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from queue import Empty, SimpleQueue

from textllm_cli.chat.keyboard import Interrupted
from textllm_cli.render import Screen


class PipedLines:
    """Lines from stdin and Ctrl-C, for a coroutine that runs in another thread.

    A blocking read must hold up no reply, and Python delivers Ctrl-C to the main thread alone: so `serve` is for that.
    """

    def __init__(self) -> None:
        self._asked: SimpleQueue[Future[str] | None] = SimpleQueue()
        self._on_interrupt: list[Callable[[], object]] = []
        self._is_reading = False
        self._is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
        if isinstance(sys.stdin, io.TextIOWrapper):  # what is no text is then refused as a turn
            sys.stdin.reconfigure(encoding="utf-8-sig", errors="surrogateescape")

    async def line(self, prompt: str, *, draft: str = "") -> str:
        """As `Keyboard` has it; a draft is sent as it is."""
        if draft:
            return draft
        if self._is_terminal:
            sys.stdout.write(prompt)
            sys.stdout.flush()
        answer: Future[str] = Future()
        self._asked.put(answer)
        return await asyncio.wrap_future(answer)

    @contextmanager
    def interrupting(self, act: Callable[[], object], *, holds_back: bool = False) -> Iterator[None]:  # noqa: ARG002
        """As `Keyboard` has it; the innermost block counts. What comes through a pipe is meant."""
        loop = asyncio.get_running_loop()
        self._on_interrupt.append(lambda: loop.call_soon_threadsafe(act))
        try:
            yield
        finally:
            self._on_interrupt.pop()

    def tell(self, show: Callable[[], None]) -> None:
        """As `Keyboard` has it."""
        show()

    def close(self) -> None:
        """End `serve`."""
        self._asked.put(None)

    def serve(self) -> None:
        """Read lines as they are asked for, until `close`. For the main thread."""
        before = signal.signal(signal.SIGINT, self._interrupt)
        try:
            while True:
                try:  # a signal in the instant before a wait is only seen after it: so no wait is a long one
                    answer = self._asked.get(timeout=0.1)
                except Empty:
                    continue
                if answer is None:
                    return
                try:
                    line = self._read()
                except KeyboardInterrupt:
                    answer.set_exception(Interrupted())
                except (EOFError, OSError) as error:
                    answer.set_exception(error)
                else:
                    answer.set_result(line)
        finally:
            signal.signal(signal.SIGINT, before)

    def _interrupt(self, *_: object) -> None:
        if self._is_reading:
            self._is_reading = False
            raise KeyboardInterrupt  # the one way out of a blocking read
        if self._on_interrupt:
            self._on_interrupt[-1]()

    def _read(self) -> str:
        """A line; one that ends in a backslash goes on in the next."""
        self._is_reading = True
        try:
            text = ""
            while line := sys.stdin.readline():
                text += line.removesuffix("\n")
                if not text.endswith("\\"):
                    return text
                text = text[:-1] + "\n"
            if not text:
                raise EOFError
            return text
        finally:
            self._is_reading = False


class PlainPage:
    """Prints a reply as it comes."""

    def __init__(self, screen: Screen) -> None:
        self._screen, self._is_open = screen, False

    def begin(self) -> None:
        self._is_open = True

    def delta(self, text: str) -> None:
        if self._is_open and not self._screen.as_json:
            self._screen.delta(text)

    def end(self) -> None:
        self._is_open = False
        self._screen.end_text()
