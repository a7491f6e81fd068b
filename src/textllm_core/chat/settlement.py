"""What is written down of how an exchange ended, and what its caller is told of it. Pure: nobody is asked."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple

from msgspec import UNSET
from msgspec.structs import replace

from textllm_core.chat.open_exchange import OpenExchange
from textllm_core.chat.remains import Remains, remains, tells_reply
from textllm_core.chat.replay import remembered_failure, remembered_reply
from textllm_core.chat.reply_costs import cost_of, price_of
from textllm_core.chat.reply_messages import calls_of, message_of_reply, told_content
from textllm_core.errors import Charge, ContentRefusedError, ProviderError, TextLLMError
from textllm_core.money import Price
from textllm_core.pricing import Pricing
from textllm_core.records.conversations import ConversationState, title_from
from textllm_core.records.hosted import HostedItem, counted_calls
from textllm_core.records.journal import END_OF_LOST, RefusedEnd
from textllm_core.records.ledger import Hold, Settlement
from textllm_core.records.messages import (
    FinishReason,
    Message,
    Reply,
    ReplyCompleted,
    ReplyStarted,
    ReplyUsage,
    TurnOptions,
)
from textllm_core.records.model import ModelEnded
from textllm_core.records.parts import InputFile, InputImage, OutputText, Refusal, approvals_asked
from textllm_core.records.tools import ReplyToolCall
from textllm_core.usage import Usage, estimate

_OPEN_FOR: Final = timedelta(minutes=10)  # longer than a provider that is left writes on, or than most of its outages
_TOLD_LATER: Final = TurnOptions()  # what else a turn has asked to be told nobody knows any more
_INTERRUPTED: Final = "The service was interrupted before this reply was complete."


class Ending(NamedTuple):
    """How an exchange ends: what is written down, and what its caller is told, but for what only the books count.

    Args:
        unsure: the turn and the words of its reply, which the provider alone keeps, and may not have kept.
    """

    settlement: Settlement
    told: ReplyCompleted | TextLLMError
    unsure: tuple[Message, ...] = ()

    def kept(self) -> "Ending":
        """The same where the provider has the turn after all."""
        return self._replace(settlement=replace(self.settlement, answered=True, unsaid=None))


def ending(
    of: OpenExchange,
    ended: ModelEnded | None,
    *,
    pricing: Pricing,
    at: datetime,
    error: TextLLMError | None = None,
    is_cut_short: bool = False,
) -> Ending:
    """How the exchange ends.

    Args:
        ended: the provider's account of the reply; None where it has none.
        error: why the reply broke off, where it did.
        is_cut_short: we ended it ourselves: what was written of it stays. Without an error its user wanted it so, and
            is told of a reply.
    """
    if error is None and not is_cut_short:  # the model itself stated the end
        assert ended is not None
        if ended.content_filtered:
            error = ContentRefusedError()
        elif ended.status in ("failed", "cancelled"):
            error = ended.error or ProviderError("The model could not finish its reply.")
        else:
            return _of_reply(of, ended, pricing=pricing, at=at)
    left = remains(ended, of.text, of.estimate, error=None if is_cut_short else error)
    if is_cut_short:
        left = replace(left, status="cancelled", text=of.text, is_kept=bool(of.text))
    is_whole = left.status == "completed"
    keeps_place = ended is not None and ended.status == "failed" and not left.is_kept
    past = of.past_tokens if of.keeps_messages and not left.is_kept else of.context_bound
    return _ending(
        of,
        left,
        _message(of, left, ended, at=at) if left.is_kept else None,
        told=error or "cancelled",
        text=left.text,
        price=price_of(pricing, of.hold, of.model, ended),
        stated_cost=ended.cost if ended else None,
        service_tier=ended.service_tier if ended else None,
        # The provider keeps nothing of failures. Of all else it may or may not keep the turn; OpenAI does not where the
        # connection broke, even if it then writes the reply to its end.
        in_doubt=not keeps_place,
        context_tokens=of.context_after(left.usage) if is_whole and not left.estimated else past,
        at=at,
    )


def _of_reply(of: OpenExchange, ended: ModelEnded, *, pricing: Pricing, at: datetime) -> Ending:
    """The end of a reply that reached its own, or its longest length."""
    usage, estimated = ended.charged(of.estimate)
    is_refusal, is_whole = ended.finish_reason == "refusal", ended.status == "completed"
    left = Remains(
        status="completed" if is_whole else "incomplete",
        usage=usage,
        estimated=estimated,
        text=ended.text,
        is_kept=True,
        is_open=False,
    )
    return _ending(
        of,
        left,
        _message(of, left, ended, at=at),
        told=ended.finish_reason,
        text=ended.text,
        price=price_of(pricing, of.hold, of.model, ended),
        stated_cost=ended.cost,
        service_tier=ended.service_tier,
        in_doubt=not is_whole,  # of a reply that was cut short the provider may or may not keep the turn
        context_tokens=of.context_bound if estimated else of.context_after(usage),
        summary=None if is_refusal else ended.text.strip() or None,
        at=at,
    )


def _message(of: OpenExchange, left: Remains, ended: ModelEnded | None, *, at: datetime) -> Message:
    log = of.log
    return message_of_reply(of.hold, left, ended, at=at, tools=log.tools, thoughts=log.thoughts, returned=log.returned)


def _ending(
    of: OpenExchange,
    left: Remains,
    reply_message: Message | None,
    *,
    told: TextLLMError | FinishReason,
    text: str,
    price: Price,
    stated_cost: Decimal | None,
    service_tier: str | None,
    in_doubt: bool,
    context_tokens: int,
    at: datetime,
    summary: str | None = None,
) -> Ending:
    hold, turn, begun, is_aside = of.hold, of.turn, of.begun(), of.turn.is_aside
    cost, source = cost_of(price, left, stated_cost)
    remembered = b""
    if isinstance(told, TextLLMError):
        told.charge = Charge(cost, left.estimated, left.usage)
        end: ReplyCompleted | TextLLMError = told
        if of.is_remembered:
            remembered = remembered_failure(begun, told, response_id=hold.response_id)
    else:
        calls = reply_message.tool_calls if reply_message else ()
        reply = _reply(hold, left, text, told, [ReplyToolCall.of(call) for call in calls], model=of.model, cost=cost)
        end = ReplyCompleted(reply, turn.files, told_content(turn.options, reply_message), at)
        if of.is_remembered and begun is not None:
            remembered = remembered_reply(begun, end)
    is_broken = isinstance(told, TextLLMError) or told == "cancelled"
    # Of the turns that the provider alone keeps, those whose reply broke off count once it has them: `Ending.kept`.
    answered = left.is_kept and not is_aside and (of.keeps_messages or not is_broken)
    waited = None if of.first_text_at is None else of.first_text_at - of.asked_at
    is_kept = reply_message is not None and of.keeps_messages and not is_aside
    # Where ours is the record, a transcript in doubt is dropped, and made anew from it for the next turn. One with a
    # call that waits for an approval could not be gone on with if nobody decides.
    is_left = in_doubt or of.leaves_transcript or _asks_approval(reply_message)
    transcript_id = None if is_left and of.keeps_messages else of.transcript_id
    open_calls = of.conversation.open_calls if of.conversation else None
    if is_aside:
        transcript_id = of.conversation.transcript_id if of.conversation else None
    elif reply_message is not None:
        open_calls = reply_message.open_calls
    settlement = Settlement(
        status=left.status,
        estimated=left.estimated,
        usage=left.usage,
        cost=cost,
        price_source=source,
        rates=price.charged(left.usage),
        model=of.model,
        service_tier=service_tier,
        metadata=turn.options.metadata,
        messages=(*turn.before, of.message, reply_message) if is_kept and reply_message is not None else (),
        answered=answered,
        last_image=of.message.last_image if left.is_kept and not is_aside else None,
        transcript_id=transcript_id,
        transcripts=() if is_aside else of.transcripts,
        context_tokens=of.past_tokens if is_aside else context_tokens,
        at=at,
        time_to_first_token_ms=None if waited is None else max(0, int(waited.total_seconds() * 1000)),
        remembered=remembered,
        summary=summary if is_aside else None,
        unsaid=None if answered or is_aside or turn.given is not None else title_from(of.message.text),
        end_number=of.log.end_number,
        open_calls=open_calls,
        open_until=at + _OPEN_FOR if left.is_open and hold.provider_response_id else None,
        is_untold=begun is None,
    )
    return Ending(settlement, end, _unsure(of, left, reply_message) if in_doubt else ())


def _unsure(of: OpenExchange, left: Remains, reply: Message | None) -> tuple[Message, ...]:
    """See `Ending.unsure`."""
    if reply is None or of.keeps_messages or of.turn.is_aside:
        return ()
    words = replace(reply, content=tuple(part for part in reply.content if isinstance(part, OutputText | Refusal)))
    return (*of.turn.before, of.message, *((words,) if left.text.strip() else ()))  # some take none of spaces alone


def refused(response_id: str, error: TextLLMError, *, number: int, at: datetime) -> RefusedEnd:
    """How an exchange ends of which nothing is written down, for who was told that it had begun."""
    return RefusedEnd(number=number, remembered=remembered_failure(None, error, response_id=response_id), at=at)


def recovered(
    hold: Hold,
    conversation: ConversationState | None,
    heard: str,
    ended: ModelEnded | None,
    files: Sequence[InputImage | InputFile],
    *,
    pricing: Pricing,
    at: datetime,
    tools: Sequence[HostedItem] = (),
    is_told: bool = True,
) -> Settlement:
    """How an exchange ends whose process died.

    Args:
        conversation: None where it is gone.
        heard: what is known to have been read of the reply.
        ended: the provider's account of it; None where it has none.
        files: the images and documents of its turn.
        tools: what is known to have been done for it by tools of the provider's.
        is_told: its caller may know of the reply.
    """
    calls, sent = counted_calls(tools), hold.input_estimate
    stated = estimate(hold.counted, sent=sent, heard=heard, thought=hold.thought, calls=calls)
    left, is_aside = remains(ended, heard, stated), hold.kind == "summary"
    keeps_messages = conversation is None or conversation.keeps_messages
    is_kept = left.is_kept and not is_aside and (hold.message is not None or not keeps_messages)
    # What the provider alone keeps has no turn that broke off, unless it says itself that the reply is whole.
    is_answered = is_kept and (keeps_messages or left.status == "completed")
    # Where ours is the record, what is in doubt is made anew from it, unless the exchange took no part. A provider
    # whose reader is gone may write the reply to its end, and yet not keep it in its conversation.
    known = hold.transcript_id or (conversation.transcript_id if conversation else None)
    past = conversation.context_tokens if conversation else 0
    is_dropped = keeps_messages and not is_aside
    reply_message = message_of_reply(hold, left, ended, at=at, tools=tools) if is_kept else None
    open_calls = conversation.open_calls if conversation else None
    return _by_account(
        hold,
        left,
        ended,
        pricing=pricing,
        at=at,
        messages=(*hold.said, reply_message) if reply_message and hold.message and keeps_messages else (),
        open_calls=reply_message.open_calls if reply_message else open_calls,
        answered=is_answered,
        unsaid=title_from(hold.message.text) if hold.message and not is_answered else None,
        last_image=hold.message.last_image if is_kept and hold.message else None,
        transcript_id=None if is_dropped else known,
        transcripts=(known,) if known else (),
        context_tokens=_context(hold, left, past) if is_kept else past,
        files=files,
        otherwise=ProviderError(_INTERRUPTED),
        is_told=is_told,
    )


def corrected(
    hold: Hold, ended: ModelEnded, files: Sequence[InputImage | InputFile], *, pricing: Pricing, at: datetime
) -> Settlement:
    """What the provider's late account puts in the place of an estimate."""
    left = remains(ended, "", Usage(input_tokens=hold.input_estimate))
    if ended.tool_calls:  # not brought after the fact: by now the conversation may have gone on without their results
        ended = replace(ended, tool_calls=(), finish_reason="stop")
    messages = (message_of_reply(hold, left, ended, at=at),) if left.text else ()
    end = _by_account(
        hold, left, ended, pricing=pricing, at=at, messages=messages, transcript_id=None, context_tokens=0, files=files
    )
    return end if left.text else replace(end, remembered=b"")  # a repeat is told what it was told


def _by_account(
    hold: Hold,
    left: Remains,
    ended: ModelEnded | None,
    *,
    pricing: Pricing,
    at: datetime,
    messages: tuple[Message, ...],
    transcript_id: str | None,
    context_tokens: int,
    files: Sequence[InputImage | InputFile],
    open_calls: tuple[str, ...] | None = None,
    answered: bool = False,
    unsaid: str | None = None,
    last_image: str | None = None,
    transcripts: tuple[str, ...] = (),
    otherwise: TextLLMError | None = None,
    is_told: bool = True,
) -> Settlement:
    """What a process settles that did not carry the exchange out; a repeat is told the reply that the provider has.

    Args:
        otherwise: what it is told where that has none; None: it is told nothing new.
    """
    model = hold.reported_model or hold.model
    price = price_of(pricing, hold, model, ended)
    (cost, source), remembered = cost_of(price, left, ended.cost if ended else None), b""
    if otherwise is not None:
        otherwise.charge = Charge(cost, left.estimated, left.usage)
        remembered = remembered_failure(None, otherwise, response_id=hold.response_id)
    if ended is not None and not ended.content_filtered and tells_reply(left, ended):
        begun = ReplyStarted(hold.response_id, hold.conversation_id, hold.user_id, hold.session_id, model)
        calls = [ReplyToolCall.of(call) for call in calls_of(left, ended)]
        reply = _reply(hold, left, left.text, ended.finish_reason, calls, model=model, cost=cost)
        content = told_content(_TOLD_LATER, messages[-1] if messages else None)
        remembered = remembered_reply(begun, ReplyCompleted(reply, tuple(files), content, at))
    is_summary = hold.kind == "summary" and left.status == "completed"
    return Settlement(
        status=left.status,
        estimated=left.estimated,
        usage=left.usage,
        cost=cost,
        price_source=source,
        rates=price.charged(left.usage),
        model=model,
        service_tier=ended.service_tier if ended else None,
        metadata=hold.metadata,
        messages=messages,
        answered=answered,
        last_image=last_image,
        transcript_id=transcript_id,
        transcripts=transcripts,
        context_tokens=context_tokens,
        at=at,
        time_to_first_token_ms=None,
        remembered=remembered,
        summary=left.text.strip() or None if is_summary else None,
        unsaid=unsaid,
        end_number=END_OF_LOST,
        open_calls=open_calls,
        open_until=at + _OPEN_FOR if left.is_open and hold.provider_response_id else None,
        is_untold=not is_told,
    )


def _asks_approval(message: Message | None) -> bool:
    return message is not None and bool(approvals_asked(message.id, message.content))


def _reply(
    hold: Hold,
    left: Remains,
    text: str,
    finish_reason: FinishReason,
    calls: Sequence[ReplyToolCall],
    *,
    model: str,
    cost: Decimal,
) -> Reply:
    """The reply, but for what only the books count."""
    return Reply(
        text=text,
        conversation_id=hold.conversation_id,
        user_id=hold.user_id,
        message_number=0,
        usage=ReplyUsage.of(left.usage),
        cost=cost,
        estimated=left.estimated,
        response_id=hold.response_id,
        session_id=hold.session_id,
        model=model,
        finish_reason=finish_reason,
        tool_calls=calls or UNSET,
    )


def _context(hold: Hold, left: Remains, past: int) -> int:
    """An upper bound of the tokens that the conversation has now."""
    if left.status == "completed" and not left.estimated:
        return left.usage.total_tokens
    said = sum(len(message.text_for_model.encode()) for message in hold.said)
    return max(hold.input_estimate, past) + said + len(left.text.encode())
