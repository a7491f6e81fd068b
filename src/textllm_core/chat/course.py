"""One exchange on its way: what was promised, asked and heard so far."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import partial

from msgspec.structs import replace

from textllm_core.chat.remains import Remains, remains
from textllm_core.chat.reply_log import ReplyLog
from textllm_core.errors import Allowance, ContextTooLongError, TextLLMError
from textllm_core.ids import new_id
from textllm_core.ports.clock import Clock
from textllm_core.records.conversations import Thread
from textllm_core.records.ledger import Hold
from textllm_core.records.messages import (
    ContentPart,
    Message,
    OutputText,
    Refusal,
    ReplyStarted,
    TextDelta,
    Turn,
    WholeCharacters,
)
from textllm_core.records.model import ModelEnded, ModelStarted
from textllm_core.track_usage import Outcome
from textllm_core.usage import EntryStatus, Usage, estimated_tokens


@dataclass(slots=True)
class Course:
    """The state of one exchange; only its own task changes it.

    Args:
        message: the turn as the conversation keeps it.
        thread: the conversation before this turn; None for a new one.
        transcript_id: the provider's side of the conversation, once it is known.
        keeps_messages: our own copy of what is said is kept, and is the record.
        allowance: what the turn has left of the user's rate limit.
        is_asked: the model was called, so that from here on a failure may have cost something.
        thought: characters of reasoning that came with the reply; they are charged as its text is.
        sends_files: False once the model has refused those of earlier turns.
    """

    turn: Turn
    message: Message
    thread: Thread | None
    hold: Hold
    instructions: str | None
    max_output_tokens: int
    log: ReplyLog
    asked_at: datetime
    transcript_id: str | None
    keeps_messages: bool
    is_asked: bool = False
    thought: int = 0
    sends_files: bool = True
    started: ModelStarted | None = None
    characters: WholeCharacters = field(default_factory=WholeCharacters)
    first_text_at: datetime | None = None
    allowance: Allowance | None = None

    def hear(self, piece: str, *, clock: Clock) -> None:
        """Take the next piece of the reply."""
        if self.first_text_at is None:
            self.first_text_at = clock.now()
        self._say(self.characters.take(piece))

    def hear_out(self) -> None:
        """The model says no more."""
        self._say(self.characters.rest())

    def _say(self, text: str) -> None:
        if text:
            self.log.append(TextDelta(text))

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
    def is_remembered(self) -> bool:
        """Whether somebody may ask for the reply again."""
        return self.turn.idempotency is not None or self.turn.is_resumable

    @property
    def transcripts(self) -> tuple[str, ...]:
        """The provider's sides of the conversation that this exchange found or made."""
        found = self.thread.transcript_id if self.thread else None
        return tuple({known for known in (found, self.transcript_id) if known is not None})

    @property
    def made_transcripts(self) -> tuple[str, ...]:
        """Those of them that are of no use to anyone unless the exchange is settled."""
        found = self.thread.transcript_id if self.thread else None
        return tuple(known for known in self.transcripts if known != found)

    @property
    def unasked_transcript(self) -> str | None:
        """The provider's side of the conversation, where it was made for this turn."""
        return self.transcript_id if self.transcript_id in self.made_transcripts else None

    @property
    def has_past(self) -> bool:
        """Something was said in the conversation before this turn."""
        return self.thread is not None and self.thread.message_count > 0

    @property
    def past_tokens(self) -> int:
        return self.thread.context_tokens if self.thread else 0

    def reply_message(self, content: ContentPart, *, is_whole: bool, estimated: bool, at: datetime) -> Message:
        """The reply as the conversation keeps it."""
        return Message(
            id=new_id("msg"),
            role="assistant",
            content=(content,),
            created_at=at,
            status="completed" if is_whole else "incomplete",
            estimated=estimated,
        )

    def answered(
        self, ended: ModelEnded, *, at: datetime, remember: Callable[[Usage, bool, Decimal], bytes] | None = None
    ) -> Outcome:
        """The outcome of a reply that reached its end, or its longest length."""
        usage, estimated = ended.charged(self._estimate())
        content = Refusal(ended.text) if ended.finish_reason == "refusal" else OutputText(ended.text)
        reply = self.reply_message(content, is_whole=ended.status == "completed", estimated=estimated, at=at)
        return self._outcome(
            status="completed" if ended.status == "completed" else "incomplete",
            usage=usage,
            estimated=estimated,
            service_tier=ended.service_tier,
            messages=(self.message, reply),
            answered=True,
            # Of a reply that was cut short the provider may or may not keep the turn.
            in_doubt=ended.status != "completed",
            remember=partial(remember, usage, estimated) if remember else None,
            context_tokens=self._context_bound() if estimated else usage.total_tokens,
            summary=None if ended.finish_reason == "refusal" else ended.text.strip() or None,
        )

    def broken_off(
        self,
        left: Remains,
        ended: ModelEnded | None,
        *,
        at: datetime,
        remember: Callable[[Usage, bool, Decimal], bytes] | None = None,
    ) -> Outcome:
        """The outcome of a reply that did not reach its end here.

        Args:
            ended: the provider's own account; None where it has none.
        """
        is_whole = left.status == "completed"
        reply = self.reply_message(OutputText(left.text), is_whole=is_whole, estimated=left.estimated, at=at)
        keeps_place = ended is not None and ended.status == "failed" and not left.is_kept
        past = self.past_tokens if self.keeps_messages and not left.is_kept else self._context_bound()
        return self._outcome(
            status=left.status,
            usage=left.usage,
            estimated=left.estimated,
            service_tier=ended.service_tier if ended else None,
            messages=(self.message, reply) if left.is_kept else (),
            answered=left.is_kept,
            # The provider keeps nothing of failures. Of all else it may or may not keep the turn; OpenAI does not where
            # the connection broke, even if it then writes the reply to its end.
            in_doubt=not keeps_place,
            remember=partial(remember, left.usage, left.estimated) if remember else None,
            is_open=left.is_open,
            context_tokens=left.usage.total_tokens if is_whole and not left.estimated else past,
        )

    def remains(self, ended: ModelEnded | None, error: TextLLMError | None = None) -> Remains:
        """What is left of the reply, by the provider's account or else by our own."""
        return remains(ended, self.text, self._estimate(), error=error)

    def _outcome(
        self,
        *,
        status: EntryStatus,
        usage: Usage,
        estimated: bool,
        service_tier: str | None,
        messages: tuple[Message, ...],
        answered: bool,
        in_doubt: bool,
        remember: Callable[[Decimal], bytes] | None,
        context_tokens: int,
        summary: str | None = None,
        is_open: bool = False,
    ) -> Outcome:
        waited = None if self.first_text_at is None else self.first_text_at - self.asked_at
        outcome = Outcome(
            status=status,
            usage=usage,
            model=self.started.model if self.started else self.hold.model,
            estimated=estimated,
            service_tier=service_tier,
            metadata=self.turn.options.metadata,
            messages=messages if self.keeps_messages else (),
            answered=answered,
            last_image=self.message.last_image if answered else None,
            # Where ours is the record, a transcript in doubt is dropped, and made anew from it for the next turn.
            transcript_id=None if in_doubt and self.keeps_messages else self.transcript_id,
            transcripts=self.transcripts,
            context_tokens=context_tokens,
            time_to_first_token_ms=None if waited is None else max(0, int(waited.total_seconds() * 1000)),
            remember=remember,
            end_number=self.log.end_number,
            is_open=is_open,
        )
        if not self.turn.is_aside:
            return outcome
        return replace(
            outcome,
            messages=(),
            answered=False,
            transcript_id=self.thread.transcript_id if self.thread else None,
            transcripts=(),
            context_tokens=self.past_tokens,
            summary=summary,
        )

    def _estimate(self) -> Usage:
        """Tokens of what was certainly sent and certainly received."""
        return Usage(
            input_tokens=self.hold.input_estimate,
            output_tokens=estimated_tokens(self.text, characters=self.thought),
            reasoning_tokens=self.thought // 4,
        )

    def _context_bound(self) -> int:
        """An upper bound of the tokens that the conversation may now have on the provider's side."""
        return self.past_tokens + self.turn.token_bound + len(self.text.encode())
