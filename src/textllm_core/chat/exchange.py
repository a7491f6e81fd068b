"""The one path of every turn: admit, ask, settle."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from textllm_core import steps
from textllm_core.cancellation import carried_through
from textllm_core.chat.admission import Admission
from textllm_core.chat.attachments import Attachments
from textllm_core.chat.course import Course
from textllm_core.chat.journal import JournalWriter
from textllm_core.chat.reply_log import ReplyLog
from textllm_core.chat.running import Leases, Running, RunningExchanges
from textllm_core.chat.settling import Settling
from textllm_core.errors import (
    ContextTooLongError,
    ConversationLostError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    ServiceUnavailableError,
    StorageUnavailableError,
    TextLLMError,
    UnsupportedMediaTypeError,
)
from textllm_core.events import ExchangeAdmitted, ExchangeAnswered, ExchangeBegun
from textllm_core.policy import ChatPolicy
from textllm_core.ports.clock import Clock
from textllm_core.ports.conversation_repository import ConversationRepository
from textllm_core.ports.ledger import Ledger
from textllm_core.ports.llm import LLM
from textllm_core.ports.rate_limiter import RateLimiter
from textllm_core.ports.reply_journal import ReplyJournal
from textllm_core.ports.tracer import Tracer
from textllm_core.ports.transcript import Transcript
from textllm_core.records.ledger import Hold
from textllm_core.records.messages import (
    Message,
    Reply,
    ReplyCompleted,
    ReplyEvent,
    ReplyFailed,
    TextDelta,
    Turn,
    well_formed,
)
from textllm_core.records.model import ModelEnded, ModelRequest, ModelStarted, ModelThinking, ReadBlob
from textllm_core.steps import UNTRACED
from textllm_core.tenancy import Caller
from textllm_core.track_usage import TrackUsage

_PEND_PAUSES_S: Final = (0.1, 0.3)
_READ_ON_S: Final = 1.0
_SHOWN_BEFORE: Final = (
    "This conversation has an image or a file that the model cannot read; use another model, or begin a new one."
)


async def last_reply(events: AsyncGenerator[ReplyEvent, None]) -> Reply:
    """Read a reply to its end.

    Raises:
        TextLLMError: the error of `ReplyFailed`, or what the events raise.
        ServiceUnavailableError: they have no end, because this process is about to end.
    """
    async with aclosing(events):
        async for event in events:
            match event:
                case ReplyCompleted(reply):
                    return reply
                case ReplyFailed(_, error):
                    raise error
    raise ServiceUnavailableError("The service is shutting down; ask for this reply again.")


@dataclass(frozen=True, slots=True)
class Exchange:
    """Carries a turn to the model and its reply back, and keeps the books, whoever leaves meanwhile.

    Args:
        transcript: the provider's side of conversations; None where the history is sent with each turn.
        attachments: reads the files of messages; None where no turn ever has any.
        tracer: follows each turn through admission, the call of the provider and settlement.
    """

    llm: LLM
    transcript: Transcript | None
    ledger: Ledger
    conversations: ConversationRepository
    journal: ReplyJournal
    rate_limiter: RateLimiter
    track_usage: TrackUsage
    clock: Clock
    policy: ChatPolicy
    running: RunningExchanges
    attachments: Attachments | None = None
    tracer: Tracer = UNTRACED
    leases: Leases = field(init=False)
    writer: JournalWriter = field(init=False)
    settling: Settling = field(init=False)
    admission: Admission = field(init=False)

    def __post_init__(self) -> None:
        writer = JournalWriter(self.journal, self.policy.begin_within_s)
        leases = Leases(self.ledger, self.clock)
        settling = Settling(self.llm, self.ledger, writer, self.track_usage, self.clock, self.policy)
        admission = Admission(
            ledger=self.ledger,
            conversations=self.conversations,
            rate_limiter=self.rate_limiter,
            pricing=self.track_usage.pricing,
            clock=self.clock,
            policy=self.policy,
            leases=leases,
            settling=settling,
            has_transcripts=self.transcript is not None,
        )
        for name, made in (("leases", leases), ("writer", writer), ("settling", settling), ("admission", admission)):
            object.__setattr__(self, name, made)

    async def run(self, caller: Caller, turn: Turn) -> AsyncGenerator[ReplyEvent, None]:
        """`ReplyStarted`, any number of `TextDelta`, then `ReplyCompleted` or `ReplyFailed`.

        The work is done by a task of its own; this generator only reads along, and may be closed at any time.
        Raises:
            InvalidRequestError, InputTooLongError, NotFoundError: the turn is wrong.
            RateLimitedError, BudgetExceededError, ConversationBusyError: it is not admitted now.
            ConversationLostError, ContextTooLongError, ContentRefusedError, ModelError: the model never began.
            ServiceUnavailableError: this process takes no more turns, or runs as many as it can.
            StorageUnavailableError: the books could not be opened.
        """
        log = ReplyLog()
        try:
            task = self.running.start(self._carry_out(caller, turn, log))
        except ServiceUnavailableError:
            await self._take_back_files(turn)
            raise
        task.add_done_callback(lambda _: log.refuse(self._cut_short()))  # it may be cancelled before it has begun
        try:
            async with aclosing(log.read()) as events:
                async for event in events:
                    yield event
        finally:
            self.running.left(task, log)

    def _cut_short(self) -> TextLLMError:
        if self.running.is_winding_down:
            return ServiceUnavailableError("The reply was cut short: the service is shutting down.")
        return ProviderUnavailableError("The reply was cut short: nobody was reading it any more.")

    async def _carry_out(self, caller: Caller, turn: Turn, log: ReplyLog) -> None:
        since = asyncio.get_running_loop().time()
        try:
            course = await self._admitted(caller, turn, log)
            if course is None:
                log.close()
                return
            hold = course.hold
            running = self.running.admit(hold, log)
            self.leases.keep(hold)
            if turn.is_resumable:
                self.writer.open(hold, log, course.first_event(hold.model), since=since)
            try:
                await self._ask_and_settle(course, running)
            finally:
                self.writer.close(hold)
                self.leases.let_go(hold)
                self.running.release(hold)
        except TextLLMError as refusal:
            log.refuse(refusal)
        except Exception as defect:
            log.refuse(defect)
            raise
        else:
            log.close()

    async def _admitted(self, caller: Caller, turn: Turn, log: ReplyLog) -> Course | None:
        """The exchange, admitted; what was stored for a turn that is not admitted is taken back."""
        course = None
        try:
            with self.tracer.span(steps.Admitting(turn.kind)):
                async with self.running.starting():
                    course = await self.admission.admit(caller, turn, log)
                if course is not None:
                    hold = course.hold
                    self.track_usage.telemetry.emit(ExchangeAdmitted(hold.response_id, hold.amount))
        finally:
            if course is None:
                await self._take_back_files(turn)
        return course

    async def _take_back_files(self, turn: Turn) -> None:
        if turn.take_back is not None:
            await carried_through(turn.take_back())

    async def _ask_and_settle(self, course: Course, running: Running) -> None:
        try:
            ended = await self._ask(course)
        except asyncio.CancelledError:
            error = None if running.is_cancelled else self._cut_short()
            await carried_through(self._settle(course, self.settling.cut_short(course, error)))
            raise
        except TextLLMError as error:
            await carried_through(self._settle(course, self.settling.break_off(course, error)))
        except Exception:
            ours = ProviderError("The reply broke off on our side.")
            await carried_through(self._settle(course, self.settling.break_off(course, ours)))
            raise
        else:
            await carried_through(self._settle(course, self.settling.end(course, ended)))

    async def _settle(self, course: Course, settling: Coroutine[None, None, None]) -> None:
        with self.tracer.span(steps.Settling(course.hold.response_id)):
            await settling

    async def _ask(self, course: Course) -> ModelEnded:
        """Read the model's reply into the course and its log."""
        try:
            ended = await self._read_along(course)
        except ContextTooLongError as error:
            raise course.told(error) from error
        except UnsupportedMediaTypeError:
            if course.message.stored_parts or course.started is not None:
                raise
            if self.transcript is not None:
                raise UnsupportedMediaTypeError(_SHOWN_BEFORE) from None
            course.sends_files = False  # what was shown earlier must not keep the conversation from going on
            ended = await self._read_along(course)
        except ConversationLostError:
            if not course.keeps_messages:
                raise
            # Our own copy is the record; the provider's side of it is made anew.
            course.transcript_id = None
            ended = await self._read_along(course)
        return ended if ended.error is None else replace(ended, error=course.told(ended.error))

    async def _read_along(self, course: Course) -> ModelEnded:
        request = await self._request(course)
        if not course.hold.is_asked or course.hold.transcript_id != course.unasked_transcript:
            course.hold = await self.ledger.ask(course.hold, transcript_id=course.unasked_transcript)
        course.is_asked = True
        with self.tracer.span(steps.Asking(request.model)):
            return await self._hear(course, request)

    async def _hear(self, course: Course, request: ModelRequest) -> ModelEnded:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.policy.first_token_timeout_s
        async with aclosing(self.llm.stream(request)) as events:
            try:
                async with asyncio.timeout_at(deadline) as patience:
                    while True:
                        match await anext(events, None):
                            case ModelStarted() as started:
                                patience.reschedule(None)  # what follows is our own work
                                await self._begin(course, started)
                                patience.reschedule(deadline)
                            case ModelThinking(characters):
                                course.thought += characters
                                patience.reschedule(loop.time() + self._patience_s(course))
                            case TextDelta(text):
                                course.hear(text, clock=self.clock)
                                patience.reschedule(loop.time() + self.policy.silence_timeout_s)
                            case ModelEnded() as ended:
                                patience.reschedule(None)
                                course.hear_out()
                                self._state_answer(course, ended)
                                # Only a stream that is read to its end gives its connection back.
                                with suppress(TextLLMError, TimeoutError):
                                    async with asyncio.timeout(_READ_ON_S):
                                        await anext(events, None)
                                return replace(ended, text=well_formed(ended.text))
                            case None:
                                raise ProviderError("The model's reply broke off.")
            except TimeoutError as error:
                waited = "to begin" if course.first_text_at is None else "to go on"
                raise ProviderTimeoutError(f"The model took too long {waited}.") from error

    def _patience_s(self, course: Course) -> float:
        """How long the model may be silent from here on."""
        policy = self.policy
        return policy.first_token_timeout_s if course.first_text_at is None else policy.silence_timeout_s

    async def _request(self, course: Course) -> ModelRequest:
        hold, options = course.hold, course.turn.options
        if course.transcript_id is None and course.has_past and not course.keeps_messages:
            raise ConversationLostError  # the provider keeps the only copy, and we cannot send it
        if self.transcript is None or course.turn.is_aside:
            transcript_id = None
            messages = await self._sendable(course, (*await self._past(course), course.message))
        else:
            if course.transcript_id is None:
                history = await self._sendable(course, await self._history(course, limit=None))
                course.transcript_id = await self.transcript.create(history, read=self._read)
            transcript_id = course.transcript_id
            messages = await self._sendable(course, (course.message,))
        return ModelRequest(
            model=hold.model,
            messages=messages,
            transcript_id=transcript_id,
            instructions=course.instructions,
            max_output_tokens=course.max_output_tokens,
            temperature=options.temperature,
            metadata=options.metadata,
            safety_identifier=hashlib.sha256(f"{hold.tenant_id}\0{hold.user_id}".encode()).hexdigest(),
            cache_key=hold.conversation_id,
            read=self._read,
        )

    @property
    def _read(self) -> ReadBlob | None:
        return None if self.attachments is None else self.attachments.read

    async def _sendable(self, course: Course, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        if self.attachments is None:
            return messages
        return await self.attachments.sendable(messages, self.llm if course.sends_files else None)

    async def _past(self, course: Course) -> tuple[Message, ...]:
        """What was said before, to be sent with the turn."""
        if self.transcript is None:
            return await self._history(course, limit=self.policy.max_history_items)
        if course.keeps_messages or course.transcript_id is None:
            return await self._history(course, limit=None)
        return tuple(message for message in await self.transcript.messages(course.transcript_id) if message.content)

    async def _history(self, course: Course, *, limit: int | None) -> tuple[Message, ...]:
        if not course.has_past:
            return ()
        hold = course.hold
        messages = list(
            await self.conversations.last_messages(hold.tenant_id, hold.user_id, hold.conversation_id, limit=limit)
        )
        while messages and messages[0].role != "user":  # a cut through the middle of a turn
            del messages[0]
        return tuple(message for message in messages if message.text_for_model or message.role == "user")

    async def _begin(self, course: Course, started: ModelStarted) -> None:
        course.started = started
        course.hold = replace(course.hold, provider_response_id=started.provider_response_id)
        self.track_usage.telemetry.emit(
            ExchangeBegun(course.hold.response_id, started.model, started.provider_response_id)
        )
        begun = course.begun()
        assert begun is not None
        await asyncio.gather(self._pend(course.hold, started), self.writer.begin(begun))
        if not course.log.length:
            course.log.append(begun)

    def _state_answer(self, course: Course, ended: ModelEnded) -> None:
        self.track_usage.telemetry.emit(
            ExchangeAnswered(
                response_id=course.hold.response_id,
                status=ended.status,
                finish_reason=ended.finish_reason,
                usage=ended.usage,
                error_code=ended.error_code,
            )
        )

    async def _pend(self, hold: Hold, started: ModelStarted) -> None:
        """Write down that the model has begun; a paid reply is not given up for a hiccup of the storage.

        Raises:
            StorageUnavailableError: it was more than that.
        """
        for pause in _PEND_PAUSES_S:
            try:
                await self.ledger.pend(hold, provider_response_id=started.provider_response_id, model=started.model)
            except StorageUnavailableError:
                await asyncio.sleep(pause)
            else:
                return
        await self.ledger.pend(hold, provider_response_id=started.provider_response_id, model=started.model)
