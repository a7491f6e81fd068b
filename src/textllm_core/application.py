"""TextLLM as objects: one field for each thing it can do."""

from dataclasses import dataclass

from textllm_core.audit import AuditBooks
from textllm_core.chat.cancel_reply import CancelReply
from textllm_core.chat.resume_reply import ResumeReply
from textllm_core.chat.send_message import SendMessage
from textllm_core.chat.wind_down import WindDown
from textllm_core.conversations import LatestConversation, ListMessages
from textllm_core.health import CheckHealth
from textllm_core.reconcile import Reconcile
from textllm_core.report_usage import ReportUsage
from textllm_core.sessions import EndSession, GetSession, ListSessions, TodaysSession
from textllm_core.track_usage import TrackUsage


@dataclass(frozen=True, slots=True)
class Books:
    """What needs the database alone: no model is asked, and none need be there."""

    get_session: GetSession
    todays_session: TodaysSession
    list_sessions: ListSessions
    end_session: EndSession
    report_usage: ReportUsage
    audit: AuditBooks


@dataclass(frozen=True, slots=True)
class TextLLM:
    """All use cases over one set of adapters."""

    send_message: SendMessage
    resume_reply: ResumeReply
    cancel_reply: CancelReply
    wind_down: WindDown
    latest_conversation: LatestConversation
    list_messages: ListMessages
    books: Books
    track_usage: TrackUsage
    reconcile: Reconcile
    check_health: CheckHealth
