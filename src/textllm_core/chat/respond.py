"""The use case of responses that can be asked for again: where each is said, and what is kept of it."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from msgspec.structs import replace

from textllm_core.cancellation import carried_through
from textllm_core.chat.answer_messages import measured
from textllm_core.chat.approvals import approvals_in, renamed, with_live_tools
from textllm_core.chat.copies import counted, take_back
from textllm_core.chat.exchange import Exchange
from textllm_core.chat.reply_log import reply_of
from textllm_core.chat.response_places import Place, Places, is_anothers
from textllm_core.chat.running import Running
from textllm_core.chat.tool_use import check_results, results_bound
from textllm_core.errors import (
    ConversationBusyError,
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
from textllm_core.ports.stored_responses import StoredResponses
from textllm_core.records.hosted import Approval
from textllm_core.records.messages import (
    Message,
    ReplyCompleted,
    ReplyEvent,
    ReplyFailed,
    ReplyStarted,
    Turn,
    TurnNames,
)
from textllm_core.records.response_turns import ResponseTurn
from textllm_core.records.stored_responses import AskedResponse, ResponseFailure
from textllm_core.records.tools import ToolResult
from textllm_core.tenancy import Caller
from textllm_core.wire import Record


class Begun(Record, frozen=True):
    """A response that runs in the background; `is_replayed`: it began before, with the same idempotency key."""

    response_id: str
    conversation_id: str
    is_replayed: bool = False


class Answered(NamedTuple):
    """The first event, and the last one, with the whole reply.

    Args:
        named_id: the conversation that was named for it, or for what it follows.
    """

    started: ReplyStarted
    end: ReplyCompleted
    named_id: str | None


class Streamed(NamedTuple):
    """A reply that has begun: its first events, and those to come; `named_id` as `Answered` has it."""

    first: list[ReplyEvent]
    batches: AsyncGenerator[list[ReplyEvent], None]
    named_id: str | None


@dataclass(slots=True)
class _Placed:
    """A turn and its place; `made`: the conversation that was made for it, which goes again unless it is said there."""

    place: Place
    turn: Turn
    made: str | None = None
    is_said: bool = False

    def begun(self, first: ReplyStarted) -> None:
        """Its reply has begun; a repeat is told that of the first one."""
        self.is_said = not first.is_replayed


@dataclass(frozen=True, slots=True, kw_only=True)
class Respond:
    """Answer a turn whose response can be asked for again, for `policy.retention.responses` after the last of its kind.

    It needs our own copy of what is said (`keeps`).
    """

    exchange: Exchange
    places: Places
    conversations: ConversationRepository
    responses: StoredResponses
    clock: Clock
    policy: ChatPolicy

    @property
    def keeps(self) -> bool:
        """Whether anything can be kept here."""
        return self.policy.keep_messages

    async def answer(self, caller: Caller, asked: ResponseTurn) -> Answered:
        """The whole reply, settled.

        Raises:
            TextLLMError: what `stream` raises, and the error of its `ReplyFailed`.
        """
        try:
            started, end, named_id = await self._ends(caller, asked)
        except ConversationBusyError:  # something else is following that response right now: this one forks
            if not _may_fork(asked):
                raise
            started, end, named_id = await self._ends(caller, asked, forks=True)
        return Answered(started, reply_of(end), named_id)

    async def _ends(
        self, caller: Caller, asked: ResponseTurn, *, forks: bool = False
    ) -> tuple[ReplyStarted, ReplyEvent | None, str | None]:
        placed = await self._placed(caller, asked, forks=forks)
        begun = None if placed.made is None else placed.begun  # nobody else is to know before the end
        try:
            started, end = await self.exchange.ends(caller, placed.turn, begun=begun)
        finally:
            if placed.made is not None:
                await self._leave(caller, placed)
        if isinstance(end, ReplyFailed):
            await self._keep_failure(caller, placed.place.user_id, end)
        return started, end, placed.place.named_id

    async def stream(self, caller: Caller, asked: ResponseTurn) -> Streamed:
        """`ReplyStarted`, any number of `TextDelta`, `ReplyCompleted` or `ReplyFailed`: as many as there are by then.

        Who stops reading does not stop the reply: it is read to its end, kept, and charged.
        Raises:
            InvalidRequestError, InputTooLongError, ConversationNotFoundError: the turn is wrong.
            TextLLMError: what `Exchange.run` raises.
        """
        try:
            return await self._stream(caller, asked)
        except ConversationBusyError:  # as in `answer`
            if not _may_fork(asked):
                raise
            return await self._stream(caller, asked, forks=True)

    async def _stream(self, caller: Caller, asked: ResponseTurn, *, forks: bool = False) -> Streamed:
        placed = await self._placed(caller, asked, forks=forks)
        failed = partial(self._keep_failure, caller, placed.place.user_id)
        batches = self.exchange.batches(caller, placed.turn, failed=failed)
        try:
            first = await anext(batches)
            started = first[0]
            assert isinstance(started, ReplyStarted)
            placed.begun(started)
        finally:
            if placed.made is not None:
                await self._leave(caller, placed)
        return Streamed(first, batches, placed.place.named_id)

    async def begin(self, caller: Caller, asked: ResponseTurn) -> Begun:
        """Answer in the background: it runs to its end, whoever waits for it.

        Raises:
            TextLLMError: it is not admitted.
        """
        try:
            return await carried_through(self._begin(caller, asked))
        except IdempotencyInProgressError as repeat:
            return await self._first(caller, repeat.response_id, repeat)
        except ConversationBusyError:  # as in `batches`
            if not _may_fork(asked):
                raise
            return await carried_through(self._begin(caller, asked, forks=True))
        except TextLLMError as failure:  # the first request was answered all the same
            return await self._first(caller, failure.replayed_id, failure)

    async def _first(self, caller: Caller, response_id: str | None, otherwise: TextLLMError) -> Begun:
        """The response that the first request with this key has begun, whatever became of it.

        Raises:
            TextLLMError: `otherwise`: it is none that is kept.
        """
        first = None if response_id is None else await self.responses.get(caller.tenant_id, response_id)
        if first is None or caller.user_id not in (None, first.user_id):
            raise otherwise
        return Begun(first.id, first.conversation_id, is_replayed=True)

    async def past(self, caller: Caller, previous_response_id: str, *, named: str | None) -> Sequence[Message]:
        """What was said up to a response, and with it, oldest first.

        Raises:
            InvalidRequestError: it is none that is kept here, or it ended without a reply.
            ConversationNotFoundError: it is of another user than that which was named.
            ConversationBusyError: it is still running.
        """
        previous = await self.places.followed(caller, previous_response_id)
        self.places.charged(caller, named, previous.conversation.user_id)
        return await self.places.until(caller, previous)

    async def reply(self, caller: Caller, message_id: str, *, named: str | None) -> Message | None:
        """The message that a response became; None where nothing is kept, or another user than `named` has it."""
        response_id = f"resp_{message_id.removeprefix('msg_')}"
        stored = await self.responses.get(caller.tenant_id, response_id)
        if stored is None or is_anothers(caller, named, stored.user_id):
            return None
        key = caller.tenant_id, stored.user_id, stored.conversation_id
        found = await self.conversations.messages_of(*key, [message_id])
        return found[0] if found else None

    async def _begin(self, caller: Caller, asked: ResponseTurn, *, forks: bool = False) -> Begun:
        placed = await self._placed(caller, asked, forks=forks)
        user_id = placed.place.user_id
        if placed.turn.conversation_id is None:  # one that a turn makes goes with it, if nothing begins
            placed.made = await self.places.new_conversation(caller, user_id)
            placed.turn = replace(placed.turn, conversation_id=placed.made)
        try:
            running = await self.exchange.begin(caller, placed.turn)
            if running.hold is None:
                first = running.log.first
                return Begun(first.response_id, first.conversation_id, is_replayed=True)
            placed.is_said = True
        finally:
            await self._leave(caller, placed)
        hold = running.hold
        follower = Running()
        follower.protect()  # what is cut short at the end of the process, it has to say why
        self.exchange.running.start(self._follow(caller, user_id, hold.response_id, running), follower)
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
            await self._fail(caller, user_id, response_id, running.failure_of(error))

    async def _placed(self, caller: Caller, asked: ResponseTurn, *, forks: bool) -> _Placed:
        place = await self.places.find(caller, asked, forks=forks)
        turn = self._turn(asked, place)
        if place.forked is None:
            return _Placed(place, turn)
        if approvals_in(turn.content) and not await self._is_repeat(caller, asked):
            raise InvalidRequestError.of(
                "input", "has an mcp_approval_response to what was answered before; go on behind the response to that"
            )
        turn = await counted(self.exchange, caller, turn)
        made = await self.places.copy(caller, place.forked)
        return _Placed(place, replace(turn, conversation_id=made), made)

    async def _is_repeat(self, caller: Caller, asked: ResponseTurn) -> bool:
        repeat = asked.idempotency and asked.idempotency.within(caller.user_id)
        return repeat is not None and await self.exchange.ledger.replay(caller.tenant_id, repeat) is not None

    async def _leave(self, caller: Caller, placed: _Placed) -> None:
        """Let a conversation go that was made for a turn, and in which it was not said."""
        if placed.made is not None and not placed.is_said:
            gone = take_back(self.conversations, caller, placed.place.user_id, placed.made, at=self.clock.now())
            await carried_through(gone)

    def _turn(self, asked: ResponseTurn, place: Place) -> Turn:
        now = self.clock.now()
        names = TurnNames.new(now)
        said = last = Message(id=names.message_id, role="user", content=asked.content, created_at=now)
        before: tuple[Message, ...] = ()
        answers: tuple[ToolResult | Approval, ...] = ()
        if not asked.is_text:
            before, last = _live(asked, last)
            answers = tuple(it for it in last.content if isinstance(it, ToolResult | Approval))
            said = replace(last, content=tuple(it for it in last.content if not isinstance(it, ToolResult | Approval)))
            check_results(last.tool_results, field="input")
        is_new = place.state is None and place.forked is None
        characters, token_bound, _ = measured((*before, said), field="input", are_all=is_new)
        before_tokens = measured(before, are_all=False)[2] if before else 0
        limit = self.policy.max_input_chars * self.policy.max_history_items
        if answers:
            characters += sum(len(result.output) for result in last.tool_results)
            token_bound += results_bound(answers)
        if characters > limit:
            raise InputTooLongError.of_messages(length=characters, limit=limit)
        if not characters and not approvals_in(last.content) and not said.has_shown_parts:
            raise InvalidRequestError.of("input", "must say something")
        return Turn(
            kind=asked.kind,
            content=last.content,
            token_bound=token_bound + asked.files.most,
            file_tokens=before_tokens + asked.files.about,
            conversation_id=None if place.state is None else place.state.id,
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
            state=place.state,
            response=_asked(asked, place, (*before, said)) if asked.is_stored else None,
        )

    async def _keep_failure(self, caller: Caller, user_id: str, end: ReplyFailed) -> None:
        failure = ResponseFailure(end.error.code, str(end.error))
        await self._fail(caller, user_id, end.response_id, failure)

    async def _fail(self, caller: Caller, user_id: str, response_id: str, failure: ResponseFailure) -> None:
        with suppress(StorageUnavailableError):  # its entry says that it failed, or its release has
            await self.responses.fail(caller.tenant_id, user_id, response_id, failure)


def _live(asked: ResponseTurn, turn: Message) -> tuple[tuple[Message, ...], Message]:
    """What is said before the turn, as `with_live_tools` has it, and the turn; both as `renamed` has them."""
    before = [
        Message(id=new_id("msg"), role=it.role, content=it.content, created_at=turn.created_at) for it in asked.before
    ]
    messages = renamed((*before, turn))
    live = with_live_tools(messages, asked.options.hosted)
    return tuple(message for message in live[:-1] if message.content), messages[-1]


def _asked(asked: ResponseTurn, place: Place, said: Sequence[Message]) -> AskedResponse:
    return AskedResponse(
        message_ids=tuple([message.id for message in said]),
        asked=asked.asked,
        is_background=asked.is_background,
        is_of_conversation=place.is_named,
    )


def _may_fork(asked: ResponseTurn) -> bool:
    """Whether it can be said elsewhere: files that were stored for it went with the refusal, and calls run once."""
    is_bound = asked.discard_files is not None or bool(approvals_in(asked.content))
    return asked.previous_response_id is not None and not is_bound
