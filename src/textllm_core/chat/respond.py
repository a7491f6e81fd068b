"""The use case of responses that can be asked for again: where each is said, and what is kept of it."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import NamedTuple

from msgspec.structs import replace

from textllm_core.cancellation import carried_through
from textllm_core.chat.answer_messages import measured
from textllm_core.chat.exchange import Exchange
from textllm_core.chat.reply_log import reply_of
from textllm_core.chat.running import Running
from textllm_core.chat.tool_use import results_bound
from textllm_core.errors import (
    ConversationBusyError,
    ConversationNotFoundError,
    IdempotencyInProgressError,
    InputTooLongError,
    InvalidRequestError,
    StorageUnavailableError,
    TextLLMError,
)
from textllm_core.ids import new_id
from textllm_core.policy import ChatPolicy
from textllm_core.ports.clock import Clock
from textllm_core.ports.conversation_repository import ConversationRepository
from textllm_core.ports.ledger import Ledger
from textllm_core.ports.stored_responses import StoredResponses
from textllm_core.records.conversations import Conversation
from textllm_core.records.messages import (
    Message,
    Reply,
    ReplyEvent,
    ReplyFailed,
    ReplyStarted,
    Turn,
    TurnNames,
    reply_message_id,
)
from textllm_core.records.parts import lent
from textllm_core.records.response_turns import CANCELLED, ResponseTurn
from textllm_core.records.stored_responses import ResponseFailure, StoredResponse
from textllm_core.records.tools import ToolResult
from textllm_core.tenancy import Caller, is_unnamed
from textllm_core.wire import Record


class Begun(Record, frozen=True):
    """A response that runs in the background; `is_replayed`: it began before, with the same idempotency key."""

    response_id: str
    conversation_id: str
    is_replayed: bool = False


class _Place(NamedTuple):
    """Where a response is said, and for whom; without a conversation: in a new one, which expires.

    Args:
        forked: the response that it follows in a new conversation, as a copy of what was said until then.
    """

    user_id: str
    conversation_id: str | None = None
    charged_id: str | None = None
    is_named: bool = False
    forked: StoredResponse | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Respond:
    """Answer a turn whose response can be asked for again, for `policy.retention.responses` after the last of its kind.

    It needs our own copy of what is said (`keeps`).
    """

    exchange: Exchange
    conversations: ConversationRepository
    responses: StoredResponses
    ledger: Ledger
    clock: Clock
    policy: ChatPolicy

    @property
    def keeps(self) -> bool:
        """Whether anything can be kept here."""
        return self.policy.keep_messages

    async def answer(self, caller: Caller, asked: ResponseTurn) -> tuple[ReplyStarted, Reply]:
        """The first event, which says what is left of the rate limit, and the whole reply, settled.

        Raises:
            TextLLMError: what `batches` raises, and the error of its `ReplyFailed`.
        """
        started, end = None, None
        async with aclosing(self.batches(caller, asked)) as batches:
            async for batch in batches:
                started, end = started or batch[0], batch[-1]
        assert isinstance(started, ReplyStarted)
        return started, reply_of(end).reply

    async def batches(self, caller: Caller, asked: ResponseTurn) -> AsyncGenerator[list[ReplyEvent], None]:
        """`ReplyStarted`, any number of `TextDelta`, `ReplyCompleted` or `ReplyFailed`: as many as there are by then.

        Who stops reading does not stop the reply: it is read to its end, kept, and charged.
        Raises:
            InvalidRequestError, InputTooLongError, ConversationNotFoundError: the turn is wrong.
            TextLLMError: what `Exchange.run` raises, at the first event.
        """
        is_first = True
        try:
            async with aclosing(self._batches(caller, asked)) as batches:
                async for batch in batches:
                    is_first = False
                    yield batch
        except ConversationBusyError:  # something else is following that response right now: this one forks
            if not is_first or not _may_fork(asked):
                raise
            async with aclosing(self._batches(caller, asked, forks=True)) as batches:
                async for batch in batches:
                    yield batch

    async def _batches(
        self, caller: Caller, asked: ResponseTurn, *, forks: bool = False
    ) -> AsyncGenerator[list[ReplyEvent], None]:
        place, turn = await self._turn(caller, asked, forks=forks)
        made = None if place.forked is None else await self._copy(caller, place.forked)
        is_first, is_said = True, False
        try:
            async with aclosing(
                self.exchange.batches(caller, replace(turn, conversation_id=made or turn.conversation_id))
            ) as batches:
                async for batch in batches:
                    if is_first:
                        is_said = await self._keep_first(caller, asked, place, turn, batch[0])
                        is_first = False
                    if isinstance(batch[-1], ReplyFailed):
                        await self._fail(caller, place.user_id, batch[-1].response_id, batch[-1].error)
                    yield batch
        finally:
            if not is_said:
                await carried_through(self._take_back(caller, place, made))

    async def begin(self, caller: Caller, asked: ResponseTurn) -> Begun:
        """Answer in the background: it runs to its end, whoever waits for it.

        Raises:
            TextLLMError: it is not admitted.
        """
        try:
            return await carried_through(self._begin(caller, asked))
        except IdempotencyInProgressError as repeat:
            return await self._running(caller, repeat)
        except ConversationBusyError:  # as in `batches`
            if not _may_fork(asked):
                raise
            return await carried_through(self._begin(caller, asked, forks=True))

    async def _running(self, caller: Caller, repeat: IdempotencyInProgressError) -> Begun:
        """The response that the first request with this key has begun, and that runs.

        Raises:
            IdempotencyInProgressError: it is none that is kept, or not yet.
        """
        first = None if repeat.response_id is None else await self.responses.get(caller.tenant_id, repeat.response_id)
        if first is None or caller.user_id not in (None, first.user_id):
            raise repeat
        return Begun(first.id, first.conversation_id, is_replayed=True)

    async def past(self, caller: Caller, previous_response_id: str, *, named: str | None) -> Sequence[Message]:
        """What was said up to a response, and with it, oldest first.

        Raises:
            InvalidRequestError: it is none that is kept here, or it ended without a reply.
            ConversationNotFoundError: it is of another user than that which was named.
            ConversationBusyError: it is still running.
        """
        previous = await self._previous(caller, previous_response_id)
        self._charged(caller, named, previous.user_id)
        return await self._until(caller, previous)

    async def reply(self, caller: Caller, message_id: str, *, named: str | None) -> Message | None:
        """The message that a response became; None where nothing is kept, or another user than `named` has it."""
        response_id = f"resp_{message_id.removeprefix('msg_')}"
        stored = await self.responses.get(caller.tenant_id, response_id)
        if stored is None or _is_anothers(caller, named, stored.user_id):
            return None
        key = caller.tenant_id, stored.user_id, stored.conversation_id
        found = await self.conversations.messages_of(*key, [message_id])
        return found[0] if found else None

    async def _begin(self, caller: Caller, asked: ResponseTurn, *, forks: bool = False) -> Begun:
        place, turn = await self._turn(caller, asked, forks=forks)
        made = None if place.forked is None else await self._copy(caller, place.forked)
        if made is None and place.conversation_id is None:  # one that a turn makes goes with it, if nothing begins
            made = await self._new_conversation(caller, place.user_id)
        try:
            running = await self.exchange.begin(caller, replace(turn, conversation_id=made or turn.conversation_id))
        except TextLLMError:
            await self._take_back(caller, place, made)
            raise
        if running.hold is None:
            await self._take_back(caller, place, made)
            first = running.log.first
            return Begun(first.response_id, first.conversation_id, is_replayed=True)
        hold = running.hold
        await self._keep(caller, asked, place, turn, hold.conversation_id)
        self.exchange.running.start(self._follow(caller, place.user_id, hold.response_id, running))
        return Begun(hold.response_id, hold.conversation_id)

    async def _follow(self, caller: Caller, user_id: str, response_id: str, running: Running) -> None:
        """Read it to its end, which keeps it from being cut short; write down why it failed, if it does."""
        error: TextLLMError | None = None
        try:
            end = await running.log.ended()
            if isinstance(end, ReplyFailed):
                error = end.error
        except TextLLMError as refusal:
            error = refusal
        if error is not None:
            code = CANCELLED if running.is_cancelled else error.code
            await self._fail(caller, user_id, response_id, error, code=code)

    async def _turn(self, caller: Caller, asked: ResponseTurn, *, forks: bool) -> tuple[_Place, Turn]:
        place = await self._place(caller, asked, forks=forks)
        now = self.clock.now()
        names = TurnNames.new(now)
        before = tuple(
            Message(id=new_id("msg"), role=it.role, content=it.content, created_at=now) for it in asked.before
        )
        results = tuple(part for part in asked.content if isinstance(part, ToolResult))
        said = Message(
            id=names.message_id,
            role="user",
            content=tuple(part for part in asked.content if not isinstance(part, ToolResult)),
            created_at=now,
        )
        is_new = place.conversation_id is None and place.forked is None
        characters, token_bound, _ = measured((*before, said), field="input", are_all=is_new)
        _, _, before_tokens = measured(before, are_all=False)
        limit = self.policy.max_input_chars * self.policy.max_history_items
        characters += sum(len(result.output) for result in results)
        if characters > limit:
            raise InputTooLongError.of_messages(length=characters, limit=limit)
        if not characters and not said.has_shown_parts:
            raise InvalidRequestError.of("input", "must say something")
        turn = Turn(
            kind=asked.kind,
            content=asked.content,
            token_bound=token_bound + results_bound(results) + asked.files.most,
            file_tokens=before_tokens + asked.files.about,
            conversation_id=place.conversation_id,
            user_id=place.user_id,
            options=asked.options,
            idempotency=asked.idempotency,
            is_resumable=asked.is_resumable or asked.is_background,
            allowance=asked.allowance,
            show_files=asked.show_files,
            discard_files=asked.discard_files,
            expires_in=self.policy.retention.responses if is_new else None,
            before=before,
            names=names,
            charged_id=place.charged_id,
        )
        return place, turn

    async def _place(self, caller: Caller, asked: ResponseTurn, *, forks: bool) -> _Place:
        if asked.conversation_id is not None and asked.previous_response_id is not None:
            raise InvalidRequestError.of("previous_response_id", "cannot be there with conversation; send one of them")
        if asked.previous_response_id is not None:
            previous = await self._previous(caller, asked.previous_response_id)
            charged = self._charged(caller, asked.user_id, previous.user_id)
            if forks or not await self._is_last(caller, previous):
                return _Place(previous.user_id, None, charged, forked=previous)
            return _Place(previous.user_id, previous.conversation_id, charged, previous.is_of_conversation)
        if asked.conversation_id is not None:
            state = await self.conversations.state(caller.tenant_id, asked.conversation_id)
            if state is None or caller.user_id not in (None, state.user_id):
                raise ConversationNotFoundError
            return _Place(state.user_id, state.id, self._charged(caller, asked.user_id, state.user_id), is_named=True)
        return _Place(caller.acts_for(asked.user_id) or caller.id)

    def _charged(self, caller: Caller, named: str | None, owner: str) -> str | None:
        """Who is charged in the place of a conversation's user; None: whoever is charged for that one.

        Raises:
            ConversationNotFoundError: the conversation is of another user than that which was named.
        """
        if _is_anothers(caller, named, owner):
            raise ConversationNotFoundError
        return None if caller.user_id is not None or named in (None, owner) else caller.acts_for(named)

    async def _previous(self, caller: Caller, response_id: str) -> StoredResponse:
        previous = await self.responses.get(caller.tenant_id, response_id)
        if previous is None or caller.user_id not in (None, previous.user_id):
            raise InvalidRequestError.of(
                "previous_response_id", "is no response that is kept here; send what was said in input instead"
            )
        return previous

    async def _is_last(self, caller: Caller, previous: StoredResponse) -> bool:
        """Whether nothing follows the response in its conversation."""
        key = caller.tenant_id, previous.user_id, previous.conversation_id
        newest = await self.conversations.last_messages(*key, limit=1)
        return bool(newest) and newest[0].id == reply_message_id(previous.id)

    async def _copy(self, caller: Caller, previous: StoredResponse) -> str:
        """A new conversation, with what was said up to the response, and with it."""
        said = await self._until(caller, previous)
        messages = [replace(message, content=lent(message.content)) for message in said]
        state = await self.conversations.state(caller.tenant_id, previous.conversation_id)
        return await self._new_conversation(
            caller, previous.user_id, messages, context_tokens=0 if state is None else state.context_tokens
        )

    async def _take_back(self, caller: Caller, place: _Place, made: str | None) -> None:
        """Let a conversation go that was made for a turn, and in which it was not said."""
        if made is not None:
            await self.conversations.expire(caller.tenant_id, place.user_id, made, at=self.clock.now())

    async def _until(self, caller: Caller, previous: StoredResponse) -> Sequence[Message]:
        """What was said up to its reply, and with it."""
        key = caller.tenant_id, previous.user_id, previous.conversation_id
        messages = list(await self.conversations.last_messages(*key, limit=None))
        places = [place for place, each in enumerate(messages) if each.id == reply_message_id(previous.id)]
        if places:
            return messages[: places[0] + 1]
        entry = await self.ledger.entry(caller.tenant_id, previous.id)
        if previous.failure is None and (entry is None or entry.status == "pending"):
            raise ConversationBusyError
        raise InvalidRequestError.of("previous_response_id", "ended without a reply, so that nothing can follow it")

    async def _new_conversation(
        self, caller: Caller, user_id: str, messages: Sequence[Message] = (), *, context_tokens: int = 0
    ) -> str:
        """One that is in no list, and expires."""
        now = self.clock.now()
        replies = sum(message.role == "assistant" for message in messages)
        conversation = Conversation.begun(new_id("conv"), user_id, now, replies=replies)
        await self.conversations.add_imported(
            caller.tenant_id,
            conversation,
            messages,
            context_tokens=context_tokens,
            at_most=None,
            expires_at=now + self.policy.retention.responses,
        )
        return conversation.id

    async def _keep_first(
        self, caller: Caller, asked: ResponseTurn, place: _Place, turn: Turn, first: ReplyEvent
    ) -> bool:
        """Whether the turn is said now, and not told again."""
        assert isinstance(first, ReplyStarted)
        if asked.is_stored and not first.is_replayed:
            await self._keep(caller, asked, place, turn, first.conversation_id)
        return not first.is_replayed

    async def _keep(self, caller: Caller, asked: ResponseTurn, place: _Place, turn: Turn, conversation_id: str) -> None:
        assert turn.names is not None
        stored = StoredResponse(
            tenant_id=caller.tenant_id,
            user_id=place.user_id,
            id=turn.names.response_id,
            conversation_id=conversation_id,
            message_ids=(*(message.id for message in turn.before), turn.names.message_id),
            asked=asked.asked,
            created_at=self.clock.now(),
            is_background=asked.is_background,
            is_of_conversation=place.is_named,
        )
        await self.responses.add(stored)

    async def _fail(
        self, caller: Caller, user_id: str, response_id: str, error: TextLLMError, *, code: str | None = None
    ) -> None:
        with suppress(StorageUnavailableError):  # the entry says that it failed
            failure = ResponseFailure(code or error.code, str(error))
            await self.responses.fail(caller.tenant_id, user_id, response_id, failure)


def _may_fork(asked: ResponseTurn) -> bool:
    """Whether it can be said elsewhere: files that were stored for it went with the refusal."""
    return asked.previous_response_id is not None and asked.discard_files is None


def _is_anothers(caller: Caller, named: str | None, owner: str) -> bool:
    """Whether it is of neither the caller's user nor of that which the request names; what no user has is anyone's."""
    return caller.user_id not in (None, owner) or (named not in (None, owner) and not is_unnamed(owner))
