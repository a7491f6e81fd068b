"""The chat that reads turn after turn."""

from __future__ import annotations

import asyncio
import io
import re
import shlex
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, aclosing, contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

from textllm_cli.engine import Talk
from textllm_cli.render import Screen, dollars
from textllm_cli.speaking import Said, Speaker
from textllm_cli.uploads import upload_of
from textllm_core.errors import InvalidRequestError, TextLLMError
from textllm_core.records.messages import Reply, ReplyCompleted, ReplyEvent, ReplyFailed, ReplyStarted, TextDelta

HELP: Final = """\
/new                start a new conversation
/image PATH [TEXT]  ask about an image; a path with spaces goes in quotes
/file PATH [TEXT]   ask about a document
/history            show this conversation
/usage              show what this conversation used and cost since the chat began
/help               show this
/quit               leave, as the end of input does

A backslash at the end of a line goes on in the next. Ctrl-C cuts a reply short; what is written of it is kept."""

_WITH_FILE: Final = re.compile(r"/(?P<kind>image|file)(?!\S)(?P<rest>.*)", re.DOTALL)


def chat(opener: Callable[[], AbstractAsyncContextManager[Talk]], speaker: Speaker, screen: Screen) -> None:
    """Open the engine and chat until someone leaves. For the main thread: the engine runs in another.

    Raises:
        KeyboardInterrupt: Ctrl-C while the engine was being opened or closed.
        TextLLMError: it could not be opened, or the conversation to go on with does not exist.
    """
    keyboard = Keyboard()

    async def engine() -> None:
        task = asyncio.current_task()
        assert task is not None
        with keyboard.interrupting(task.cancel):
            async with opener() as textllm:
                with keyboard.interrupting(lambda: None):  # between a line and its reply there is nothing to stop
                    await Chat(textllm, speaker, keyboard, screen).run()

    with ThreadPoolExecutor(max_workers=1) as pool:
        ended = pool.submit(asyncio.run, engine())
        ended.add_done_callback(lambda _: keyboard.close())
        keyboard.serve()
    try:
        ended.result()
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


class Interrupted(Exception):  # noqa: N818  # not a failure: Ctrl-C at the prompt
    """Ctrl-C instead of a line."""


class Keyboard:
    """Lines from stdin and Ctrl-C, for a coroutine that runs in another thread.

    A blocking read must hold up no reply, and Python delivers Ctrl-C to the main thread alone: so `serve` is for that.
    """

    def __init__(self) -> None:
        self._asked: SimpleQueue[tuple[str, Future[str]] | None] = SimpleQueue()
        self._on_interrupt: list[Callable[[], object]] = []
        self._is_reading = False
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(
                encoding="utf-8", errors="surrogateescape"
            )  # what is no text is then refused as a turn
        self._is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
        if self._is_terminal:
            with suppress(ImportError):  # where there is no readline, lines are edited as the terminal does
                import readline  # noqa: F401  # from here on `input` uses it

    async def line(self, prompt: str) -> str:
        """The next line, without its end.

        Raises:
            EOFError: there is no further line.
            Interrupted: Ctrl-C was pressed instead.
        """
        answer: Future[str] = Future()
        self._asked.put((prompt, answer))
        return await asyncio.wrap_future(answer)

    @contextmanager
    def interrupting(self, act: Callable[[], object]) -> Iterator[None]:
        """Ctrl-C calls `act` on this event loop while the block runs and no line is awaited; the innermost counts."""
        loop = asyncio.get_running_loop()
        self._on_interrupt.append(lambda: loop.call_soon_threadsafe(act))
        try:
            yield
        finally:
            self._on_interrupt.pop()

    def close(self) -> None:
        """End `serve`."""
        self._asked.put(None)

    def serve(self) -> None:
        """Read lines as they are asked for, until `close`. For the main thread."""
        before = signal.signal(signal.SIGINT, self._interrupt)
        try:
            while True:
                try:  # a signal in the instant before a wait is only seen after it: so no wait is a long one
                    asked = self._asked.get(timeout=0.1)
                except Empty:
                    continue
                if asked is None:
                    return
                prompt, answer = asked
                try:
                    line = self._read(prompt)
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

    def _read(self, prompt: str) -> str:
        self._is_reading = True
        try:
            if self._is_terminal:
                return input(prompt)
            if not (line := sys.stdin.readline()):
                raise EOFError
            return line.removesuffix("\n")
        finally:
            self._is_reading = False


def _said(kind: str, rest: str) -> Said:
    """What `/image` or `/file` says: a path, quoted as in a shell where it has to be, then perhaps a text.

    Raises:
        InvalidRequestError: there is no path, or no such file.
    """
    typed = io.StringIO(rest)
    words = shlex.shlex(typed, posix=True)
    words.whitespace_split, words.commenters = True, ""
    try:
        path = words.get_token()
    except ValueError:
        raise InvalidRequestError(f"A quote of /{kind} is never closed.") from None
    if not path:
        raise InvalidRequestError(f"Say which file: /{kind} PATH [TEXT]")
    upload, text = upload_of(Path(path).expanduser()), typed.read().strip()
    if kind == "image":
        return Said(text or "Describe this image.", images=(upload,))
    return Said(text or "Summarize this document.", documents=(upload,))


@dataclass(slots=True)
class _Thread:
    """One conversation, and what was counted of it since the chat began."""

    conversation_id: str | None
    replies: int = 0
    input: int = 0
    output: int = 0
    cost: Decimal = Decimal(0)
    estimated_cost: Decimal = Decimal(0)

    def count(self, reply: Reply) -> None:
        self.conversation_id = reply.conversation_id
        self.replies += 1
        self.input += reply.usage.input
        self.output += reply.usage.output
        self.cost += reply.cost
        if reply.estimated:
            self.estimated_cost += reply.cost


class Chat:
    """A conversation at the keyboard. A turn that fails or is cut short is settled and reported; the chat goes on."""

    def __init__(self, textllm: Talk, speaker: Speaker, keyboard: Keyboard, screen: Screen) -> None:
        self._textllm, self._speaker, self._keyboard, self._screen = textllm, speaker, keyboard, screen
        self._thread = _Thread(None)
        self._response_id = ""
        self._has_begun = asyncio.Event()

    async def run(self) -> None:
        """Read lines and answer them until someone wants to leave.

        Raises:
            NotFoundError: there is no latest conversation to begin with.
        """
        self._thread = _Thread(await self._speaker.first_conversation(self._textllm))
        self._screen.say("/help shows what there is besides talking.")
        was_interrupted = False
        while True:
            try:
                line = await self._line()
            except EOFError:
                break
            except Interrupted:
                self._screen.say("\nleaving" if was_interrupted else "\nCtrl-C once more leaves, as /quit does.")
                if was_interrupted:
                    break
                was_interrupted = True
                continue
            was_interrupted = False
            if line.strip() == "/quit":
                break
            try:
                await self._obey(line)
            except TextLLMError as error:
                self._screen.problem(error)

    async def _line(self) -> str:
        line = await self._keyboard.line("> ")
        while line.endswith("\\"):
            line = f"{line[:-1]}\n{await self._keyboard.line('… ')}"
        return line

    async def _obey(self, line: str) -> None:
        match line.strip():
            case "":
                pass
            case "/new":
                self._thread = _Thread(None)
                self._screen.say("A new conversation.")
            case "/history":
                await self._show_history()
            case "/usage":
                self._show_usage()
            case "/help":
                self._screen.say(HELP)
            case text if with_file := _WITH_FILE.fullmatch(text):
                await self._say(_said(with_file["kind"], with_file["rest"]))
            case text if re.fullmatch(r"/[a-z]+", text):
                self._screen.say(f"There is no {text}; /help shows what there is.")
            case _:
                await self._say(Said(line))

    async def _say(self, said: Said) -> None:
        """Print the reply to what is said until it ends, or until Ctrl-C cuts it short."""
        stop = asyncio.Event()
        self._has_begun.clear()
        events = self._speaker.ask(self._textllm, said, self._thread.conversation_id)
        with self._keyboard.interrupting(stop.set):
            hearing = asyncio.create_task(self._hear(events))
            stopping = asyncio.create_task(self._stop(stop))
            await asyncio.wait({hearing})
            stopping.cancel()
            self._screen.end_text()
            try:
                reply = hearing.result()
            except TextLLMError as error:
                raise error from None
        if reply.finish_reason == "cancelled":
            self._screen.say("interrupted; what was written is kept, and what it cost is charged")
        self._thread.count(reply)
        self._screen.reply(reply, is_printed=True)

    async def _hear(self, events: AsyncGenerator[ReplyEvent, None]) -> Reply:
        async with aclosing(events):
            async for event in events:
                match event:
                    case ReplyStarted():
                        self._response_id = event.response_id
                        self._has_begun.set()
                        self._thread.conversation_id = event.conversation_id
                    case TextDelta(delta) if not self._screen.as_json:
                        self._screen.delta(delta)
                    case ReplyCompleted(reply):
                        return reply
                    case ReplyFailed(_, error):
                        raise error
        raise AssertionError("a reply ended without a terminal event")

    async def _stop(self, stop: asyncio.Event) -> None:
        await stop.wait()
        await self._has_begun.wait()
        with suppress(TextLLMError):  # it has just ended, or failed: `_hear` hears of that
            await self._textllm.cancel_reply(self._speaker.caller, self._response_id)

    async def _show_history(self) -> None:
        conversation_id = self._thread.conversation_id
        every = self._textllm.conversations.messages.every
        messages = [m async for m in every(self._speaker.caller, conversation_id)] if conversation_id else ()
        if not messages:
            self._screen.say("Nothing was said yet.")
        self._screen.messages(messages)

    def _show_usage(self) -> None:
        thread = self._thread
        used = {
            "replies": thread.replies,
            "input": thread.input,
            "output": thread.output,
            "cost": thread.cost,
            "estimated_cost": thread.estimated_cost,
        }
        estimate = f", {dollars(thread.estimated_cost)} of it an estimate" if thread.estimated_cost else ""
        text = (
            f"replies: {thread.replies}, tokens in: {thread.input}, out: {thread.output}, cost: {dollars(thread.cost)}"
            f"{estimate}"
        )
        self._screen.record(used, text)
