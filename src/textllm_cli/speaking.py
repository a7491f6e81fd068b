"""Talking: who says what, and one turn as it is printed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from textllm_cli.render import Screen
from textllm_core.application import TextLLM
from textllm_core.chat.chat_with_document import DocumentTurn
from textllm_core.chat.chat_with_image import ImageTurn
from textllm_core.chat.reply_log import last_reply
from textllm_core.errors import ConversationNotFoundError, NotFoundError
from textllm_core.records.messages import (
    Reply,
    ReplyCompleted,
    ReplyEvent,
    ReplyFailed,
    TextDelta,
    TextTurn,
    TurnOptions,
)
from textllm_core.tenancy import Caller
from textllm_core.uploads import Upload


@dataclass(frozen=True, slots=True)
class Said:
    """What is said in one turn: a text, and perhaps images or a document, but not both."""

    text: str
    images: Sequence[Upload] = ()
    document: Upload | None = None


@dataclass(frozen=True, slots=True)
class Speaker:
    """Who talks, and how it wants to be answered.

    Args:
        conversation_id: the conversation to go on with; None: a new one, or the latest one with `latest`.
    """

    user_id: str
    conversation_id: str | None
    latest: bool
    options: TurnOptions
    caller: Caller = field(default_factory=Caller)

    async def first_conversation(self, textllm: TextLLM) -> str | None:
        """The conversation to begin with; None is a new one.

        Raises:
            NotFoundError: there is no latest one.
        """
        if not self.latest:
            return self.conversation_id
        try:
            return (await textllm.conversations.latest(self.caller, self.user_id)).id
        except ConversationNotFoundError:
            raise NotFoundError(f"There is no conversation of {self.user_id!r} to continue.") from None

    def ask(self, textllm: TextLLM, said: Said, conversation_id: str | None) -> AsyncGenerator[ReplyEvent, None]:
        """The reply, as `SendMessage.stream` has it."""
        whose = (conversation_id, self.user_id, self.options)
        if said.images:
            return textllm.chat_with_image.stream(self.caller, ImageTurn(said.text, said.images, *whose))
        if said.document is not None:
            return textllm.chat_with_document.stream(self.caller, DocumentTurn(said.text, said.document, *whose))
        return textllm.send_message.stream(self.caller, TextTurn(said.text, *whose))


async def ask_once(textllm: TextLLM, speaker: Speaker, said: Said, screen: Screen, *, is_streamed: bool) -> None:
    """Ask, and print the reply; its text as it comes where `is_streamed`.

    Raises:
        TextLLMError: the turn was refused, or its reply broke off; what came of it is printed.
    """
    events = speaker.ask(textllm, said, await speaker.first_conversation(textllm))
    try:
        if is_streamed:
            try:
                reply = await _told(events, screen.delta)
            finally:
                screen.end_text()
        else:
            reply = await last_reply(events)
    except asyncio.CancelledError:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the next Ctrl-C quits at once, whatever is running then
        screen.say("interrupted; settling what it cost (Ctrl-C again leaves at once)")
        raise
    screen.reply(reply, is_printed=is_streamed)


async def _told(events: AsyncGenerator[ReplyEvent, None], tell: Callable[[str], None]) -> Reply:
    """The whole reply, after `tell` got its text piece by piece."""
    async with aclosing(events):
        async for event in events:
            match event:
                case TextDelta(text):
                    tell(text)
                case ReplyCompleted(reply):
                    return reply
                case ReplyFailed(_, error):
                    raise error
    raise AssertionError("a reply ended without a terminal event")
