"""The pure core of TextLLM: records, use cases and ports. It needs the standard library and msgspec, nothing else."""

from textllm_core.application import TextLLM
from textllm_core.chat.exchange import Exchange
from textllm_core.chat.messages import (
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
from textllm_core.chat.send_message import SendMessage
from textllm_core.conversations import Conversation
from textllm_core.errors import TextLLMError
from textllm_core.policy import ChatPolicy
from textllm_core.report_usage import UsageReport
from textllm_core.sessions import Session
from textllm_core.tenancy import Caller
from textllm_core.track_usage import TrackUsage
from textllm_core.usage import LedgerEntry, Usage

__all__ = [
    "Caller",
    "ChatPolicy",
    "Conversation",
    "Exchange",
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
    "Usage",
    "UsageReport",
]
