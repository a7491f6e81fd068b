"""The last part of every turn: find out what the reply came to, write it down, then tell."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from msgspec.structs import replace

from textllm_core.chat.course import Course
from textllm_core.chat.journal import JournalWriter
from textllm_core.chat.remains import OUTCOME_WITHIN_S, Remains
from textllm_core.chat.replay import remembered_failure, remembered_reply, reply_to
from textllm_core.errors import (
    ContentRefusedError,
    ModelError,
    ProviderError,
    ProviderUnavailableError,
    StorageUnavailableError,
    TextLLMError,
)
from textllm_core.events import ExchangeFailed
from textllm_core.policy import ChatPolicy
from textllm_core.ports.clock import Clock
from textllm_core.ports.ledger import Ledger
from textllm_core.ports.llm import LLM
from textllm_core.records.ledger import Hold
from textllm_core.records.messages import FinishReason, Reply, ReplyCompleted
from textllm_core.records.model import ModelEnded
from textllm_core.track_usage import Charge, Outcome, TrackUsage
from textllm_core.usage import Usage

_TELL_AFTER_TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class Settling:
    """Ends an admitted exchange, in exactly one way; its caller hears of it once it is in the books."""

    llm: LLM
    ledger: Ledger
    writer: JournalWriter
    track_usage: TrackUsage
    clock: Clock
    policy: ChatPolicy

    async def end(self, course: Course, ended: ModelEnded) -> None:
        """The model itself stated the end."""
        if ended.content_filtered:
            await self._settle_broken(course, ended, ContentRefusedError())
        elif ended.status in ("failed", "cancelled"):
            error = ended.error or ProviderError("The model could not finish its reply.")
            await self._settle_broken(course, ended, error)
        else:
            remember = _reply_memory(course, ended.text, ended.finish_reason)
            charge = await self._settle(course, course.answered(ended, at=self.clock.now(), remember=remember))
            self._complete(course, charge, ended.text, ended.finish_reason)

    async def break_off(self, course: Course, error: TextLLMError) -> None:
        """The model did not end the reply, or never took the turn."""
        may_have_run = course.is_asked and isinstance(error, ModelError) and error.may_have_run
        if course.started is not None or may_have_run:
            await self._settle_broken(course, await self._account(course, error), error)
        else:
            await self._release(course, error)

    async def cut_short(self, course: Course, error: TextLLMError | None) -> None:
        """We end the reply ourselves; what was written of it stays in the conversation.

        Args:
            error: what the caller is told; None for one who wanted it so, and is told of a reply.
        """
        if not course.is_asked:
            await self._release(course, error or ProviderUnavailableError("The turn was cancelled before it began."))
            return
        ended = await self._account(course, error)
        left = replace(course.remains(ended), status="cancelled", text=course.text, is_kept=bool(course.text))
        if error is not None:
            await self._settle_failed(course, left, ended, error)
            return
        remember = _reply_memory(course, course.text, "cancelled")
        outcome = course.broken_off(left, ended, at=self.clock.now(), remember=remember)
        self._complete(course, await self._settle(course, outcome), course.text, "cancelled")

    async def _account(self, course: Course, error: TextLLMError | None) -> ModelEnded | None:
        """What the provider says a broken reply came to; None where nobody can say.

        Args:
            error: what its caller is told; then it is asked once, since what it says later corrects the entry, and the
                conversation is not to wait for it. Who has cancelled a reply is told its cost, and waits for it.
        """
        if course.started is None or course.started.provider_response_id is None:
            return None
        for pause in self.policy.outcome_pauses_s if error is None else (0.0,):
            await asyncio.sleep(pause)
            with suppress(TextLLMError, TimeoutError):  # it is asked again, if need be after an estimate
                async with asyncio.timeout(OUTCOME_WITHIN_S):
                    ended = await self.llm.outcome(course.started.provider_response_id)
                if ended is not None:
                    return ended
        return None

    async def _settle_broken(self, course: Course, ended: ModelEnded | None, error: TextLLMError) -> None:
        await self._settle_failed(course, course.remains(ended, error), ended, error)

    async def _settle_failed(
        self, course: Course, left: Remains, ended: ModelEnded | None, error: TextLLMError
    ) -> None:
        self._state_failure(course, error)
        remember = (lambda *_: remembered_failure(course.begun(), error)) if course.is_remembered else None
        outcome = course.broken_off(left, ended, at=self.clock.now(), remember=remember)
        await self._settle(course, outcome)
        if not outcome.answered:
            await self._take_back_files(course)
        self._fail(course, error)

    async def _settle(self, course: Course, outcome: Outcome) -> Charge | None:
        """Settle, however long the storage is away; what it still misses after that, recovery settles.

        Raises:
            StorageUnavailableError: it never came back.
        """
        for tries, pause in enumerate(self.policy.storage_pauses_s):
            try:
                await self.writer.write_out(course.hold.response_id)
                charge = await self.track_usage(course.hold, outcome)
            except StorageUnavailableError as error:
                if tries == _TELL_AFTER_TRIES:
                    self._fail(course, error)
                await asyncio.sleep(pause)
            else:
                if charge is None:
                    self._fail(course, StorageUnavailableError("This turn was settled by recovery, without its reply."))
                return charge
        raise StorageUnavailableError

    async def release(
        self, hold: Hold, transcripts: Sequence[str] = (), *, on_outage: Callable[[], None] = lambda: None
    ) -> None:
        """Take back what was promised to a turn that never ran, however long the storage is away.

        Args:
            transcripts: the provider's sides of conversations that were made for it.
            on_outage: called when it takes longer than it should.
        """
        for pause in self.policy.storage_pauses_s:
            try:
                await self.ledger.release(hold, transcripts=transcripts)
            except StorageUnavailableError:
                on_outage()
                await asyncio.sleep(pause)
            else:
                return

    async def _release(self, course: Course, error: TextLLMError) -> None:
        self._state_failure(course, error)
        await self.writer.stop(course.hold)
        await self.release(course.hold, course.made_transcripts, on_outage=lambda: self._fail(course, error))
        await self._take_back_files(course)
        self._fail(course, error)

    async def _take_back_files(self, course: Course) -> None:
        """Let go of what was stored for a turn that its conversation knows nothing of."""
        if course.turn.take_back is not None:
            await course.turn.take_back()

    def _complete(self, course: Course, charge: Charge | None, text: str, finish_reason: FinishReason) -> None:
        """Tell of the reply, where this is what settled it."""
        if charge is not None:
            reply = _reply(course, text, finish_reason, charge.usage, charge.cost, estimated=charge.estimated)
            counted = replace(reply, message_number=charge.message_number, warnings=self.policy.warnings(charge.spent))
            course.log.append(ReplyCompleted(counted, course.turn.files))
            course.log.close()

    def _state_failure(self, course: Course, error: TextLLMError) -> None:
        hold = course.hold
        self.track_usage.telemetry.emit(
            ExchangeFailed(response_id=hold.response_id, code=error.code, model=hold.model, report=error.report)
        )

    def _fail(self, course: Course, error: TextLLMError) -> None:
        error.allowance = course.allowance
        course.log.fail(course.hold.response_id, error)


def _reply_memory(
    course: Course, text: str, finish_reason: FinishReason
) -> Callable[[Usage, bool, Decimal], bytes] | None:
    begun = course.begun() if course.is_remembered else None
    if begun is None:
        return None
    return lambda usage, estimated, cost: remembered_reply(
        begun, _reply(course, text, finish_reason, usage, cost, estimated=estimated), course.turn.files
    )


def _reply(
    course: Course, text: str, finish_reason: FinishReason, usage: Usage, cost: Decimal, *, estimated: bool
) -> Reply:
    model = course.started.model if course.started else course.hold.model
    return reply_to(
        course.hold, model=model, text=text, finish_reason=finish_reason, usage=usage, cost=cost, estimated=estimated
    )
