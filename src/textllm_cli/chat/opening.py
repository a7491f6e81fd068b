"""Which keyboard and which page a chat has, and the loop it runs in."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textllm_cli.chat.conversation import Chat
from textllm_cli.chat.editor import edited
from textllm_cli.chat.piped import PipedLines, PlainPage
from textllm_cli.interrupts import interruptibly
from textllm_cli.render import is_dumb_terminal
from textllm_core.errors import TextLLMError
from textllm_core.records.conversations import ConversationFilter

if TYPE_CHECKING:
    from textllm_adapters.settings import Settings
    from textllm_cli.engine import Talk
    from textllm_cli.render import Screen
    from textllm_cli.speaking import Speaker

Opener = Callable[[], "AbstractAsyncContextManager[Talk]"]


def chat(opener: Opener, speaker: Speaker, screen: Screen, settings: Settings, *, raw: bool) -> None:
    """Open the engine and chat until someone leaves.

    Raises:
        KeyboardInterrupt: Ctrl-C while the engine was being opened or closed.
        TextLLMError: it could not be opened, or the conversation to go on with does not exist.
    """
    if sys.stdin.isatty() and sys.stdout.isatty() and not screen.as_json and not is_dumb_terminal():
        interruptibly(_at_terminal(opener, speaker, screen, settings, raw=raw))
    else:
        _through_pipes(opener, speaker, screen)


async def _at_terminal(opener: Opener, speaker: Speaker, screen: Screen, settings: Settings, *, raw: bool) -> None:
    from textllm_cli.chat.markdown import MarkdownPage
    from textllm_cli.chat.terminal import TerminalLines

    async with opener() as talk:
        keyboard = TerminalLines(_Known(talk, speaker, settings), settings.data_dir / "chat_history")
        page = PlainPage(screen) if raw else MarkdownPage()
        with keyboard.open():
            await Chat(talk, speaker, keyboard, page, screen, keyboard.edited).run()


def _through_pipes(opener: Opener, speaker: Speaker, screen: Screen) -> None:
    """The engine runs in a thread of its own; lines are read in this one, the main one."""
    lines = PipedLines()

    async def engine() -> None:
        task = asyncio.current_task()
        assert task is not None
        with lines.interrupting(task.cancel):
            async with opener() as talk:
                with lines.interrupting(lambda: None):  # between a line and its reply there is nothing to stop
                    await Chat(talk, speaker, lines, PlainPage(screen), screen, edited).run()

    with ThreadPoolExecutor(max_workers=1) as pool:
        ended = pool.submit(asyncio.run, engine())
        ended.add_done_callback(lambda _: lines.close())
        lines.serve()
    try:
        ended.result()
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


@dataclass(frozen=True, slots=True)
class _Known:
    talk: Talk
    speaker: Speaker
    settings: Settings

    @property
    def models(self) -> Sequence[str]:
        return sorted({self.settings.model, *self.settings.prices})

    @property
    def prompts(self) -> Sequence[str]:
        return sorted(self.settings.prompts)

    async def conversation_ids(self) -> Sequence[tuple[str, str]]:
        wanted = ConversationFilter(user_id=self.speaker.user_id)
        try:
            page = await self.talk.conversations.list(self.speaker.caller, wanted)
        except TextLLMError:  # the command itself will say why
            return ()
        return [(each.id, each.title or "") for each in page.data]
