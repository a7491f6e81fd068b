"""The message that a reply becomes, as its conversation keeps it."""

from collections.abc import Sequence
from datetime import datetime

from msgspec import UNSET
from msgspec.structs import replace

from textllm_core.chat.remains import Remains, tells_reply
from textllm_core.records.hosted import NOTHING_HOSTED, HostedItem
from textllm_core.records.ledger import Hold
from textllm_core.records.messages import Message, MessageEnd, TurnOptions, reply_message_id
from textllm_core.records.model import ModelEnded
from textllm_core.records.parts import ContentPart, OutputText, Refusal
from textllm_core.records.thoughts import Reasoning
from textllm_core.records.tools import ToolCall


def message_of_reply(
    hold: Hold,
    left: Remains,
    ended: ModelEnded | None,
    *,
    at: datetime,
    tools: Sequence[HostedItem] = (),
    thoughts: tuple[str, str] = ("", ""),
    returned: Reasoning | None = None,
) -> Message:
    """The reply as its conversation keeps it.

    Args:
        tools: what was heard of tools of the provider's; its own account is the truth, where it has one.
        thoughts: what the model thought in words before its text, and behind that, as far as it is told.
        returned: what it thought before its text, as its provider wants it back.
    """
    end, calls = _message_end(left, ended), calls_of(left, ended)
    hosted = NOTHING_HOSTED if ended is None else ended.hosted.of(left.text, ended.text)
    hosted = hosted if hosted.items else replace(hosted, before=tuple(tools))
    said = _said(left.text, ended.refusal if ended is not None and end == "refusal" else None)
    if hosted.annotations and isinstance(said[0], OutputText):
        said = (replace(said[0], annotations=hosted.annotations), *said[1:])
    before, behind = thoughts
    asks = any(item.asks_approval for item in hosted.items)
    if (calls or asks) and not left.text:
        said, behind = (), before + behind
    elif before or returned:
        reasoning = returned or Reasoning(made_by="", content="")
        said = (replace(said[0], reasoning=replace(reasoning, words=before or UNSET)), *said[1:])
    if calls and behind:
        reasoning = calls[0].reasoning or Reasoning(made_by="", content="")
        calls = (replace(calls[0], reasoning=replace(reasoning, words=behind)), *calls[1:])
    return Message(
        id=reply_message_id(hold.response_id),
        role="assistant",
        content=(*hosted.before, *said, *hosted.after, *calls),
        created_at=at,
        status="completed" if left.status == "completed" else "incomplete",
        estimated=left.estimated,
        finish_reason=end,
    )


def told_content(options: TurnOptions, message: Message | None) -> tuple[ContentPart, ...]:
    """The parts of a reply, where its text and its calls alone do not say all that is told of them."""
    content = () if message is None else message.content
    is_thought = options.tells_reasoning and any(
        isinstance(part, OutputText | Refusal | ToolCall) and part.reasoning for part in content
    )
    is_parted = sum(isinstance(part, OutputText | Refusal) for part in content) > 1
    has_more = any(
        isinstance(part, HostedItem) or (isinstance(part, OutputText) and part.annotations) for part in content
    )
    return content if is_thought or is_parted or has_more else ()


def calls_of(left: Remains, ended: ModelEnded | None) -> tuple[ToolCall, ...]:
    """What the reply asks to be run: of one that broke off nobody knows whether that is all, so it asks for nothing."""
    return tuple(ended.tool_calls) if ended is not None and left.status == "completed" else ()


def _said(text: str, refusal: str | None) -> tuple[OutputText | Refusal, ...]:
    """The text of a reply, which ends with a refusal; an empty one: it is nothing else. None: it does not."""
    if refusal is None:
        return (OutputText(text),)
    answered = text.removesuffix(refusal) if refusal else ""
    if not answered or answered == text:
        return (Refusal(text),)
    return OutputText(answered), Refusal(refusal)


def _message_end(left: Remains, ended: ModelEnded | None) -> MessageEnd:
    """Why the reply ends where it does: by the provider's word, where it has one for a reply."""
    if left.status == "cancelled":
        return "cancelled"
    if ended is None or ended.content_filtered or not tells_reply(left, ended):
        return "error"
    return ended.finish_reason
