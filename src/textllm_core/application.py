"""TextLLM as an object: one field for each thing it can do."""

from dataclasses import dataclass

from textllm_core.chat.send_message import SendMessage
from textllm_core.conversations import LatestConversation, ListMessages
from textllm_core.health import CheckHealth
from textllm_core.reconcile import Reconcile
from textllm_core.track_usage import TrackUsage


@dataclass(frozen=True, slots=True)
class TextLLM:
    """All use cases over one set of adapters."""

    send_message: SendMessage
    latest_conversation: LatestConversation
    list_messages: ListMessages
    track_usage: TrackUsage
    reconcile: Reconcile
    check_health: CheckHealth
