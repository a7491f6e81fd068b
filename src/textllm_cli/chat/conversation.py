"""The chat that reads turn after turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace as changed

from textllm_cli.chat.commands import TALKING, Command, command_of, help_text, path_and_text
from textllm_cli.chat.keyboard import Interrupted, Keyboard, Page
from textllm_cli.identifying import whole_id
from textllm_cli.render import Screen, dollars
from textllm_cli.speaking import Said, Speaker
from textllm_cli.uploads import upload_of
from textllm_core.errors import InvalidRequestError, TextLLMError
from textllm_core.records.messages import Reply, ReplyCompleted, ReplyEvent, ReplyFailed, ReplyStarted, TextDelta

if TYPE_CHECKING:
    from textllm_cli.engine import Talk
    from textllm_core.records.conversations import Conversation


@dataclass(slots=True)
class Counts:
    """What one conversation has used since the chat began. `before`: the conversation then; None: it was new."""

    before: Conversation | None = None
    replies: int = 0
    input: int = 0
    output: int = 0
    cost: Decimal = Decimal(0)
    estimated_cost: Decimal = Decimal(0)

    def add(self, reply: Reply) -> None:
        self.replies += 1
        self.input += reply.usage.input
        self.output += reply.usage.output
        self.cost += reply.cost
        if reply.estimated:
            self.estimated_cost += reply.cost

    def catch_up(self, now: Conversation, *, is_estimate: bool) -> None:
        """Count what was charged beside the replies that were told: for one that broke off."""
        then = self.before
        self.input = now.total_tokens_input - (then.total_tokens_input if then else 0)
        self.output = now.total_tokens_output - (then.total_tokens_output if then else 0)
        cost = now.total_cost - (then.total_cost if then else 0)
        if is_estimate:
            self.estimated_cost += cost - self.cost
        self.cost = cost

    def record(self) -> dict[str, int | Decimal]:
        return {name: getattr(self, name) for name in ("replies", "input", "output", "cost", "estimated_cost")}

    def __str__(self) -> str:
        estimate = f", {dollars(self.estimated_cost)} of it an estimate" if self.estimated_cost else ""
        tokens = f"tokens in: {self.input}, out: {self.output}"
        return f"replies: {self.replies}, {tokens}, cost: {dollars(self.cost)}{estimate}"


class _Spoken:
    """A turn under way, which this chat may leave behind."""

    def __init__(self) -> None:
        self.response_id = ""
        self.has_begun = asyncio.Event()
        self.reply: asyncio.Task[Reply]


class Chat:
    """A conversation at the keyboard. A turn that fails or is cut short is settled and reported; the chat goes on.

    Who cuts a reply short has the prompt back at once: it is settled behind, and the next turn waits for that.

    Args:
        editor: opens a text in an editor, and returns it once that is closed; None where nothing was saved.
    """

    def __init__(
        self,
        talk: Talk,
        speaker: Speaker,
        keyboard: Keyboard,
        page: Page,
        screen: Screen,
        editor: Callable[[str], Awaitable[str | None]],
    ) -> None:
        self._talk, self._speaker, self._keyboard, self._page, self._screen = talk, speaker, keyboard, page, screen
        self._editor = editor
        self._conversation_id: str | None = None
        self._counts = Counts()
        self._last: Said | None = None
        self._draft = ""
        self._settling: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Read lines and answer them until someone wants to leave.

        Raises:
            NotFoundError: there is no latest conversation to begin with.
        """
        first = await self._speaker.first_conversation(self._talk)
        if first is not None:
            await self._begin(await self._talk.conversations.get(self._speaker.caller, first))
        self._screen.say("/help shows what there is besides talking.")
        was_interrupted = False
        while True:
            try:
                draft, self._draft = self._draft, ""
                line = await self._keyboard.line("> ", draft=draft)
            except EOFError:
                break
            except Interrupted:
                self._screen.say("leaving" if was_interrupted else "Ctrl-C once more leaves, as /quit does.")
                if was_interrupted:
                    break
                was_interrupted = True
                continue
            was_interrupted = False
            try:
                command = command_of(line)
                if command is not None and command.name == "quit":
                    break
                await (self._obey(command) if command else self._say(Said(line.strip("\n"))))
            except TextLLMError as error:
                self._screen.problem(error)
        await self._settled()

    async def _obey(self, command: Command) -> None:
        act: Callable[[Command], Coroutine[None, None, None]] = getattr(self, f"_{command.name}")
        if command.name in TALKING:  # which have their own way to be interrupted
            await act(command)
            return
        acting = asyncio.create_task(act(command))
        with self._keyboard.interrupting(acting.cancel):
            await asyncio.wait({acting})
        if acting.cancelled():
            self._screen.say("interrupted")
        else:
            acting.result()

    async def _help(self, _: Command) -> None:
        self._screen.say(help_text())

    async def _new(self, _: Command) -> None:
        await self._begin(None)
        self._screen.say("A new conversation.")

    async def _open(self, command: Command) -> None:
        if not command.rest:
            raise InvalidRequestError("Say which conversation: /open ID")
        found = await whole_id(self._talk.conversations, self._speaker.caller, command.rest)
        conversation = await self._talk.conversations.get(self._speaker.caller, found)
        await self._begin(conversation)
        self._screen.say(f"{conversation.title or conversation.id}: {conversation.message_count} turns so far.")

    async def _begin(self, conversation: Conversation | None) -> None:
        await self._settled()  # so that its cost is counted where it belongs
        self._conversation_id = None if conversation is None else conversation.id
        self._counts = Counts(conversation)

    async def _image(self, command: Command) -> None:
        path, text = path_and_text(command)
        await self._say(Said(text or "Describe this image.", images=(upload_of(path),)))

    async def _file(self, command: Command) -> None:
        path, text = path_and_text(command)
        await self._say(Said(text or "Summarize this document.", documents=(upload_of(path),)))

    async def _usage(self, _: Command) -> None:
        self._screen.record(self._counts.record(), str(self._counts))

    async def _history(self, _: Command) -> None:
        messages = [message async for message in self._messages()]
        if not messages:
            self._screen.say("Nothing was said yet.")
        self._screen.messages(messages)

    async def _messages(self) -> AsyncGenerator[Any, None]:
        if self._conversation_id is not None:
            every = self._talk.conversations.messages.every(self._speaker.caller, self._conversation_id)
            async with aclosing(every) as messages:
                async for message in messages:
                    yield message

    async def _model(self, command: Command) -> None:
        if command.rest:
            self._set(model=command.rest)
        self._screen.say(f"model: {self._speaker.options.model or 'as the settings say'}")

    async def _system(self, command: Command) -> None:
        if command.rest:
            self._set(instructions=command.rest, prompt=None)
        self._screen.say(f"system: {self._speaker.options.instructions or 'none of yours'}")

    async def _prompt(self, command: Command) -> None:
        if command.rest:
            self._set(prompt=command.rest, instructions=None)
        self._screen.say(f"prompt: {self._speaker.options.prompt or 'default'}")

    def _set(self, **options: str | None) -> None:
        self._speaker = replace(self._speaker, options=changed(self._speaker.options, **options))

    async def _save(self, command: Command) -> None:
        path, _ = path_and_text(command)
        parts = [
            f"## {'You' if message.role == 'user' else 'Model'}\n\n{message.text.strip()}\n"
            async for message in self._messages()
        ]
        if not parts:
            raise InvalidRequestError("Nothing was said yet.")
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write("\n".join(parts))
        except FileExistsError:
            raise InvalidRequestError(f"{path} exists already; give another name.") from None
        except OSError as error:
            raise InvalidRequestError(f"{path} cannot be written: {error.strerror}.") from None
        self._screen.say(f"{len(parts)} messages are in {path}.")

    async def _edit(self, _: Command) -> None:
        written = await self._editor(self._last.text if self._last is not None else "")
        if written is None or not written.strip():
            self._screen.say("Nothing was written.")
        else:
            self._draft = written.rstrip("\n")

    async def _retry(self, _: Command) -> None:
        if self._last is None:
            raise InvalidRequestError("You have sent nothing yet.")
        await self._say(self._last)

    async def _say(self, said: Said) -> None:
        """Print the reply to what is said until it ends, or until Ctrl-C cuts it short."""
        if not said.text.strip() and not said.images and not said.documents:
            return
        await self._settled()
        self._last = said
        spoken, stop = _Spoken(), asyncio.Event()
        self._page.begin()
        with self._keyboard.interrupting(stop.set, holds_back=True):
            spoken.reply = asyncio.create_task(self._hear(said, spoken))
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({spoken.reply, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
        self._page.end()
        if spoken.reply.done():
            self._show(spoken.reply.result())
        else:
            self._screen.say("interrupted; what was written is kept, and what it cost is charged")
            self._settling = asyncio.create_task(self._settle(spoken))

    async def _hear(self, said: Said, spoken: _Spoken) -> Reply:
        async with aclosing(self._speaker.ask(self._talk, said, self._conversation_id)) as events:
            async for event in events:
                if isinstance(event, ReplyStarted):
                    spoken.response_id = event.response_id
                    self._conversation_id = event.conversation_id
                    spoken.has_begun.set()
                else:
                    if isinstance(event, ReplyFailed):
                        await self._count_broken()
                    reply = self._heard(event)
                    if reply is not None:
                        return reply
        raise AssertionError("a reply ended without a terminal event")

    def _heard(self, event: ReplyEvent) -> Reply | None:
        match event:
            case TextDelta(delta):
                self._page.delta(delta)
            case ReplyCompleted(reply):
                return reply
            case ReplyFailed(_, error):
                raise error
        return None

    async def _count_broken(self) -> None:
        """Count what a reply that broke off has cost, which no event tells."""
        if (conversation_id := self._conversation_id) is not None:
            conversations, caller = self._talk.conversations, self._speaker.caller
            with suppress(TextLLMError):  # why the reply broke off is what is told
                last = await conversations.messages(caller, conversation_id, limit=1, order="desc")
                is_estimate = bool(last.data) and last.data[0].estimated is True
                self._counts.catch_up(await conversations.get(caller, conversation_id), is_estimate=is_estimate)

    async def _settle(self, spoken: _Spoken) -> None:
        """End a reply that nobody wants to see, and tell what it came to."""
        beginning = asyncio.create_task(spoken.has_begun.wait())
        await asyncio.wait({beginning, spoken.reply}, return_when=asyncio.FIRST_COMPLETED)
        beginning.cancel()
        if not spoken.reply.done():
            with suppress(TextLLMError):  # it has just ended, or failed: `_hear` hears of that
                await self._talk.cancel_reply(self._speaker.caller, spoken.response_id)
        await asyncio.wait({spoken.reply})
        self._keyboard.tell(lambda: self._show_end(spoken))

    def _show_end(self, spoken: _Spoken) -> None:
        try:
            self._show(spoken.reply.result())
        except TextLLMError as error:
            self._screen.problem(error)

    async def _settled(self) -> None:
        """Wait until the reply that was cut short is in the books."""
        if self._settling is not None:
            settling, self._settling = self._settling, None
            if not settling.done():
                self._screen.say("settling the reply before …")
                with self._keyboard.interrupting(lambda: None):
                    await settling

    def _show(self, reply: Reply) -> None:
        self._conversation_id = reply.conversation_id
        self._counts.add(reply)
        self._screen.reply(reply, is_printed=True)
