"""Lines from a person at a terminal, who edits them, looks back at earlier ones, and pastes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app_or_none, run_in_terminal
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter, WordCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input.typeahead import store_typeahead
from prompt_toolkit.key_binding import KeyBindings, KeyPress, KeyPressEvent
from prompt_toolkit.keys import Keys

from textllm_cli.chat.commands import COMMANDS
from textllm_cli.chat.editor import edited
from textllm_cli.chat.keyboard import Interrupted

_WITH_PATH: Final = ("/image ", "/file ", "/save ")


class Known(Protocol):
    """What may stand behind a command, besides paths."""

    @property
    def models(self) -> Sequence[str]: ...
    @property
    def prompts(self) -> Sequence[str]: ...
    async def conversation_ids(self) -> Sequence[tuple[str, str]]:
        """Ids and titles of the latest ones; none where they cannot be had."""
        ...


class CommandCompleter(Completer):
    """Commands, and what they take."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._commands = WordCompleter([f"/{name}" for name in COMMANDS], sentence=True)
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        text = document.text_before_cursor
        if not text.startswith("/"):
            return ()
        if text.startswith(_WITH_PATH):
            path = text.partition(" ")[2].lstrip()
            return self._paths.get_completions(Document(path), complete_event)
        for command, words in (("/model ", self._known.models), ("/prompt ", self._known.prompts)):
            if text.startswith(command):
                return WordCompleter(list(words), sentence=True).get_completions(
                    Document(text.removeprefix(command)), complete_event
                )
        return self._commands.get_completions(document, complete_event)

    async def get_completions_async(
        self, document: Document, complete_event: CompleteEvent
    ) -> AsyncGenerator[Completion, None]:
        beginning = document.text_before_cursor
        if beginning.startswith("/open "):
            named = beginning.removeprefix("/open ").strip()
            for conversation_id, title in await self._known.conversation_ids():
                if conversation_id.startswith(named):
                    yield Completion(conversation_id, start_position=-len(named), display_meta=title)
        else:
            for completion in self.get_completions(document, complete_event):
                yield completion


class TerminalLines:
    """A keyboard at a terminal. Enter sends what was typed; a paste, with all its lines, only stands there until then.

    Args:
        history: the file that keeps what was sent, from one start to the next; None: it is forgotten at the end.
    """

    def __init__(self, known: Known, history: Path | None) -> None:
        self._typed = ""  # while a reply was written
        self._session: PromptSession[str] = PromptSession(
            history=_history(history),
            completer=CommandCompleter(known),
            complete_while_typing=False,
            multiline=True,
            key_bindings=_bindings(),
            prompt_continuation=lambda width, _line, _is_soft: "… ".rjust(width),
        )

    async def line(self, prompt: str, *, draft: str = "") -> str:
        """As `Keyboard` has it. What was typed during the last reply stands there as well."""
        draft, self._typed = draft + self._typed, ""
        while True:
            try:
                return await self._session.prompt_async(prompt, default=draft)
            except KeyboardInterrupt:
                if not self._session.default_buffer.text:
                    raise Interrupted from None
                draft = ""  # what was typed is thrown away, and nothing else

    @contextmanager
    def open(self) -> Iterator[None]:
        """While the block runs, no key is shown before somebody reads it, and Ctrl-C is a key like any other."""
        with self._session.app.input.raw_mode():
            yield

    @contextmanager
    def interrupting(self, act: Callable[[], object], *, holds_back: bool = False) -> Iterator[None]:
        """As `Keyboard` has it: keys are read and not shown."""
        keys = self._session.app.input

        def read() -> None:
            for press in (*keys.read_keys(), *keys.flush_keys()):
                if press.key == Keys.ControlC:
                    self._typed = ""
                    act()
                elif holds_back:
                    self._typed += _text_of(press)
                else:
                    store_typeahead(keys, [press])

        with keys.attach(read):
            yield

    async def edited(self, text: str) -> str | None:
        """A text after somebody has worked on it in an editor; None where nothing was saved."""
        keys = self._session.app.input
        with keys.detach(), keys.cooked_mode():
            return await edited(text)

    def tell(self, show: Callable[[], None]) -> None:
        """As `Keyboard` has it: above the prompt, which stays."""
        if get_app_or_none() is None:
            show()
        else:
            run_in_terminal(show)


def _text_of(press: KeyPress) -> str:
    """What a key writes; nothing, where it only moves or deletes."""
    if press.key in (Keys.ControlM, Keys.ControlJ):
        return "\n"
    if press.key == Keys.BracketedPaste:
        return press.data.replace("\r\n", "\n").replace("\r", "\n")
    return press.data if len(press.data) == 1 and press.data.isprintable() else ""


def _history(file: Path | None) -> History:
    if file is None:
        return InMemoryHistory()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file.touch(mode=0o600)
    except OSError:  # such as a home that is read-only: then one does without
        return InMemoryHistory()
    return FileHistory(file)


def _bindings() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("enter")
    def send(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.text_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    @bindings.add("c-j")
    def begin_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings
