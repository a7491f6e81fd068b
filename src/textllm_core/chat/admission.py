"""The first part of every turn: is it right, may it start, and what is promised to it."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from textllm_core.cancellation import carried_through
from textllm_core.chat.course import Course
from textllm_core.chat.replay import replayed
from textllm_core.chat.reply_log import ReplyLog
from textllm_core.chat.room import Room
from textllm_core.chat.running import Leases
from textllm_core.chat.settling import Settling
from textllm_core.errors import (
    Allowance,
    BudgetExceededError,
    ConversationBusyError,
    ConversationNotFoundError,
    ForbiddenError,
    IdempotencyInProgressError,
    InputTooLongError,
    InvalidRequestError,
    StorageUnavailableError,
    TextLLMError,
)
from textllm_core.ids import new_id, new_user_id
from textllm_core.metadata import check_metadata
from textllm_core.policy import ChatPolicy
from textllm_core.ports.clock import Clock
from textllm_core.ports.conversation_repository import ConversationRepository
from textllm_core.ports.ledger import Ledger
from textllm_core.ports.rate_limiter import RateLimiter
from textllm_core.pricing import Pricing
from textllm_core.records.conversations import title_from
from textllm_core.records.ledger import AlreadySettledError, Hold, Replay, Reservation
from textllm_core.records.messages import Idempotency, Message, ReplyEvent, Turn, TurnOptions, refuse_half_characters
from textllm_core.rules.budgets import MIN_OUTPUT_TOKENS, affordable_output_tokens, demand
from textllm_core.tenancy import Caller
from textllm_core.usage import estimated_tokens

_OVERHEAD_TOKENS: Final = 64  # what a provider adds around messages: roles, separators, the reply's opening
# What may pass a moment later, or once there is money again, without the user having had anything for it.
_NOT_COUNTED: Final = (BudgetExceededError, ConversationBusyError, IdempotencyInProgressError)
_MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Admits turns: checked, counted, and with a hold for the most that they may cost."""

    ledger: Ledger
    conversations: ConversationRepository
    rate_limiter: RateLimiter
    pricing: Pricing
    clock: Clock
    policy: ChatPolicy
    leases: Leases
    settling: Settling
    has_transcripts: bool
    room: Room = field(default_factory=Room)

    async def count(self, caller: Caller, user_id: str) -> Allowance:
        """Count a turn against the rate limit of whoever is charged for the user.

        Raises:
            RateLimitedError, StorageUnavailableError: as `RateLimiter.take`.
        """
        charged = caller.pays_for(user_id) or user_id
        return await self.rate_limiter.take(caller.tenant_id, charged, per_minute=self.policy.rate_per_minute)

    @asynccontextmanager
    async def counted(self, caller: Caller, user_id: str, allowance: Allowance) -> AsyncIterator[None]:
        """Refusals of a turn that has been counted say what is left of the rate limit.

        One for want of money, or of a conversation that is free, gives back what it was counted for.
        """
        try:
            yield
        except TextLLMError as refusal:
            refusal.allowance = allowance
            if isinstance(refusal, _NOT_COUNTED):
                charged = caller.pays_for(user_id) or user_id
                with suppress(StorageUnavailableError):  # then this one counts: nobody gets more than the limit
                    refusal.allowance = await self.rate_limiter.give_back(
                        caller.tenant_id, charged, per_minute=self.policy.rate_per_minute
                    )
            raise

    async def repeat(self, caller: Caller, idempotency: Idempotency | None) -> AsyncGenerator[ReplyEvent, None] | None:
        """The events of a turn that is settled, before anything is done for its repeat; None for any other turn.

        Raises:
            TextLLMError: as `Ledger.replay`, or the turn had failed before it began.
        """
        if idempotency is None:
            return None
        replay = await self.ledger.replay(caller.tenant_id, idempotency.within(caller.user_id))
        if replay is None:
            return None
        log = ReplyLog()
        self._tell(log, replay)
        log.close()
        return log.read()

    def _tell(self, log: ReplyLog, replay: Replay) -> None:
        for event in replayed(replay, self.policy.warnings(replay.spent)):
            log.append(event)

    async def admit(self, caller: Caller, turn: Turn, log: ReplyLog) -> Course | None:
        """The exchange, admitted; None for a repeat of one that is settled, whose events are in the log.

        Raises:
            TextLLMError: what `Exchange.run` raises before the model is asked.
        """
        options = turn.options
        self._check(options)
        instructions = self.policy.instructions(prompt=options.prompt, instructions=options.instructions)
        model = options.model or self.policy.model

        user_id = caller.acts_for(turn.user_id)
        thread = None
        if turn.conversation_id == "":
            raise InvalidRequestError.of("conversation_id", "must not be empty; leave it out for a new conversation")
        if turn.conversation_id is not None:
            thread = await self.conversations.thread(caller.tenant_id, turn.conversation_id)
            if thread is None or user_id not in (None, thread.user_id):
                raise ConversationNotFoundError
            user_id = thread.user_id
        user_id = user_id or new_user_id()
        allowance = turn.allowance or await self.count(caller, user_id)

        price = self.pricing.price(model)
        past_tokens = thread.context_tokens if thread else 0
        # A token is at least one byte, so bytes bound tokens; what came before was counted by the provider itself.
        input_tokens = turn.token_bound + len((instructions or "").encode()) + past_tokens + _OVERHEAD_TOKENS
        ceiling = min(options.max_output_tokens or self.policy.max_output_tokens, self.policy.max_output_tokens)
        now = self.clock.now()
        message = Message(id=new_id("msg"), role="user", content=turn.content, created_at=now)
        keeps_messages = thread.keeps_messages if thread else self.policy.keep_messages
        # One that was kept while another API was configured does not know what was said since.
        transcript_id = thread.transcript_id if thread and self.has_transcripts else None
        needs_transcript = self.has_transcripts and transcript_id is None and not turn.is_aside
        reservation = Reservation(
            tenant_id=caller.tenant_id,
            user_id=user_id,
            payer_id=caller.pays_for(user_id),
            conversation_id=thread.conversation_id if thread else new_id("conv"),
            revision=thread.revision if thread else None,
            title=title_from(message.text),
            response_id=new_id("resp"),
            kind=turn.kind,
            model=model,
            price=price,
            input_estimate=estimated_tokens(message.text, instructions or "") + turn.file_tokens + past_tokens,
            keeps_messages=self.policy.keep_messages,
            demand=demand(price, input_tokens=input_tokens, max_output_tokens=ceiling, limit=self.policy.daily_limit),
            at=now,
            lease_until=self.leases.until(),
            message=message if keeps_messages and not turn.is_aside else None,
            is_asked=not (needs_transcript or message.stored_parts),
            is_resumable=turn.is_resumable,
            idempotency=turn.idempotency and turn.idempotency.within(caller.user_id),
        )
        try:
            async with self.counted(caller, user_id, allowance):
                if thread is None and caller.acts_for(turn.user_id) is not None:  # else the user is new
                    await self._check_room(reservation)
                hold = await self._reserve(reservation)
        except AlreadySettledError as repeat:
            self._tell(log, repeat.replay)
            return None
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
            transcript_id=transcript_id,
            keeps_messages=keeps_messages,
            allowance=allowance,
        )

    async def _check_room(self, asked: Reservation) -> None:
        """See whether the user may have one conversation more.

        Raises:
            ForbiddenError: no.
            AlreadySettledError: the turn is the repeat of one that began the last of them.
            TextLLMError: as `Ledger.replay`.
        """
        tenant_id, user_id, limit = asked.tenant_id, asked.user_id, self.policy.max_conversations
        count = partial(self.conversations.count, tenant_id, user_id, at_most=limit)
        if await self.room.is_left(tenant_id, user_id, limit=limit, count=count):
            return
        if asked.idempotency and (replay := await self.ledger.replay(asked.tenant_id, asked.idempotency)):
            raise AlreadySettledError(replay)
        raise ForbiddenError.of_full_list(limit)

    async def _reserve(self, reservation: Reservation) -> Hold:
        """The hold; one that comes when the turn has been cancelled meanwhile is given back.

        Raises:
            TextLLMError, AlreadySettledError: as `Ledger.reserve`.
        """
        reserving = asyncio.ensure_future(self.ledger.reserve(reservation))
        try:
            return await asyncio.shield(reserving)
        except asyncio.CancelledError:
            await carried_through(self._give_back(reserving))
            raise

    async def _give_back(self, reserving: asyncio.Future[Hold]) -> None:
        with suppress(TextLLMError, AlreadySettledError):  # then nothing was granted
            await self.settling.release(await reserving)

    def _check(self, options: TurnOptions) -> None:
        """Refuse options that no model takes.

        Raises:
            InvalidRequestError, InputTooLongError
        """
        if options.model is not None and not _MODEL_NAME.fullmatch(options.model):
            raise InvalidRequestError.of("model", "must be a model's name: 1 to 200 letters, digits and . _ : / @ + -")
        if options.max_output_tokens is not None and options.max_output_tokens < MIN_OUTPUT_TOKENS:
            raise InvalidRequestError.of("max_output_tokens", f"must be at least {MIN_OUTPUT_TOKENS}")
        if options.temperature is not None and not 0 <= options.temperature <= 2:
            raise InvalidRequestError.of("temperature", "must be from 0 to 2")
        if options.instructions is not None and len(options.instructions) > self.policy.max_input_chars:
            raise InputTooLongError(length=len(options.instructions), limit=self.policy.max_input_chars)
        metadata = options.metadata or {}
        refuse_half_characters(instructions=options.instructions, metadata="".join(map("".join, metadata.items())))
        check_metadata(metadata)
