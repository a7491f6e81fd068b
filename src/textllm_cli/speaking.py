"""Talking: who says what, how it is asked, and how long one waits for it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from textllm_cli.engine import Talk
from textllm_cli.identifying import whole_id
from textllm_core.chat.chat_with_document import DocumentTurn
from textllm_core.chat.chat_with_image import ImageTurn
from textllm_core.errors import (
    ConversationNotFoundError,
    ModelError,
    NotFoundError,
    ServiceUnavailableError,
    TextLLMError,
)
from textllm_core.records.messages import (
    Idempotency,
    ReplyCompleted,
    ReplyEvent,
    ReplyFailed,
    TextTurn,
    TurnOptions,
)
from textllm_core.tenancy import Caller
from textllm_core.texts import refuse_half_characters
from textllm_core.uploads import Upload
from textllm_core.wire import to_json

pause: Final = asyncio.sleep  # here, so that nobody who tries this out has to wait
_MOST_TRIES: Final = 5  # of a provider or a server that is away: about half a minute, by what they ask for


@dataclass(frozen=True, slots=True)
class Said:
    """What is said in one turn: a text, and perhaps documents and images."""

    text: str
    images: Sequence[Upload] = ()
    documents: Sequence[Upload] = ()


@dataclass(frozen=True, slots=True)
class Speaker:
    """Who talks, and how it wants to be answered.

    Args:
        conversation_id: the conversation to go on with; None: a new one, or the latest one with `latest`.
        idempotency_key: makes a turn safe to send again.
    """

    user_id: str
    conversation_id: str | None
    latest: bool
    options: TurnOptions
    idempotency_key: str | None = None
    caller: Caller = field(default_factory=Caller)

    async def first_conversation(self, talk: Talk) -> str | None:
        """The conversation to begin with; None is a new one.

        Raises:
            NotFoundError: there is no latest one.
        """
        if not self.latest:
            if self.conversation_id is None:
                return None
            return await whole_id(talk.conversations, self.caller, self.conversation_id)
        try:
            return (await talk.conversations.latest(self.caller, self.user_id)).id
        except ConversationNotFoundError:
            raise NotFoundError(f"There is no conversation of {self.user_id!r} to continue.") from None

    async def ask(self, talk: Talk, said: Said, conversation_id: str | None) -> AsyncGenerator[ReplyEvent, None]:
        """The reply, as `SendMessage.stream` has it."""
        refuse_half_characters(message=said.text, conversation_id=conversation_id, user_id=self.user_id)
        refuse_half_characters(model=self.options.model, instructions=self.options.instructions)
        idempotency = await self._idempotency(said, conversation_id)
        whose = (conversation_id, self.user_id, self.options, idempotency)
        if said.documents:
            first, *others = said.documents
            turn = DocumentTurn(said.text, first, *whose, others=others, images=said.images)
            events = talk.chat_with_document.stream(self.caller, turn)
        elif said.images:
            events = talk.chat_with_image.stream(self.caller, ImageTurn(said.text, said.images, *whose))
        else:
            events = talk.send_message.stream(self.caller, TextTurn(said.text, *whose))
        async with aclosing(events):
            async for event in events:
                yield event

    async def _idempotency(self, said: Said, conversation_id: str | None) -> Idempotency | None:
        if self.idempotency_key is None:
            return None
        digest = hashlib.sha256(to_json([said.text, conversation_id, self.user_id, self.options]))
        for upload in (*said.documents, *said.images):
            digest.update(upload.name.encode("utf-8", "replace"))
            async for piece in upload.read():
                digest.update(piece)
        return Idempotency(self.idempotency_key, "ask", digest.hexdigest())


async def patiently(
    ask: Callable[[], AsyncGenerator[ReplyEvent, None]], tell: Callable[[str], None]
) -> AsyncGenerator[ReplyEvent, None]:
    """The events of a reply, asked for again while it is refused for now, as long as whoever refuses asks to wait.

    Args:
        tell: is told why, and for how long.
    """
    tries = 0
    while True:
        try:
            async with aclosing(ask()) as events:
                first = await anext(events)
                yield first
                async for event in events:
                    yield event
            return
        except TextLLMError as refusal:
            wait = refusal.details().get("retry_after_s")
            tries += 1
            is_ours = not isinstance(refusal, ModelError) and not isinstance(refusal, ServiceUnavailableError)
            if not isinstance(wait, int) or (not is_ours and tries >= _MOST_TRIES):
                raise
            tell(f"{refusal} Waiting for {wait} s.")
            await pause(wait)


async def heard(events: AsyncGenerator[ReplyEvent, None], hear: Callable[[ReplyEvent], None]) -> ReplyCompleted:
    """The end of a reply, after `hear` was told of each event.

    Raises:
        TextLLMError: it was refused, or broke off.
    """
    async with aclosing(events):
        async for event in events:
            hear(event)
            match event:
                case ReplyCompleted():
                    return event
                case ReplyFailed(_, error):
                    raise error
    raise AssertionError("a reply ended without a terminal event")
