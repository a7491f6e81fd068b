"""One exchange while it is carried out: what came in, what is promised, and what has been heard so far."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from msgspec.structs import replace

from textllm_core.chat.remains import OF_THE_TURN
from textllm_core.chat.reply_log import ReplyLog
from textllm_core.chat.routes import Route
from textllm_core.errors import Allowance, ContextTooLongError, ModelError, ProviderReport, TextLLMError
from textllm_core.events import ExchangeFailed
from textllm_core.money import Price
from textllm_core.records.conversations import ConversationState
from textllm_core.records.hosted import counted_calls
from textllm_core.records.ledger import Hold
from textllm_core.records.messages import Message, ReplyStarted, Turn
from textllm_core.records.model import ModelStarted
from textllm_core.rules.budgets import ToolBound, affordable, demand
from textllm_core.texts import WholeCharacters
from textllm_core.usage import Usage, estimate


@dataclass(slots=True)
class OpenExchange:
    """One exchange; only its own task changes it.

    Args:
        message: the turn as the conversation keeps it.
        conversation: as it was before this turn; None for a new one.
        route: the model that is asked, or is at work.
        fallbacks: those that stand in for it, and what they charge.
        ceiling, input_tokens: of the reply, and of what is sent at most, in tokens.
        tools: what those on the provider's servers may add at most; `most_calls`: of them, that are paid for.
        transcript_id: the provider's side of the conversation, once it is known.
        left_transcript: one that was made for a model which then could not answer.
        keeps_messages: our own copy of what is said is kept, and is the record.
        allowance: what the turn has left of the user's rate limit.
        is_asked: the model was called, so that from here on a failure may have cost something.
        leaves_transcript: that holds what is not to be gone on with.
        sends_files: False once the model has refused those of earlier turns.
        started: the model's own words, once it has taken the turn.
        is_refused: it has refused the turn, and done nothing for it.
    """

    turn: Turn
    message: Message
    conversation: ConversationState | None
    hold: Hold
    route: Route
    fallbacks: Sequence[tuple[Route, Price]]
    instructions: str | None
    ceiling: int
    input_tokens: int
    max_output_tokens: int
    tools: ToolBound
    most_calls: int
    log: ReplyLog
    asked_at: datetime
    transcript_id: str | None
    keeps_messages: bool
    left_transcript: str | None = None
    allowance: Allowance | None = None
    is_asked: bool = False
    leaves_transcript: bool = False
    sends_files: bool = True
    started: ModelStarted | None = None
    is_refused: bool = False
    characters: WholeCharacters = field(default_factory=WholeCharacters)
    thoughts: WholeCharacters = field(default_factory=WholeCharacters)
    first_text_at: datetime | None = None

    @property
    def thought(self) -> int:
        """Characters of reasoning that came with the reply; they are charged as its text is."""
        return self.log.thought

    def begun(self) -> ReplyStarted | None:
        """The first event; None before the model has taken the turn, unless its caller was told early."""
        if self.log.length:
            return self.log.first
        return None if self.started is None else self.first_event(self.started.model)

    def first_event(self, model: str) -> ReplyStarted:
        """What is told first of the reply, `model` being at work."""
        hold = self.hold
        return ReplyStarted(
            response_id=hold.response_id,
            conversation_id=hold.conversation_id,
            user_id=hold.user_id,
            session_id=hold.session_id,
            model=model,
            allowance=self.allowance,
        )

    def told(self, error: TextLLMError) -> TextLLMError:
        """The error in the words of this turn: without a past it is the turn itself that is too long."""
        if not isinstance(error, ContextTooLongError) or error.is_of_turn or self.has_past:
            return error
        of_turn = ContextTooLongError.of_turn()
        of_turn.report = error.report
        return of_turn

    @property
    def text(self) -> str:
        """What was written of the reply so far."""
        return self.log.text

    @property
    def model(self) -> str:
        """The model at work, in the provider's words where it has said it."""
        return self.started.model if self.started else self.hold.model

    @property
    def is_remembered(self) -> bool:
        """Whether somebody may ask for the reply again."""
        return self.turn.idempotency is not None or self.turn.is_resumable

    @property
    def transcripts(self) -> tuple[str, ...]:
        """The provider's sides of the conversation that this exchange found or made."""
        found = self.conversation.transcript_id if self.conversation else None
        return tuple({known for known in (found, self.left_transcript, self.transcript_id) if known is not None})

    @property
    def made_transcripts(self) -> tuple[str, ...]:
        """Those of them that are of no use to anyone unless the exchange is settled."""
        found = self.conversation.transcript_id if self.conversation else None
        return tuple(known for known in self.transcripts if known != found)

    @property
    def unasked_transcript(self) -> str | None:
        """The provider's side of the conversation, where it was made for this turn."""
        return self.transcript_id if self.transcript_id in self.made_transcripts else None

    def turn_to(self, route: Route, price: Price) -> bool:
        """Have another model asked; False where it cannot take the turn, or for no price that is held."""
        hold, tokens = self.hold, self.input_tokens
        ceiling = route.longest(self.ceiling, input_tokens=tokens, estimate=hold.input_estimate)
        hosted = self.turn.options.hosted
        tools = route.tool_bound(hosted, most_calls=self.tools.calls)
        wanted = demand(price, input_tokens=tokens, max_output_tokens=ceiling, limit=hold.amount, tools=tools)
        if wanted.least > hold.amount or not route.reads(self.message):
            return False
        if self.transcript_id is not None and not route.keeps(self.transcript_id):
            if not self.keeps_messages and self.has_past:
                return False
            self.left_transcript = self.unasked_transcript
            self.transcript_id = None
        self.route, self.hold, self.tools = route, replace(hold, model=route.model, price=price), tools
        self.most_calls, self.max_output_tokens = affordable(
            price, held=hold.amount, input_tokens=tokens, max_output_tokens=ceiling, tools=tools
        )
        return True

    @property
    def has_past(self) -> bool:
        """Something was said in the conversation before this turn."""
        return self.conversation is not None and self.conversation.has_past

    @property
    def past_tokens(self) -> int:
        return self.conversation.context_tokens if self.conversation else 0

    @property
    def estimate(self) -> Usage:
        """Tokens of what was certainly sent and certainly received, and no less than the provider has stated of it."""
        calls, sent = counted_calls(self.log.tools), self.hold.input_estimate
        return estimate(self.log.counted, sent=sent, heard=self.text, thought=self.thought, calls=calls)

    @property
    def context_bound(self) -> int:
        """An upper bound of the tokens that the conversation may now have on the provider's side."""
        calls = sum(counted_calls(self.log.tools).values())
        brought = self.tools.listed + calls * self.tools.tokens if calls else 0
        return self.past_tokens + self.turn.token_bound + brought + len(self.text.encode())

    def context_after(self, usage: Usage) -> int:
        """An upper bound of the tokens that the conversation has behind a reply whose usage is known.

        Where tools of the provider's were at work, the usage counts what was said once more for each of their calls.
        """
        calls = sum(usage.tool_calls.values())
        once = self.input_tokens + self.tools.listed + calls * self.tools.tokens + usage.output_tokens
        return min(usage.total_tokens, once) if calls else usage.total_tokens

    def report_of(self, error: TextLLMError) -> ProviderReport | None:
        """The provider's own account of the failure; where it has none, by what name it knows the call."""
        if error.report is not None or self.started is None or self.started.request_id is None:
            return error.report
        return ProviderReport(request_id=self.started.request_id, is_answer=False)

    def refuse(self, error: TextLLMError, usage: Usage | None = None) -> bool:
        """Note that the turn is refused, if it is: as before an answer began, so also in the midst of one.

        Whatever of the reply was heard, thought or counted before takes that back; and a response that can be asked
        for again tells of its failure itself.
        """
        log = self.log
        has_used = bool(usage and usage.total_tokens) or log.counted is not None
        has_nothing = not (log.size or log.thought or log.tools or has_used)
        self.is_refused = isinstance(error, OF_THE_TURN) and has_nothing and self.turn.response is None
        return self.is_refused

    @property
    def replies(self) -> tuple[str, ...]:
        """What the provider may have kept of the reply."""
        known = self.started and self.started.provider_response_id
        return (known,) if known else ()

    def failure(self, error: TextLLMError) -> ExchangeFailed:
        """That it got no reply, or none to its end, for the operator."""
        hold, report = self.hold, self.report_of(error)
        return ExchangeFailed(
            response_id=hold.response_id, code=error.code, model=hold.model, reason=str(error), report=report
        )

    def may_have_run(self, error: TextLLMError | None) -> bool:
        """Whether the provider may have done something for it, that ended with this error of it, or was cut short."""
        if self.is_refused:
            return False
        if self.started is not None or error is None:
            return self.is_asked
        return self.is_asked and isinstance(error, ModelError) and error.may_have_run
