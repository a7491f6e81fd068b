"""The middle of every turn: the model is asked, and its reply read into the log."""

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from textllm_core import steps
from textllm_core.chat.approvals import answers_calls, first_live, with_live_tools
from textllm_core.chat.attachments import Attachments
from textllm_core.chat.deadline import NEVER, Deadline
from textllm_core.chat.journal import JournalWriter
from textllm_core.chat.open_exchange import OpenExchange
from textllm_core.chat.tool_use import paired
from textllm_core.errors import (
    ConversationLostError,
    ModelError,
    ProviderError,
    ProviderTimeoutError,
    StorageUnavailableError,
    TextLLMError,
    UnsupportedMediaTypeError,
)
from textllm_core.events import ExchangeAnswered, ExchangeBegun, ExchangeRerouted, TurnNotKept
from textllm_core.policy import ChatPolicy
from textllm_core.ports.clock import Clock
from textllm_core.ports.conversation_repository import ConversationRepository
from textllm_core.ports.ledger import Ledger
from textllm_core.ports.telemetry import Telemetry
from textllm_core.ports.tracer import Tracer
from textllm_core.ready_transcripts import made_now
from textllm_core.records.hosted import ToolStep
from textllm_core.records.journal import JournalEntry
from textllm_core.records.ledger import Hold
from textllm_core.records.messages import Message, TextDelta
from textllm_core.records.model import ModelCounted, ModelEnded, ModelRequest, ModelStarted, ModelThinking, ReadBlob
from textllm_core.records.thoughts import Thought
from textllm_core.texts import well_formed

_PEND_PAUSES_S: Final = (0.1, 0.3)  # a hiccup of the storage; a paid reply waits no longer for its text to be shown
_READ_ON_S: Final = 1.0  # what follows the end of a reply came in the same packet, or is no loss
# A look and an addition are two round trips; behind a reply that was left, OpenAI keeps its conversation locked for a
# moment, and each wait for that is 1 or 2 s. Whoever is told that the reply broke off waits no longer than this.
_KEPT_WITHIN_S: Final = 5.0
# Tokens have 4 bytes in most texts, and some more in those that are all spaces and lines: what is longer by far does
# not end where it was told to, and each byte more of it is charged.
_MOST_BYTES_OF_TOKEN: Final = 32
_MOST_BYTES_BESIDE: Final = 64 * 1024  # so that a provider which takes no small limit is heard out
_SHOWN_BEFORE: Final = (
    "This conversation has an image or a file that the model cannot read; use another model, or begin a new one."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AskModel:
    """Asks the model with what its conversation has said before, and hears it out."""

    ledger: Ledger
    conversations: ConversationRepository
    writer: JournalWriter
    clock: Clock
    policy: ChatPolicy
    attachments: Attachments | None
    telemetry: Telemetry
    tracer: Tracer

    async def __call__(self, of: OpenExchange) -> ModelEnded:
        """Read the model's reply into its log; what the model says of its end.

        Raises:
            TextLLMError: it has none.
        """
        try:
            ended = await self._any(of)
            if ended.error is not None and of.refuse(ended.error, ended.usage):
                raise ended.error
        except TextLLMError as error:
            of.refuse(error)
            raise of.told(error) from error.__cause__
        return ended if ended.error is None else replace(ended, error=of.told(ended.error))

    async def _any(self, of: OpenExchange) -> ModelEnded:
        """The reply of the first model that gives one; each was surely not at work when the next one is asked."""
        ran: ModelError | None = None  # once a call has reached a provider, no later refusal takes that back
        fallbacks = iter(of.fallbacks)
        while True:
            try:
                return await self._one(of)
            except ModelError as error:
                if ran is None and of.may_have_run(error):
                    ran = error
                failed, last = of.hold.model, ran or error
                if not _gave_nothing(of, error) or not any(of.turn_to(*fallback) for fallback in fallbacks):
                    raise last from None
            self.telemetry.emit(
                ExchangeRerouted(
                    response_id=of.hold.response_id,
                    code=last.code,
                    model=failed,
                    to=of.hold.model,
                    reason=str(last),
                    report=of.report_of(last),
                )
            )
            of.hold = await self.ledger.ask(of.hold, transcript_id=of.unasked_transcript)

    async def _one(self, of: OpenExchange) -> ModelEnded:
        try:
            return await self._call(of)
        except UnsupportedMediaTypeError:
            if of.message.has_shown_parts or of.turn.given is not None or of.started is not None:
                raise
            if of.route.transcript is not None:
                raise UnsupportedMediaTypeError(_SHOWN_BEFORE) from None
            of.sends_files = False  # what was shown earlier must not keep the conversation from going on
            return await self._call(of)
        except ConversationLostError:
            if not of.keeps_messages:
                raise
            # Our own copy is the record; the provider's side of it is made anew.
            of.transcript_id = None
            return await self._call(of, was_lost=True)

    async def _call(self, of: OpenExchange, *, was_lost: bool = False) -> ModelEnded:
        request = await self._request(of, was_lost=was_lost)
        if not of.hold.is_asked or of.hold.transcript_id != of.unasked_transcript:
            of.hold = await self.ledger.ask(of.hold, transcript_id=of.unasked_transcript)
        of.is_asked = True
        with self.tracer.span(steps.Asking(request.model)):
            return await self._read(of, request)

    async def _read(self, of: OpenExchange, request: ModelRequest) -> ModelEnded:
        loop, log, ended = asyncio.get_running_loop(), of.log, None
        first_token_s = of.route.first_token_timeout_s or self.policy.first_token_timeout_s
        silence_s = of.route.silence_timeout_s or self.policy.silence_timeout_s
        most = of.max_output_tokens * _MOST_BYTES_OF_TOKEN + _MOST_BYTES_BESIDE
        begins_by = loop.time() + first_token_s
        async with aclosing(of.route.llm.stream(request)) as events:
            try:
                with Deadline(begins_by) as deadline:
                    async for event in events:
                        match event:
                            case TextDelta(text, is_refusal):
                                if of.first_text_at is None:
                                    of.first_text_at = self.clock.now()
                                said = of.characters.encoded(text)
                                room = most - log.size - log.thought
                                fits = said if len(said) <= room else said[:room].decode(errors="ignore").encode()
                                log.say(fits, is_refusal=is_refusal)
                                if len(said) > room:
                                    raise _endless(of)
                                deadline.move(loop.time() + silence_s)
                            case ModelThinking() | Thought() | ToolStep():
                                _heed(of, event)
                                if isinstance(event, ToolStep):
                                    first_token_s = max(first_token_s, silence_s)  # programs take their time
                                if log.size + log.thought > most:
                                    raise _endless(of)
                                is_begun = of.first_text_at is not None
                                patience = silence_s if is_begun else first_token_s
                                deadline.move(loop.time() + patience)
                            case ModelCounted(usage):
                                log.counted = usage
                            case ModelStarted():
                                deadline.move(NEVER)  # what follows is our own work
                                await self._begin(of, event)
                                deadline.move(begins_by)
                            case ModelEnded():
                                log.say(of.characters.rest().encode(), is_refusal=bool(event.refusal))
                                self._state_answer(of, event)
                                ended = replace(event, text=well_formed(event.text), refusal=well_formed(event.refusal))
                                # Only a stream that is read to its end gives its connection back.
                                deadline.move(loop.time() + _READ_ON_S)
            except (TextLLMError, TimeoutError) as error:
                if ended is None:
                    if isinstance(error, TextLLMError):
                        raise
                    late, setting = ("begin", "first_token") if of.first_text_at is None else ("go on", "upstream")
                    text = f"The model {of.model} took too long to {late} (the setting {setting}_timeout_s)."
                    raise ProviderTimeoutError(text) from error
        if ended is None:
            raise ProviderError("The model's reply broke off.")
        return ended

    async def _request(self, of: OpenExchange, *, was_lost: bool) -> ModelRequest:
        hold, options = of.hold, of.turn.options
        if of.transcript_id is None and of.has_past and not of.keeps_messages:
            known = of.conversation and of.conversation.transcript_id
            raise ConversationLostError.of_settings(known) if known else ConversationLostError
        transcript = of.route.transcript
        longest = of.max_output_tokens  # what the provider takes at least is promised; who asked for less is told less
        cached = options.cache_key or (hold.user_id if of.turn.given is not None else None)
        if of.turn.given is not None:
            transcript_id = None
            messages = await self._sendable(of, paired((*of.turn.given, of.message)))
        elif transcript is None or of.turn.is_aside:
            transcript_id = None
            told = with_live_tools((*await self._past(of), *of.turn.before, of.message), options.hosted)
            messages = await self._sendable(of, paired(told))
        else:
            said_now = (*of.turn.before, of.message)
            if of.transcript_id is None:
                past = (*await self._history(of, limit=None), *of.turn.before)
                history, said_now = _parted(of, past)
                history = await self._sendable(of, history)
                maker = made_now(transcript) if was_lost else transcript
                of.transcript_id = await maker.create(history, read=self._read_blob(of))
            transcript_id = of.transcript_id
            messages = await self._sendable(of, said_now)
        return ModelRequest(
            model=hold.model,
            messages=messages,
            transcript_id=transcript_id,
            instructions=of.instructions,
            max_output_tokens=min(longest, options.max_output_tokens or longest),
            temperature=options.temperature,
            metadata=options.metadata,
            tools=options.tools,
            tool_choice=options.tool_choice,
            parallel_tool_calls=options.parallel_tool_calls,
            response_format=options.response_format,
            reasoning_effort=options.reasoning_effort,
            reasoning_summary=options.reasoning_summary,
            sampling=options.sampling,
            returns_reasoning=options.returns_reasoning,
            hosted=options.hosted and replace(options.hosted, most_calls=of.most_calls),
            safety_identifier=_digest(hold.tenant_id, hold.user_id),
            cache_key=hold.conversation_id if cached is None else _digest(hold.tenant_id, cached),
            read=self._read_blob(of),
        )

    async def keep(self, of: OpenExchange, turn: tuple[Message, ...]) -> bool:
        """Have the provider's conversation, the only one, keep a turn that it may not have kept by itself.

        Returns:
            Whether it has it now. Where nobody knows, that is stated, and no reason to hold up the turn's end.
        """
        transcript, transcript_id = of.route.transcript, of.transcript_id
        if transcript is None or transcript_id is None:
            return False
        try:
            async with asyncio.timeout(_KEPT_WITHIN_S):
                with suppress(StorageUnavailableError):  # then the provider is told in words of what cannot be read
                    turn = await self._sendable(of, turn)
                return await transcript.add(transcript_id, turn, read=self._read_blob(of))
        except (TextLLMError, TimeoutError) as failure:
            late = ProviderTimeoutError("The provider took too long to keep a turn whose reply broke off.")
            error = failure if isinstance(failure, TextLLMError) else late
            self.telemetry.emit(TurnNotKept(of.hold.response_id, transcript_id, error.code, str(error), error.report))
            return False

    def _read_blob(self, of: OpenExchange) -> ReadBlob | None:
        return None if self.attachments is None else self.attachments.reading(of.turn.attached)

    async def _sendable(self, of: OpenExchange, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        if self.attachments is None:
            return messages
        return await self.attachments.sendable(messages, of.route.llm if of.sends_files else None, of.turn.attached)

    async def _past(self, of: OpenExchange) -> tuple[Message, ...]:
        """What was said before, to be sent with the turn."""
        transcript = of.route.transcript
        if transcript is None:
            return await self._history(of, limit=self.policy.max_history_items)
        if of.keeps_messages or of.transcript_id is None:
            return await self._history(of, limit=None)
        return tuple(message for message in await transcript.messages(of.transcript_id) if message.content)

    async def _history(self, of: OpenExchange, *, limit: int | None) -> tuple[Message, ...]:
        if not of.has_past:
            return ()
        hold = of.hold
        key, one_more = (hold.tenant_id, hold.user_id, hold.conversation_id), None if limit is None else limit + 1
        messages = list(await self.conversations.last_messages(*key, limit=one_more))
        if limit is not None and len(messages) > limit:
            del messages[0]
            # A cut through the middle of a turn; but a call is left to whoever brings its result.
            is_answer = answers_calls(of.message.content)
            while messages and messages[0].role == "assistant" and not (len(messages) == 1 and is_answer):
                del messages[0]
        return tuple(message for message in messages if message.role == "user" or _says_something(message))

    async def _begin(self, of: OpenExchange, started: ModelStarted) -> None:
        of.started = started
        of.hold = replace(of.hold, provider_response_id=started.provider_response_id)
        self.telemetry.emit(ExchangeBegun(of.hold.response_id, started.model, started.provider_response_id))
        begun = of.begun()
        assert begun is not None
        if of.turn.is_resumable or not started.is_whole:  # else the settlement is due at once, and says it all
            said = await self.writer.beginning(begun)
            await self._pend(of.hold, started, said)
            if said is not None:
                self.writer.begun(said)
        if not of.log.length:
            of.log.append(begun)

    def _state_answer(self, of: OpenExchange, ended: ModelEnded) -> None:
        self.telemetry.emit(
            ExchangeAnswered(
                response_id=of.hold.response_id,
                status=ended.status,
                finish_reason=ended.finish_reason,
                usage=ended.usage,
                error_code=ended.error_code,
            )
        )

    async def _pend(self, hold: Hold, started: ModelStarted, said: JournalEntry | None) -> None:
        """Write down that the model has begun; a paid reply is not given up for a hiccup of the storage.

        Raises:
            StorageUnavailableError: it was more than that.
        """
        named = started.provider_response_id
        for pause in _PEND_PAUSES_S:
            try:
                await self.ledger.pend(hold, provider_response_id=named, model=started.model, said=said)
            except StorageUnavailableError:
                await asyncio.sleep(pause)
            else:
                return
        await self.ledger.pend(hold, provider_response_id=named, model=started.model, said=said)


def _heed(of: OpenExchange, sign: ModelThinking | Thought | ToolStep) -> None:
    """Take a sign of life into the log; of what the model thinks its size alone, where the turn does not tell it."""
    if isinstance(sign, ModelThinking):
        of.log.thought += sign.characters
        if sign.words and of.turn.options.tells_reasoning:
            of.log.think(of.thoughts.encoded(sign.words))
    elif isinstance(sign, ToolStep) or of.turn.options.tells_reasoning:
        of.log.step(sign)


def _gave_nothing(of: OpenExchange, error: ModelError) -> bool:
    """Whether another model may be asked: no reply has begun, and the call did not run, or the provider itself says
    that it failed, and bills nobody for it."""
    is_stated = error.report is not None and error.report.is_answer
    return of.started is None and (is_stated or not of.may_have_run(error))


def _says_something(message: Message) -> bool:
    """Some providers refuse a history in which a reply is of spaces alone."""
    text = message.text_for_model
    return message.open_calls is not None or (text != "" and not text.isspace())


def _parted(of: OpenExchange, past: Sequence[Message]) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """What a new conversation of the provider's begins with, and what is said there now.

    Approvals are said beside what they answer, and the conversation is not gone on with: OpenAI's take the answers into
    their record, and the requests not always.
    """
    told = with_live_tools((*past, of.message), of.turn.options.hosted)
    place = first_live(told)
    if place is None:
        return paired(told[:-1]), (of.message,)
    of.leaves_transcript = True
    return paired(told[:place]), paired(told[place:])


def _endless(of: OpenExchange) -> ProviderError:
    return ProviderError(f"The model {of.model} writes far more than max_output_tokens allows; it was cut off.")


def _digest(tenant_id: str, name: str) -> str:
    """Stands for something of a tenant's at the provider, which learns no name of it."""
    return hashlib.sha256(f"{tenant_id}\0{name}".encode(errors="surrogatepass")).hexdigest()
