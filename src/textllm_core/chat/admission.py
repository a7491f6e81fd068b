"""The first part of every turn: is it right, may it start, and what is promised to it."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from msgspec.structs import replace

from textllm_core.chat.approvals import check_approvals
from textllm_core.chat.open_exchange import OpenExchange
from textllm_core.chat.replay import replayed
from textllm_core.chat.reply_log import ReplyLog
from textllm_core.chat.room import Room
from textllm_core.chat.routes import Routes, in_order
from textllm_core.chat.running import LEASE, Running
from textllm_core.chat.tool_use import answering, check_record, options_bound, results_estimate, told_again
from textllm_core.chat.turn_options import check_options
from textllm_core.errors import (
    Allowance,
    BudgetExceededError,
    ConversationBusyError,
    ConversationNotFoundError,
    ForbiddenError,
    IdempotencyInProgressError,
    InvalidRequestError,
    StorageUnavailableError,
    TextLLMError,
)
from textllm_core.ids import new_id, new_user_id
from textllm_core.policy import ChatPolicy
from textllm_core.ports.clock import Clock
from textllm_core.ports.conversation_repository import ConversationRepository
from textllm_core.ports.ledger import Ledger
from textllm_core.ports.rate_limiter import RateLimiter
from textllm_core.ports.turnstile import Turnstile
from textllm_core.pricing import Pricing
from textllm_core.records.conversations import ConversationState, title_from
from textllm_core.records.ledger import AlreadySettledError, Hold, Replay, Reservation
from textllm_core.records.messages import Idempotency, Message, ReplyCompleted, ReplyEvent, Turn, TurnNames
from textllm_core.records.parts import ContentPart
from textllm_core.rules.budgets import affordable, demand
from textllm_core.tenancy import Caller
from textllm_core.usage import estimated_tokens

_OVERHEAD_TOKENS: Final = 64  # what a provider adds around messages: roles, separators, the reply's opening
# What may pass a moment later, or once there is money again, without the user having had anything for it.
_NOT_COUNTED: Final = (BudgetExceededError, ConversationBusyError, IdempotencyInProgressError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Admits turns: checked, counted, and with a hold for the most that they may cost."""

    ledger: Ledger
    conversations: ConversationRepository
    rate_limiter: RateLimiter
    turnstile: Turnstile
    pricing: Pricing
    clock: Clock
    policy: ChatPolicy
    routes: Routes
    room: Room = field(default_factory=Room)

    async def count(self, caller: Caller, user_id: str) -> Allowance:
        """Count a turn against the rate limit of whoever is charged for the user.

        Raises:
            RateLimitedError, StorageUnavailableError: as `RateLimiter.take`.
        """
        charged = caller.pays_for(user_id) or user_id
        return await self.rate_limiter.take(caller.tenant_id, charged, per_minute=self.policy.rate_per_minute)

    @asynccontextmanager
    async def counted(
        self, caller: Caller, user_id: str, allowance: Allowance, *, has_cost_nothing: bool = True
    ) -> AsyncIterator[None]:
        """Refusals of a turn that has been counted say what is left of the rate limit.

        One for want of money, or of a conversation that is free, gives back what it was counted for, unless its files
        were read for it. So does a repeat of a turn that is settled; while there is nothing to be given back, because
        the limit is used up, repeats are refused as all else is, so that a flood of them has a bound.
        """
        try:
            yield
        except AlreadySettledError:
            await self._give_back(caller, user_id)
            raise
        except TextLLMError as refusal:
            refusal.allowance = allowance
            if refusal.is_replayed or (has_cost_nothing and isinstance(refusal, _NOT_COUNTED)):
                refusal.allowance = await self._give_back(caller, user_id) or allowance
            raise

    async def _give_back(self, caller: Caller, user_id: str) -> Allowance | None:
        """Take back that a turn was counted; what is left then. None: nobody knows, and it may count all the same."""
        charged = caller.pays_for(user_id) or user_id
        with suppress(StorageUnavailableError):  # nobody gets more than the limit
            return await self.rate_limiter.give_back(caller.tenant_id, charged, per_minute=self.policy.rate_per_minute)
        return None

    async def repeat(
        self, caller: Caller, user_id: str, idempotency: Idempotency | None
    ) -> AsyncGenerator[ReplyEvent, None] | None:
        """The events of a turn that is settled, before anything is done for its repeat; None for any other turn.

        The repeat was counted, as the user's, and is no more.
        Raises:
            TextLLMError: as `Ledger.replay`, or the turn had failed before it began.
        """
        if idempotency is None:
            return None
        replay = await self.ledger.replay(caller.tenant_id, idempotency.within(caller.user_id))
        if replay is None:
            return None
        log = ReplyLog()
        await self._tell(caller, log, replay)
        log.close()
        await self._give_back(caller, user_id)
        return log.read()

    async def _tell(self, caller: Caller, log: ReplyLog, replay: Replay) -> None:
        for event in replayed(replay, self.policy.warnings(replay.spent)):
            if isinstance(event, ReplyCompleted) and event.at is None:  # as earlier versions remember it
                entry = await self.ledger.entry(caller.tenant_id, event.reply.response_id)
                event = replace(event, at=None if entry is None else entry.settled_at)
            log.append(event)

    async def admit(self, caller: Caller, turn: Turn, running: Running) -> OpenExchange | None:
        """The exchange, admitted, and protected since; None for a repeat of one that is settled, its events in the log.

        Raises:
            TextLLMError: what `Exchange.run` raises before the model is asked.
        """
        try:
            return await self._admit(caller, turn, running)
        except AlreadySettledError as repeat:
            await self._tell(caller, running.log, repeat.replay)
            return None

    async def _admit(self, caller: Caller, turn: Turn, running: Running) -> OpenExchange:
        options, hosted = turn.options, turn.options.hosted
        check_options(options, max_input_chars=self.policy.max_input_chars)
        instructions = self.policy.instructions(prompt=options.prompt, instructions=options.instructions) or None
        model = options.model or self.policy.model
        caller.may_use(model)
        routes = self.routes.offering(model, hosted, tenant_id=caller.tenant_id)

        user_id = caller.acts_for(turn.user_id)
        conversation = None
        if turn.conversation_id == "":
            raise InvalidRequestError.of("conversation_id", "must not be empty; leave it out for a new conversation")
        if turn.conversation_id is not None:
            conversation = turn.state or await self.conversations.state(
                caller.tenant_id, turn.conversation_id, user_id=user_id
            )
            if conversation is None:
                raise ConversationNotFoundError
            user_id = conversation.user_id
        is_new_user, user_id = user_id is None, user_id or new_user_id()

        past_tokens = conversation.context_tokens if conversation else 0
        # A token is at least one byte, so bytes bound tokens; what came before was counted by the provider itself.
        tools = options_bound(options)
        sent_beside = len((instructions or "").encode()) + tools + _OVERHEAD_TOKENS
        input_tokens = turn.token_bound + sent_beside + past_tokens
        ceiling = min(options.max_output_tokens or self.policy.max_output_tokens, self.policy.max_output_tokens)
        ceiling = max(ceiling, *(each.shortest_reply for each in routes))
        limit = self.policy.daily_limit
        now = self.clock.now()
        content = await self._answering(caller, turn, conversation, user_id)
        names = turn.names or TurnNames.new(now)
        message = Message(id=names.message_id, role="user", content=content, created_at=now)
        is_given = turn.given is not None
        begun_with = self.policy.keep_messages and not is_given
        keeps_messages = conversation.keeps_messages if conversation else begun_with
        check_record(options, keeps_messages=keeps_messages or is_given)
        transcript_id = conversation.transcript_id if conversation else None
        conversation_id = conversation.id if conversation else new_id("conv")
        route, *others = in_order(
            routes,
            by=(options.cache_key if is_given else None) or conversation_id,
            message=message,
            transcript_id=transcript_id,
            must_stay=not keeps_messages,
        )
        price = route.priced(self.pricing.price(route.model), hosted)
        fallbacks = [(other, other.priced(self.pricing.price(other.model), hosted)) for other in others]
        most_calls = min((hosted and hosted.most_calls) or self.policy.max_tool_calls, self.policy.max_tool_calls)
        bound = route.tool_bound(hosted, most_calls=most_calls)
        # One of another provider, or from when another API was configured, does not know what was said since.
        if transcript_id is not None and not route.keeps(transcript_id):
            if not keeps_messages and self.routes.keep(transcript_id):
                raise InvalidRequestError.of("model", "what was said here is kept at another provider; use its models")
            transcript_id = None
        needs_transcript = route.transcript is not None and transcript_id is None and not (turn.is_aside or is_given)
        estimate = (
            estimated_tokens(message.text, instructions or "", characters=tools)
            + results_estimate(content)
            + turn.file_tokens
            + past_tokens
        )
        longest = route.longest(ceiling, input_tokens=input_tokens, estimate=estimate)
        wanted = demand(price, input_tokens=input_tokens, max_output_tokens=longest, limit=limit, tools=bound)
        for way, other in fallbacks:  # any of them may answer
            tools_there = way.tool_bound(hosted, most_calls=most_calls)
            most = demand(
                other, input_tokens=input_tokens, max_output_tokens=ceiling, limit=limit, tools=tools_there
            ).most
            wanted = replace(wanted, most=max(wanted.most, most))
        reservation = Reservation(
            tenant_id=caller.tenant_id,
            user_id=user_id,
            payer_id=_payer(caller, turn, user_id),
            conversation_id=conversation_id,
            revision=conversation.revision if conversation else None,
            title=None if is_given else title_from(message.text),
            response_id=names.response_id,
            kind=turn.kind,
            model=route.model,
            price=price,
            input_estimate=estimate,
            keeps_messages=begun_with,
            demand=wanted,
            at=now,
            lease_until=now + LEASE,
            message=_kept(message, turn, keeps_messages=keeps_messages),
            said_before=tuple(
                kept for each in turn.before if (kept := _kept(each, turn, keeps_messages=keeps_messages)) is not None
            ),
            metadata=turn.options.metadata,
            is_asked=not (needs_transcript or turn.show_files is not None),
            is_resumable=turn.is_resumable,
            idempotency=turn.idempotency and turn.idempotency.within(caller.user_id),
            expires_at=None if turn.expires_in is None else now + turn.expires_in,
            response=turn.response,
        )
        allowance, hold = await self._let_in(caller, turn, reservation, running, is_new_user=is_new_user)
        calls, longest = affordable(
            price, held=hold.amount, input_tokens=input_tokens, max_output_tokens=longest, tools=bound
        )
        return OpenExchange(
            turn=turn,
            message=message,
            conversation=conversation,
            hold=hold,
            route=route,
            fallbacks=fallbacks,
            instructions=instructions,
            ceiling=ceiling,
            input_tokens=input_tokens,
            max_output_tokens=longest,
            tools=bound,
            most_calls=calls,
            log=running.log,
            asked_at=now,
            transcript_id=transcript_id,
            keeps_messages=keeps_messages,
            allowance=allowance,
        )

    async def _answering(
        self, caller: Caller, turn: Turn, conversation: ConversationState | None, user_id: str
    ) -> tuple[ContentPart, ...]:
        """What the turn says, with a result for each call that its conversation waits for.

        Raises:
            InvalidRequestError: it has one that nobody waits for, or approves what nobody waits for.
            AlreadySettledError: it is a repeat, so that its results are there already.
            TextLLMError: as `Ledger.replay`.
        """
        last = turn.before[-1] if turn.before else conversation
        open_calls = (last and last.open_calls) or ()
        try:
            check_approvals(turn.content, turn.options.hosted, asked=open_calls)
            return answering(turn.content, open_calls)
        except InvalidRequestError:
            repeat = turn.idempotency and turn.idempotency.within(caller.user_id)
            if repeat and (replay := await self.ledger.replay(caller.tenant_id, repeat)):
                if turn.allowance is not None:
                    await self._give_back(caller, _payer(caller, turn, user_id) or user_id)
                raise AlreadySettledError(replay) from None
            if conversation is None:
                raise
            where = caller.tenant_id, conversation.user_id, conversation.id
            again = told_again(turn.content, await self.conversations.last_messages(*where, limit=2))
            if again is None:
                raise
            return again

    async def _let_in(
        self, caller: Caller, turn: Turn, asked: Reservation, running: Running, *, is_new_user: bool
    ) -> tuple[Allowance, Hold]:
        """Count the turn, unless it was counted before, and reserve for it; protected since.

        Raises:
            AlreadySettledError: it is a repeat.
            TextLLMError: it may not start.
        """
        allowance, hold = turn.allowance, None
        needs_room = asked.revision is None and asked.expires_at is None and not is_new_user
        if allowance is None and (not needs_room or self.room.takes(asked.tenant_id, asked.user_id)):
            running.protect()  # a hold that is granted must not get lost
            allowance, hold = await self.turnstile.admit(asked, per_minute=self.policy.rate_per_minute)
        if allowance is None:
            allowance = await self.count(caller, asked.payer)
        if hold is None:
            has_files = turn.discard_files is not None
            async with self.counted(caller, asked.payer, allowance, has_cost_nothing=not has_files):
                if needs_room:
                    await self._check_room(asked)
                running.protect()
                hold = await self.ledger.reserve(asked)
        return allowance, hold

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


def _kept(said: Message, turn: Turn, *, keeps_messages: bool) -> Message | None:
    """What its conversation is to keep of what is said; where it keeps no copy of its own the files alone, if any."""
    if turn.is_aside or turn.given is not None:
        return None
    return said if keeps_messages else said.files_alone


def _payer(caller: Caller, turn: Turn, user_id: str) -> str | None:
    """Who is charged in the user's place; None: the user."""
    return None if turn.charged_id == user_id else turn.charged_id or caller.pays_for(user_id)
