"""The pure core of TextLLM: records, use cases and ports. It needs the standard library and msgspec, nothing else.

A name is loaded when it is first used: half of the time that the whole takes is asyncio's, and many need a part alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from textllm_core.application import TextLLM
    from textllm_core.chat.chat_with_document import ChatWithDocument, DocumentTurn
    from textllm_core.chat.chat_with_image import ChatWithImage, ImageTurn
    from textllm_core.chat.exchange import Exchange, TrackUsage
    from textllm_core.chat.send_message import SendMessage
    from textllm_core.errors import TextLLMError
    from textllm_core.policy import ChatPolicy
    from textllm_core.records.conversations import Conversation, ConversationChanges, ConversationFilter
    from textllm_core.records.messages import (
        DocumentReply,
        ImageReply,
        Message,
        Reply,
        ReplyCompleted,
        ReplyEvent,
        ReplyFailed,
        ReplyStarted,
        TextDelta,
        TextTurn,
        TurnOptions,
    )
    from textllm_core.records.sessions import Session
    from textllm_core.records.usage_reports import UsageReport
    from textllm_core.tenancy import Caller
    from textllm_core.uploads import Upload
    from textllm_core.usage import LedgerEntry, Usage

__all__ = [
    "Caller",
    "ChatPolicy",
    "ChatWithDocument",
    "ChatWithImage",
    "Conversation",
    "ConversationChanges",
    "ConversationFilter",
    "DocumentReply",
    "DocumentTurn",
    "Exchange",
    "ImageReply",
    "ImageTurn",
    "LedgerEntry",
    "Message",
    "Reply",
    "ReplyCompleted",
    "ReplyEvent",
    "ReplyFailed",
    "ReplyStarted",
    "SendMessage",
    "Session",
    "TextDelta",
    "TextLLM",
    "TextLLMError",
    "TextTurn",
    "TrackUsage",
    "TurnOptions",
    "Upload",
    "Usage",
    "UsageReport",
]

_HOMES = {
    "Caller": "tenancy",
    "ChatPolicy": "policy",
    "ChatWithDocument": "chat.chat_with_document",
    "ChatWithImage": "chat.chat_with_image",
    "Conversation": "records.conversations",
    "ConversationChanges": "records.conversations",
    "ConversationFilter": "records.conversations",
    "DocumentReply": "records.messages",
    "DocumentTurn": "chat.chat_with_document",
    "Exchange": "chat.exchange",
    "ImageReply": "records.messages",
    "ImageTurn": "chat.chat_with_image",
    "LedgerEntry": "usage",
    "SendMessage": "chat.send_message",
    "Session": "records.sessions",
    "TextLLM": "application",
    "TextLLMError": "errors",
    "TrackUsage": "chat.exchange",
    "Upload": "uploads",
    "Usage": "usage",
    "UsageReport": "records.usage_reports",
}


if not TYPE_CHECKING:  # a type checker would take any name for one of ours

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value: object = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'records.messages')}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return __all__
