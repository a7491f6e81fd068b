"""What the suites of the books are given: adapters over one store."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal

from textllm_core.ports.audit import Audit
from textllm_core.ports.conversation_repository import ConversationRepository
from textllm_core.ports.erasures import Erasures
from textllm_core.ports.file_repository import FileRepository
from textllm_core.ports.ledger import Ledger
from textllm_core.ports.ledger_upkeep import LedgerUpkeep
from textllm_core.ports.reply_journal import ReplyJournal
from textllm_core.ports.session_repository import SessionRepository
from textllm_core.ports.stored_responses import StoredResponses
from textllm_core.ports.usage_reports import UsageReports
from textllm_core.records.ledger import Hold


@dataclass(frozen=True, slots=True)
class Storage:
    """The books and what reads them, over one store."""

    ledger: Ledger
    upkeep: LedgerUpkeep
    conversations: ConversationRepository
    sessions: SessionRepository
    reports: UsageReports
    journal: ReplyJournal
    files: FileRepository
    erasures: Erasures
    responses: StoredResponses


@dataclass(frozen=True, slots=True)
class Auditing:
    """The books, their audit, and ways to spoil them behind the ledger's back.

    Args:
        move: adds to a counter, in every row of a table: `move("sessions", "reserved", Decimal(1))`.
        forget: removes the row of a hold, and nothing else.
        forget_usage: removes all rows of daily usage.
    """

    storage: Storage
    audit: Audit
    move: Callable[[str, str, Decimal | int], Awaitable[None]]
    forget: Callable[[Hold], Awaitable[None]]
    forget_usage: Callable[[], Awaitable[None]]
