"""The suites of the ports, as pytest classes: who writes an adapter inherits one, and says in a fixture what to test.

docs/adapters.md shows how. Who writes an application finds a TextLLM in memory in `textllm_adapters.testing.plugin`.
"""

from pkgutil import iter_modules

import pytest

# Before the suites are imported, so that their failures say what was compared.
pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in iter_modules(__path__)))

from textllm_adapters.testing.api_key_repository import ApiKeyRepositoryContract
from textllm_adapters.testing.audit import AuditContract
from textllm_adapters.testing.blob_store import BlobStoreContract
from textllm_adapters.testing.conversation_repository import ConversationRepositoryContract
from textllm_adapters.testing.conversing_llm import ConversingLLMContract, FilesLLMContract
from textllm_adapters.testing.document_reader import DocumentReaderContract
from textllm_adapters.testing.edited_conversations import EditedConversationsContract
from textllm_adapters.testing.erasures import ErasuresContract
from textllm_adapters.testing.expiring_conversations import ExpiringConversationsContract
from textllm_adapters.testing.file_repository import FileRepositoryContract
from textllm_adapters.testing.health_probe import HealthProbeContract, Probing
from textllm_adapters.testing.idempotency import IdempotencyContract
from textllm_adapters.testing.imported_conversations import ImportedConversationsContract
from textllm_adapters.testing.ledger import LedgerContract
from textllm_adapters.testing.ledger_ends import LedgerEndsContract
from textllm_adapters.testing.ledger_upkeep import LedgerUpkeepContract
from textllm_adapters.testing.llm import ImagesLLMContract, LLMContract, RefusalsLLMContract
from textllm_adapters.testing.managed_conversations import ManagedConversationsContract
from textllm_adapters.testing.models import ConversingModel, ModelUnderTest, Say, echo
from textllm_adapters.testing.payers import PayersContract
from textllm_adapters.testing.rate_limiter import Limiting, RateLimiterContract
from textllm_adapters.testing.reply_journal import ReplyJournalContract
from textllm_adapters.testing.schedule import ScheduleContract
from textllm_adapters.testing.searched_conversations import SearchedConversationsContract
from textllm_adapters.testing.session_repository import SessionRepositoryContract
from textllm_adapters.testing.storage import Auditing, Storage
from textllm_adapters.testing.stored_files import seen
from textllm_adapters.testing.stored_responses import StoredResponsesContract
from textllm_adapters.testing.telemetry import TelemetryContract
from textllm_adapters.testing.tracer import TracerContract
from textllm_adapters.testing.transcript import TranscriptContract
from textllm_adapters.testing.turnstile import Gate, TurnstileContract
from textllm_adapters.testing.usage_reports import UsageReportsContract

__all__ = [
    "ApiKeyRepositoryContract",
    "AuditContract",
    "Auditing",
    "BlobStoreContract",
    "ConversationRepositoryContract",
    "ConversingLLMContract",
    "ConversingModel",
    "DocumentReaderContract",
    "EditedConversationsContract",
    "ErasuresContract",
    "ExpiringConversationsContract",
    "FileRepositoryContract",
    "FilesLLMContract",
    "Gate",
    "HealthProbeContract",
    "IdempotencyContract",
    "ImagesLLMContract",
    "ImportedConversationsContract",
    "LLMContract",
    "LedgerContract",
    "LedgerEndsContract",
    "LedgerUpkeepContract",
    "Limiting",
    "ManagedConversationsContract",
    "ModelUnderTest",
    "PayersContract",
    "Probing",
    "RateLimiterContract",
    "RefusalsLLMContract",
    "ReplyJournalContract",
    "Say",
    "ScheduleContract",
    "SearchedConversationsContract",
    "SessionRepositoryContract",
    "Storage",
    "StoredResponsesContract",
    "TelemetryContract",
    "TracerContract",
    "TranscriptContract",
    "TurnstileContract",
    "UsageReportsContract",
    "echo",
    "seen",
]
