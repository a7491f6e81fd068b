"""The one path of every turn: admit, ask, settle."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Final, Self

from msgspec.structs import replace

from textllm_core import steps
from textllm_core.chat.admission import Admission
from textllm_core.chat.ask_model import AskModel
from textllm_core.chat.attachments import Attachments
from textllm_core.chat.journal import WRITE_EVERY_S, JournalWriter
from textllm_core.chat.leases import Leases
from textllm_core.chat.open_exchange import OpenExchange
from textllm_core.chat.remains import OUTCOME_WITHIN_S
from textllm_core.chat.reply_log import reply_of
from textllm_core.chat.routes import Reads, Routes
from textllm_core.chat.running import RENEW_EVERY_S, Running, RunningExchanges
from textllm_core.chat.settlement import Ending, ending, refused
from textllm_core.chat.track_usage import TrackUsage
from textllm_core.chat.turn_files import discard_files
from textllm_core.errors import (
    ProviderError,
    ProviderUnavailableError,
    ServiceUnavailableError,
    StorageUnavailableError,
    TextLLMError,
)
from textllm_core.events import UNHEARD, ExchangeAdmitted
from textllm_core.file_tokens import dearest_reader
from textllm_core.policy import ChatPolicy
from textllm_core.ports.clock import Clock
from textllm_core.ports.conversation_repository import ConversationRepository
from textllm_core.ports.ledger import Ledger
from textllm_core.ports.llm import LLM
from textllm_core.ports.rate_limiter import RateLimiter
from textllm_core.ports.reply_journal import ReplyJournal
from textllm_core.ports.telemetry import Telemetry
from textllm_core.ports.tracer import Tracer
from textllm_core.ports.turnstile import Turnstile
from textllm_core.pricing import Pricing
from textllm_core.records.journal import JournalEntry
from textllm_core.records.messages import ReplyCompleted, ReplyEvent, ReplyFailed, ReplyStarted, Turn
from textllm_core.records.model import ModelEnded
from textllm_core.records.stored_responses import ResponseFailure
from textllm_core.steps import UNTRACED
from textllm_core.tenancy import Caller

_TELL_AFTER_TRIES: Final = 3  # of settling, after 1.4 s; then the caller is told that the storage is away


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """Carries a turn to the model and its reply back, and keeps the books, whoever leaves meanwhile."""

    admission: Admission
    ask: AskModel
    llm: LLM
    ledger: Ledger
    track_usage: TrackUsage
    writer: JournalWriter
    pricing: Pricing
    clock: Clock
    policy: ChatPolicy
    running: RunningExchanges
    telemetry: Telemetry
    tracer: Tracer

    @classmethod
    def over(
        cls,
        *,
        llm: LLM,
        routes: Routes,
        ledger: Ledger,
        conversations: ConversationRepository,
        journal: ReplyJournal,
        rate_limiter: RateLimiter,
        turnstile: Turnstile,
        track_usage: TrackUsage,
        pricing: Pricing,
        clock: Clock,
        policy: ChatPolicy,
        running: RunningExchanges,
        attachments: Attachments | None = None,
        telemetry: Telemetry = UNHEARD,
        tracer: Tracer = UNTRACED,
    ) -> Self:
        """Over one set of adapters; what runs is looked after for as long as it does.

        Args:
            llm: says what became of replies, whichever provider wrote them.
            routes: the models that answer.
            attachments: reads the files of messages; None where no turn ever has any.
            tracer: follows each turn through admission, the call of the provider and settlement.
        """
        writer = JournalWriter(journal, policy.begin_within_s)
        exchange = cls(
            admission=Admission(
                ledger=ledger,
                conversations=conversations,
                rate_limiter=rate_limiter,
                turnstile=turnstile,
                pricing=pricing,
                clock=clock,
                policy=policy,
                routes=routes,
            ),
            ask=AskModel(
                ledger=ledger,
                conversations=conversations,
                writer=writer,
                clock=clock,
                policy=policy,
                attachments=attachments,
                telemetry=telemetry,
                tracer=tracer,
            ),
            llm=llm,
            ledger=ledger,
            track_usage=track_usage,
            writer=writer,
            pricing=pricing,
            clock=clock,
            policy=policy,
            running=running,
            telemetry=telemetry,
            tracer=tracer,
        )
        leases = Leases(ledger, running, clock)
        running.repeat(leases.renew, every_s=RENEW_EVERY_S)
        running.repeat(writer.write, every_s=WRITE_EVERY_S)
        running.repeat(leases.note_usage, every_s=WRITE_EVERY_S)
        return exchange

    def reads(self, model: str | None) -> Reads:
        """What a turn may bring that names this model, or none.

        Raises:
            InvalidRequestError: there is none of this name.
        """
        return self.admission.routes.reads(model or self.policy.model)

    def called(self, model: str, *, asked: str | None) -> str:
        """The name by which callers can ask for the model that has answered a turn.

        Args:
            model: as the reply names it; `asked`: as the turn did, None where it named none.
        """
        return self.admission.routes.called(model, asked=asked or self.policy.model)

    def reader(self, model: str | None) -> str:
        """The model by which the tokens of a turn's files are bounded, of those that may answer it.

        Raises:
            InvalidRequestError: as `reads`.
        """
        return dearest_reader([route.model for route in self.admission.routes.to(model or self.policy.model)])

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
        async with aclosing(self.batches(caller, turn)) as batches:
            async for batch in batches:
                for event in batch:
                    yield event

    async def batches(
        self, caller: Caller, turn: Turn, *, failed: Callable[[ReplyFailed], Awaitable[None]] | None = None
    ) -> AsyncGenerator[list[ReplyEvent], None]:
        """As `run`, as many events at a time as there are by then; `failed`: done before a failure is told."""
        running = await self._started(caller, turn)
        try:
            async with aclosing(running.log.batches()) as batches:
                async for batch in batches:
                    if failed is not None and isinstance(batch[-1], ReplyFailed):
                        await failed(batch[-1])
                    yield batch
        finally:
            self.running.left(running)

    async def answer(self, caller: Caller, turn: Turn) -> tuple[ReplyStarted, ReplyCompleted]:
        """As `run`, for who waits for the end: the first event, and the last one.

        Raises:
            TextLLMError: what `run` raises, and the error of its `ReplyFailed`.
        """
        started, end = await self.ends(caller, turn)
        return started, reply_of(end)

    async def ends(
        self, caller: Caller, turn: Turn, *, begun: Callable[[ReplyStarted], None] | None = None
    ) -> tuple[ReplyStarted, ReplyEvent | None]:
        """The first event and the last one, as `ReplyLog.ended` has it.

        Args:
            begun: is told the first event once it is there, while the model goes on.
        Raises:
            TextLLMError: what `run` raises.
        """
        running = await self._started(caller, turn)
        try:
            if begun is not None and (started := await running.log.begun()) is not None:
                begun(started)
            end = await running.log.ended()
        finally:
            self.running.left(running)
        return running.log.first, end

    async def begin(self, caller: Caller, turn: Turn) -> Running:
        """As `run`, for who does not wait for its end: what runs, admitted; or a repeat, whose events are in its log.

        Whoever reads its log to the end keeps it from being cut short, as one is that nobody reads.
        Raises:
            TextLLMError: what `run` raises before the model is asked.
        """
        running = Running()
        running.admitted = asyncio.get_running_loop().create_future()
        await self._started(caller, turn, running)
        ended = asyncio.ensure_future(running.log.ended())
        either: list[asyncio.Future[Any]] = [ended, running.admitted]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if running.hold is None:
                await ended
        finally:
            if not ended.done():
                ended.cancel()
        return running

    async def _started(self, caller: Caller, turn: Turn, running: Running | None = None) -> Running:
        running = running or Running()
        try:
            self.running.start(self._carry_out(caller, turn, running), running)
        except ServiceUnavailableError:
            await discard_files(turn)
            raise
        # It may be cut short before it has begun.
        running.task.add_done_callback(lambda _: running.log.refuse(self._why_cut_short()))
        if turn.attached is not None:
            turn.attached.wait_for(running.task)
        return running

    async def _carry_out(self, caller: Caller, turn: Turn, running: Running) -> None:
        log, since = running.log, turn.since or asyncio.get_running_loop().time()
        try:
            of = await self._admit(caller, turn, running)
            if of is not None:  # else it is a repeat, whose events are in the log
                self.running.admit(running, of.hold)
                if turn.is_resumable or turn.is_streamed:
                    early = of.first_event(of.hold.model)
                    self.writer.open(of.hold, log, early, since=since, is_written=turn.is_resumable)
                try:
                    await self._ask_and_settle(of, running)
                finally:
                    self.writer.close(of.hold)
                    self.running.release(running)
        except TextLLMError as refusal:
            log.refuse(refusal)
        except Exception as defect:
            log.refuse(defect)
            raise
        else:
            log.close()

    async def _admit(self, caller: Caller, turn: Turn, running: Running) -> OpenExchange | None:
        """The exchange, admitted; what was stored for a turn that is not is discarded."""
        of = None
        try:
            with self.tracer.span(steps.Admitting(turn.kind)):
                async with self.running.starting():
                    of = await self.admission.admit(caller, turn, running)
                if of is not None:
                    self.telemetry.emit(ExchangeAdmitted(of.hold.response_id, of.hold.amount))
        finally:
            if of is None:
                await discard_files(turn)
        return of

    async def _ask_and_settle(self, of: OpenExchange, running: Running) -> None:
        ended: ModelEnded | None = None
        error: TextLLMError | None = None
        defect: Exception | None = None
        is_cut_short = False
        try:
            running.expose()
            if of.turn.show_files is not None:
                await of.turn.show_files()
            ended = await self.ask(of)
        except asyncio.CancelledError:
            is_cut_short, error = True, None if running.is_cancelled else self._why_cut_short()
        except TextLLMError as failure:
            error = failure
        except Exception as broken:  # noqa: BLE001 - it is raised once the turn is settled
            error, defect = ProviderError("The reply broke off on our side."), broken
        finally:
            running.protect()
        with self.tracer.span(steps.Settling(of.hold.response_id)):
            if ended is None and not (of.is_asked if is_cut_short else of.may_have_run(error)):
                why = error or ProviderUnavailableError("The turn was cancelled before it began.")
                await self._release(of, why, running.failure_of(why))
            else:
                if ended is None:
                    ended = await self._account(of, error)
                said, now = await self.writer.rest(of.hold), self.clock.now()
                end = ending(of, ended, pricing=self.pricing, at=now, error=error, is_cut_short=is_cut_short)
                try:
                    end = end.kept() if end.unsure and await self.ask.keep(of, end.unsure) else end
                except Exception as broken:  # noqa: BLE001 - as above
                    defect = defect or broken
                await self._settle(of, end, said)
        if defect is not None:
            raise defect

    async def _account(self, of: OpenExchange, error: TextLLMError | None) -> ModelEnded | None:
        """What the provider says a broken reply came to; None where nobody can say.

        Args:
            error: what its caller is told; then it is asked once, since what it says later corrects the entry, and the
                conversation is not to wait for it. Who has cancelled a reply is told its cost, and waits for it.
        """
        if of.started is None or of.started.provider_response_id is None:
            return None
        for pause in self.policy.outcome_pauses_s if error is None else (0.0,):
            await asyncio.sleep(pause)
            with suppress(TextLLMError, TimeoutError):  # it is asked again, if need be after an estimate
                async with asyncio.timeout(OUTCOME_WITHIN_S):
                    ended = await self.llm.outcome(of.started.provider_response_id)
                if ended is not None:
                    return ended
        return None

    async def _settle(self, of: OpenExchange, end: Ending, said: JournalEntry | None) -> None:
        """Settle, then tell, however long the storage is away; what it still misses after that, recovery settles.

        Raises:
            StorageUnavailableError: it never came back.
        """
        told = end.told
        if isinstance(told, TextLLMError):
            self.telemetry.emit(of.failure(told))
        for tries, pause in enumerate(self.policy.storage_pauses_s):
            try:
                settled = await self.track_usage(of.hold, end.settlement, said=said)
                break
            except StorageUnavailableError as outage:
                if tries == _TELL_AFTER_TRIES:
                    self._fail(of, outage)
                await asyncio.sleep(pause)
        else:
            raise StorageUnavailableError
        if settled is None:
            self._fail(of, StorageUnavailableError("This turn was settled by recovery, without its reply."))
        if isinstance(told, TextLLMError):
            if not end.settlement.leaves_files:
                await discard_files(of.turn)
            self._fail(of, told)
        elif settled is not None:
            warnings = self.policy.warnings(settled.spent)
            reply = replace(told.reply, message_number=settled.message_number, warnings=warnings)
            of.log.append(replace(told, reply=reply))
            of.log.close()

    async def _release(self, of: OpenExchange, error: TextLLMError, failure: ResponseFailure) -> None:
        """Give back what was promised to a turn that never ran, then tell, however long the storage is away."""
        self.telemetry.emit(of.failure(error.of_nothing()))
        await self.writer.stop(of.hold)
        hold, made = of.hold, of.made_transcripts
        end = refused(hold.response_id, error, number=of.log.end_number, at=self.clock.now())
        for pause in self.policy.storage_pauses_s:
            try:
                await self.ledger.release(hold, transcripts=made, replies=of.replies, failure=failure, end=end)
                break
            except StorageUnavailableError:
                self._fail(of, error)
                await asyncio.sleep(pause)
        await discard_files(of.turn)
        self._fail(of, error)

    def _why_cut_short(self) -> TextLLMError:
        if self.running.is_winding_down:
            return ServiceUnavailableError("The reply was cut short: the service is shutting down.")
        return ProviderUnavailableError("The reply was cut short: nobody was reading it any more.")

    def _fail(self, of: OpenExchange, error: TextLLMError) -> None:
        error.allowance = of.allowance
        of.log.fail(of.hold.response_id, error)
