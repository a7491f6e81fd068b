"""The one path of every turn: admit, ask, settle."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from msgspec.structs import replace

from textllm_core.budgets import MIN_OUTPUT_TOKENS, affordable_output_tokens, demand
from textllm_core.chat.course import Course
from textllm_core.chat.messages import (
    Message,
    Reply,
    ReplyCompleted,
    ReplyEvent,
    ReplyFailed,
    ReplyStarted,
    ReplyUsage,
    TextDelta,
    Turn,
    TurnOptions,
    well_formed,
)
from textllm_core.chat.reply_log import ReplyLog
from textllm_core.conversations import title_from
from textllm_core.errors import (
    ContentRefusedError,
    ConversationLostError,
    ConversationNotFoundError,
    InputTooLongError,
    InvalidRequestError,
    ModelError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    StorageUnavailableError,
    TextLLMError,
)
from textllm_core.ids import new_id
from textllm_core.policy import ChatPolicy
from textllm_core.ports.clock import Clock
from textllm_core.ports.conversation_repository import ConversationRepository
from textllm_core.ports.ledger import Ledger, Reservation
from textllm_core.ports.llm import LLM, ModelEnded, ModelRequest, ModelStarted
from textllm_core.ports.rate_limiter import RateLimiter
from textllm_core.ports.transcript import Transcript
from textllm_core.tenancy import Caller
from textllm_core.track_usage import Charge, Outcome, TrackUsage
from textllm_core.usage import EntryStatus

LEASE: Final = timedelta(seconds=30)
_RENEW_EVERY_S: Final = 10.0
_OVERHEAD_TOKENS: Final = 64  # what a provider adds around messages: roles, separators, the reply's opening
_OUTCOME_PAUSES_S: Final = (0.0, 0.5, 2.0, 5.0)
_SETTLE_PAUSES_S: Final = (0.1, 0.3, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
_TELL_AFTER_TRIES: Final = 3
_SHUTTING_DOWN: Final = ProviderUnavailableError("The service is shutting down.")


async def last_reply(events: AsyncGenerator[ReplyEvent, None]) -> Reply:
    """Read a reply to its end.

    Raises:
        TextLLMError: the error of `ReplyFailed`, or what the events raise.
    """
    async with aclosing(events):
        async for event in events:
            match event:
                case ReplyCompleted(reply):
                    return reply
                case ReplyFailed(_, error):
                    raise error
    raise RuntimeError("an exchange ended without a terminal event")


class RunningExchanges:
    """Owns the tasks of a process's exchanges, so that none depends on whoever asked for it."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, task: asyncio.Task[None]) -> None:
        """Keep the task until it is done."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self, timeout_s: float) -> None:
        """Let what runs come to its end; after `timeout_s` cut it short, and settle it."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Exchange:
    """Carries a turn to the model and its reply back, and keeps the books, whoever leaves meanwhile.

    Args:
        transcript: the provider's side of conversations; None where the history is sent with each turn.
    """

    llm: LLM
    transcript: Transcript | None
    ledger: Ledger
    conversations: ConversationRepository
    rate_limiter: RateLimiter
    track_usage: TrackUsage
    clock: Clock
    policy: ChatPolicy
    running: RunningExchanges = field(default_factory=RunningExchanges)

    async def run(self, caller: Caller, turn: Turn) -> AsyncGenerator[ReplyEvent, None]:
        """`ReplyStarted`, any number of `TextDelta`, then `ReplyCompleted` or `ReplyFailed`.

        The work is done by a task of its own; this generator only reads along, and may be closed at any time.
        Raises:
            InvalidRequestError, InputTooLongError, NotFoundError: the turn is wrong.
            RateLimitedError, BudgetExceededError, ConversationBusyError: it is not admitted now.
            ConversationLostError, ContextTooLongError, ContentRefusedError, ModelError: the model never began.
            StorageUnavailableError: the books could not be opened.
        """
        log = ReplyLog()
        self.running.start(asyncio.create_task(self._carry_out(caller, turn, log)))
        async with aclosing(log.read()) as events:
            async for event in events:
                yield event

    async def _carry_out(self, caller: Caller, turn: Turn, log: ReplyLog) -> None:
        try:
            course = await self._admit(caller, turn, log)
            async with self._kept_alive(course):
                await self._ask_and_settle(course)
        except TextLLMError as refusal:
            log.refuse(refusal)
        except asyncio.CancelledError:
            log.refuse(_SHUTTING_DOWN)
            raise
        except Exception as defect:
            log.refuse(defect)
            raise
        else:
            log.close()

    # Admit

    async def _admit(self, caller: Caller, turn: Turn, log: ReplyLog) -> Course:
        options = turn.options
        self._check(options)
        instructions = self.policy.instructions(prompt=options.prompt, instructions=options.instructions)
        model = options.model or self.policy.model
        price = self.track_usage.pricing.price(model)

        user_id = caller.acts_for(turn.user_id)
        thread = None
        if turn.conversation_id is not None:
            thread = await self.conversations.thread(caller.tenant_id, turn.conversation_id)
            if thread is None or user_id not in (None, thread.user_id):
                raise ConversationNotFoundError
            user_id = thread.user_id
        if user_id is None:
            user_id = new_id("user")
        else:
            await self.rate_limiter.take(caller.tenant_id, user_id, per_minute=self.policy.rate_per_minute)

        # A token is at least one byte, so bytes bound tokens; what came before was counted by the provider itself.
        input_tokens = (
            turn.token_bound
            + len((instructions or "").encode())
            + (thread.context_tokens if thread else 0)
            + _OVERHEAD_TOKENS
        )
        ceiling = min(options.max_output_tokens or self.policy.max_output_tokens, self.policy.max_output_tokens)
        now = self.clock.now()
        message = Message(id=new_id("msg"), role="user", content=turn.content, created_at=now)
        hold = await self.ledger.reserve(
            Reservation(
                tenant_id=caller.tenant_id,
                user_id=user_id,
                conversation_id=thread.conversation_id if thread else new_id("conv"),
                revision=thread.revision if thread else None,
                title=title_from(message.text),
                response_id=new_id("resp"),
                kind=turn.kind,
                model=model,
                demand=demand(
                    price, input_tokens=input_tokens, max_output_tokens=ceiling, limit=self.policy.daily_limit
                ),
                at=now,
                lease_until=now + LEASE,
            )
        )
        return Course(
            turn=turn,
            message=message,
            thread=thread,
            hold=hold,
            instructions=instructions,
            max_output_tokens=affordable_output_tokens(
                price, held=hold.amount, input_tokens=input_tokens, max_output_tokens=ceiling
            ),
            log=log,
            asked_at=now,
            transcript_id=thread.transcript_id if thread else None,
            keeps_messages=self.policy.keep_messages,
        )

    def _check(self, options: TurnOptions) -> None:
        """Refuse options that no model takes.

        Raises:
            InvalidRequestError, InputTooLongError
        """
        if options.max_output_tokens is not None and options.max_output_tokens < MIN_OUTPUT_TOKENS:
            raise InvalidRequestError.of("max_output_tokens", f"must be at least {MIN_OUTPUT_TOKENS}")
        if options.temperature is not None and not 0 <= options.temperature <= 2:
            raise InvalidRequestError.of("temperature", "must be from 0 to 2")
        if options.instructions is not None and len(options.instructions) > self.policy.max_input_chars:
            raise InputTooLongError(length=len(options.instructions), limit=self.policy.max_input_chars)
        metadata = options.metadata or {}
        if len(metadata) > 16 or any(len(key) > 64 or len(value) > 512 for key, value in metadata.items()):
            raise InvalidRequestError.of(
                "metadata", "may have 16 pairs at most, keys of 64 and values of 512 characters at most"
            )

    # Ask

    async def _ask_and_settle(self, course: Course) -> None:
        try:
            ended = await self._ask(course)
        except asyncio.CancelledError:
            await self._settle_broken(course, status="cancelled", error=_SHUTTING_DOWN)
            raise
        except TextLLMError as error:
            await self._break_off(course, error)
        else:
            await self._end(course, ended)

    async def _ask(self, course: Course) -> ModelEnded:
        """Read the model's reply into the course and its log."""
        try:
            return await self._read_along(course)
        except ConversationLostError:
            if not self.policy.keep_messages:
                raise
            # Our own copy is the record; the provider's side of it is made anew.
            course.transcript_id = None
            return await self._read_along(course)

    async def _read_along(self, course: Course) -> ModelEnded:
        request = await self._request(course)
        course.is_asked = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.policy.first_token_timeout_s
        ended = None
        async with aclosing(self.llm.stream(request)) as events:
            try:
                while True:
                    async with asyncio.timeout_at(deadline):
                        event = await anext(events, None)
                    match event:
                        case ModelStarted():
                            await self._begin(course, event)
                        case TextDelta(text):
                            if not course.deltas:
                                course.first_text_at = self.clock.now()
                            course.deltas.append(text)
                            course.log.append(event)
                            deadline = loop.time() + self.policy.silence_timeout_s
                        case ModelEnded():
                            ended = replace(event, text=well_formed(event.text))
                            # Read on: only a stream read to its end gives its connection back.
                        case None if ended is not None:
                            return ended
                        case None:
                            raise ProviderError("The model's reply broke off.")
            except TimeoutError as error:
                waited = "to begin" if not course.deltas else "to go on"
                raise ProviderTimeoutError(f"The model took too long {waited}.") from error

    async def _request(self, course: Course) -> ModelRequest:
        hold, options = course.hold, course.turn.options
        if self.transcript is None:
            messages = (*await self._history(course, limit=self.policy.max_history_items), course.message)
        else:
            if course.transcript_id is None:
                if course.thread and course.thread.message_count and not self.policy.keep_messages:
                    raise ConversationLostError
                course.transcript_id = await self.transcript.create(await self._history(course, limit=None))
            messages = (course.message,)
        return ModelRequest(
            model=hold.model,
            messages=messages,
            transcript_id=course.transcript_id,
            instructions=course.instructions,
            max_output_tokens=course.max_output_tokens,
            temperature=options.temperature,
            metadata=options.metadata,
            safety_identifier=hashlib.sha256(f"{hold.tenant_id}\0{hold.user_id}".encode()).hexdigest(),
            cache_key=hold.conversation_id,
        )

    async def _history(self, course: Course, *, limit: int | None) -> tuple[Message, ...]:
        if course.thread is None or course.thread.message_count == 0:
            return ()
        hold = course.hold
        messages = list(
            await self.conversations.last_messages(hold.tenant_id, hold.user_id, hold.conversation_id, limit=limit)
        )
        while messages and messages[0].role != "user":  # a cut through the middle of a turn
            del messages[0]
        return tuple(messages)

    async def _begin(self, course: Course, started: ModelStarted) -> None:
        course.started = started
        course.hold = await self.ledger.pend(
            course.hold, provider_response_id=started.provider_response_id, model=started.model
        )
        hold = course.hold
        course.log.append(
            ReplyStarted(
                response_id=hold.response_id,
                conversation_id=hold.conversation_id,
                user_id=hold.user_id,
                session_id=hold.session_id,
                model=started.model,
            )
        )

    # Settle

    async def _end(self, course: Course, ended: ModelEnded) -> None:
        """Write down a reply whose end the model itself stated; then tell."""
        now = self.clock.now()
        if ended.content_filtered:
            outcome = course.unanswered(ended, status="incomplete", at=now)
            await self._settle(course, outcome)
            course.log.fail(course.hold.response_id, ContentRefusedError())
        elif ended.status in ("failed", "cancelled"):
            outcome = course.unanswered(ended, status="failed", at=now, in_doubt=False)
            await self._settle(course, outcome)
            course.log.fail(course.hold.response_id, ProviderError("The model could not finish its reply."))
        else:
            charge = await self._settle(course, course.answered(ended, at=now))
            if charge is not None:
                course.log.append(ReplyCompleted(self._reply(course, ended, charge)))

    async def _break_off(self, course: Course, error: TextLLMError) -> None:
        """Write down a reply that the model did not end, if it can have cost anything; then tell."""
        may_have_run = course.is_asked and isinstance(error, ModelError) and error.may_have_run
        if course.started is not None or may_have_run:
            await self._settle_broken(course, status="failed", error=error)
        else:
            await self._release(course, error)

    async def _settle_broken(self, course: Course, *, status: EntryStatus, error: TextLLMError) -> None:
        """Ask the provider what a broken reply came to, and settle it; an estimate where nobody can say."""
        ended = None
        for pause in _OUTCOME_PAUSES_S:
            await asyncio.sleep(pause)
            if course.started is None or course.started.provider_response_id is None:
                break
            with suppress(ModelError):  # it is asked again, and at last estimated
                ended = await self.llm.outcome(course.started.provider_response_id)
            if ended is not None:
                break
            course.log.fail(course.hold.response_id, error)  # the caller need not wait for the rest
        await self._settle(course, course.unanswered(ended, status=status, at=self.clock.now()))
        course.log.fail(course.hold.response_id, error)

    async def _settle(self, course: Course, outcome: Outcome) -> Charge | None:
        """Settle, however long the storage is away; what it still misses after that, recovery settles.

        Raises:
            StorageUnavailableError: it never came back.
        """
        for tries, pause in enumerate(_SETTLE_PAUSES_S):
            try:
                charge = await self.track_usage(course.hold, outcome)
            except StorageUnavailableError as error:
                if tries == _TELL_AFTER_TRIES:
                    course.log.fail(course.hold.response_id, error)
                await asyncio.sleep(pause)
            else:
                if charge is None:
                    settled_elsewhere = StorageUnavailableError("This turn was settled by recovery, without its reply.")
                    course.log.fail(course.hold.response_id, settled_elsewhere)
                return charge
        raise StorageUnavailableError

    async def _release(self, course: Course, error: TextLLMError) -> None:
        course.log.fail(course.hold.response_id, error)
        for pause in _SETTLE_PAUSES_S:
            try:
                await self.ledger.release(course.hold)
            except StorageUnavailableError:
                await asyncio.sleep(pause)
            else:
                return

    def _reply(self, course: Course, ended: ModelEnded, charge: Charge) -> Reply:
        hold, policy = course.hold, self.policy
        warnings = []
        if charge.spent >= policy.warn_at:
            warnings.append(f"{charge.spent:f} of {policy.daily_limit:f} USD of today's budget are used.")
        return Reply(
            text=ended.text,
            conversation_id=hold.conversation_id,
            user_id=hold.user_id,
            message_number=charge.message_number,
            usage=ReplyUsage.of(charge.usage),
            cost=charge.cost,
            response_id=hold.response_id,
            session_id=hold.session_id,
            model=course.started.model if course.started else hold.model,
            finish_reason=ended.finish_reason,
            warnings=warnings,
        )

    @asynccontextmanager
    async def _kept_alive(self, course: Course) -> AsyncIterator[None]:
        """Renew the lease for as long as the block runs."""

        async def renew() -> None:
            while True:
                await asyncio.sleep(_RENEW_EVERY_S)
                with suppress(StorageUnavailableError):  # the lease outlasts two missed renewals
                    await self.ledger.renew(course.hold, lease_until=self.clock.now() + LEASE)

        renewing = asyncio.create_task(renew())
        try:
            yield
        finally:
            renewing.cancel()
