from textllm_core.api_keys import AnyApiKey, Authenticate, IssueApiKey, ListApiKeys, RevokeApiKey
from textllm_core.application import Adapters, Administration, Conversations, Files, Ports, TextLLM
from textllm_core.audit import AuditBooks
from textllm_core.chat.answer_messages import AnswerMessages
from textllm_core.chat.cancel_reply import CancelReply
from textllm_core.chat.chat_with_document import ChatWithDocument, DocumentTurn
from textllm_core.chat.chat_with_image import ChatWithImage, ImageTurn
from textllm_core.chat.exchange import Exchange
from textllm_core.chat.given_parts import GivenFile, GivenPart, TakenParts, TakeParts
from textllm_core.chat.respond import Begun, Respond
from textllm_core.chat.resume_reply import Resumed, ResumeReply
from textllm_core.chat.routes import Route, Routes
from textllm_core.chat.running import RunningExchanges
from textllm_core.chat.send_message import SendMessage
from textllm_core.chat.track_usage import TrackUsage
from textllm_core.chat.wind_down import WindDown
from textllm_core.conversations import (
    CreateConversation,
    DeleteConversation,
    GetConversation,
    LatestConversation,
    ListConversations,
    RestoreConversation,
    UpdateConversation,
)
from textllm_core.edit_conversation import AddMessages, RemovePart
from textllm_core.erasing import EraseAtProvider
from textllm_core.errors import (
    Allowance,
    BudgetExceededError,
    Charge,
    ConfigurationError,
    ContentRefusedError,
    ContextTooLongError,
    ConversationBusyError,
    ConversationLostError,
    ConversationNotFoundError,
    DocumentTooLargeError,
    FileTooLargeError,
    ForbiddenError,
    IdempotencyInProgressError,
    IdempotencyMismatchError,
    ImageTooLargeError,
    InputTooLongError,
    InvalidRequestError,
    ModelError,
    NotFoundError,
    ProviderError,
    ProviderReport,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitedError,
    ServiceUnavailableError,
    SessionNotFoundError,
    StorageQuotaExceededError,
    StorageUnavailableError,
    StoredFileNotFoundError,
    TextLLMError,
    UnauthenticatedError,
    UnknownKeysError,
    UnreadableDocumentError,
    UnreadableReason,
    UnsupportedMediaTypeError,
)
from textllm_core.events import (
    ErasureFailed,
    ErasuresWaiting,
    Event,
    ExchangeAdmitted,
    ExchangeAnswered,
    ExchangeBegun,
    ExchangeCorrected,
    ExchangeFailed,
    ExchangeRerouted,
    ExchangeSettled,
    ExchangesRunning,
    RequestAnswered,
    TurnNotKept,
)
from textllm_core.file_links import FileView, LinkFile
from textllm_core.file_tokens import FileTokens
from textllm_core.files import (
    AdmitUpload,
    DeleteFile,
    FilePolicy,
    GetFile,
    ListFiles,
    ReadFile,
    StoreFile,
    UploadFile,
)
from textllm_core.health import CheckHealth
from textllm_core.images import Image
from textllm_core.import_conversation import (
    ExportedConversation,
    ImportConversation,
    ImportedConversation,
    read_exported,
)
from textllm_core.list_messages import ListedFile, ListedMessage, ListMessages, MessagePage
from textllm_core.money import Band, ChargedCalls, Price, Rates
from textllm_core.policy import ChatPolicy
from textllm_core.ports.api_key_repository import ApiKeyRepository
from textllm_core.ports.audit import Audit
from textllm_core.ports.blob_store import BlobStore, StoredBlob, is_key
from textllm_core.ports.clock import Clock
from textllm_core.ports.conversation_repository import ConversationRepository
from textllm_core.ports.document_reader import Document, DocumentReader, DocumentText, Picture
from textllm_core.ports.erasures import Erasures
from textllm_core.ports.file_repository import FileRepository
from textllm_core.ports.health_probe import HealthProbe
from textllm_core.ports.ledger import Ledger
from textllm_core.ports.ledger_upkeep import LedgerUpkeep
from textllm_core.ports.llm import LLM
from textllm_core.ports.prices import Prices
from textllm_core.ports.rate_limiter import RateLimiter
from textllm_core.ports.reply_journal import ReplyJournal
from textllm_core.ports.schedule import Schedule
from textllm_core.ports.session_repository import SessionRepository
from textllm_core.ports.stored_responses import StoredResponses
from textllm_core.ports.telemetry import Telemetry
from textllm_core.ports.tracer import Tracer
from textllm_core.ports.transcript import Transcript
from textllm_core.ports.turnstile import Turnstile
from textllm_core.ports.usage_reports import UsageReports
from textllm_core.pricing import Pricing
from textllm_core.problem_details import problem_of_error, status_of
from textllm_core.purge_conversations import PurgeConversations
from textllm_core.reconcile import Reconcile
from textllm_core.records.api_keys import ApiKey, ApiKeyPage, IssuedApiKey
from textllm_core.records.audit import BooksSize, Drift
from textllm_core.records.conversations import (
    BegunConversation,
    Conversation,
    ConversationChanges,
    ConversationFilter,
    ConversationPage,
    ConversationState,
    Deletion,
)
from textllm_core.records.edits import ConversationEdit, SaidMessage
from textllm_core.records.erasures import Erasure
from textllm_core.records.file_replies import DocumentReply, ImageReply
from textllm_core.records.files import FilePage, StoredFile
from textllm_core.records.hosted import (
    Approval,
    HostedItem,
    HostedOutput,
    HostedTerms,
    HostedTool,
    HostedTools,
    NamedThing,
    ToolStep,
)
from textllm_core.records.journal import JournalEnd, JournalEntry, JournalPage, RefusedEnd
from textllm_core.records.ledger import AlreadySettledError, Demand, Hold, Replay, Reservation, Settled, Settlement
from textllm_core.records.messages import (
    FinishReason,
    Idempotency,
    Message,
    MessageRole,
    Reply,
    ReplyCompleted,
    ReplyEvent,
    ReplyFailed,
    ReplyStarted,
    ReplyUsage,
    TextDelta,
    TextTurn,
    Turn,
    TurnNames,
    TurnOptions,
)
from textllm_core.records.messages_turn import MessagesTurn
from textllm_core.records.model import (
    ModelCounted,
    ModelEnded,
    ModelEvent,
    ModelRequest,
    ModelStarted,
    ModelThinking,
    ReadBlob,
)
from textllm_core.records.models import (
    ListedModel,
    ModelList,
    ModelPrice,
    ProviderFound,
)
from textllm_core.records.parts import (
    ContentPart,
    InputFile,
    InputImage,
    InputLink,
    InputText,
    OutputText,
    Refusal,
    ShownRefusal,
    ShownText,
)
from textllm_core.records.response_turns import KeptResponse, ResponseStatus, ResponseTurn
from textllm_core.records.sampling import Sampling
from textllm_core.records.schema import SchemaStep
from textllm_core.records.sessions import Session
from textllm_core.records.stored_responses import AskedResponse, FollowedResponse, ResponseFailure, StoredResponse
from textllm_core.records.thoughts import Reasoning, Thought, ThoughtDelta
from textllm_core.records.tools import (
    CalledFunction,
    FunctionTool,
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedFunction,
    ReplyToolCall,
    ResponseFormat,
    ShownCall,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from textllm_core.records.usage_reports import DailyUsage, UsageOfConversation, UsageOfDay, UsageOfModel, UsageReport
from textllm_core.report_usage import ReportUsage
from textllm_core.retention import RemoveExpired
from textllm_core.sessions import EndSession, GetSession, ListSessions, TodaysSession
from textllm_core.steps import Admitting, Asking, Serving, Settling, Step
from textllm_core.stored_responses import CancelResponse, DeleteResponse, GetResponse, Responses
from textllm_core.summarize_conversation import SummarizeConversation
from textllm_core.sweep_files import SweepFiles
from textllm_core.tenancy import Caller, Owner, Role
from textllm_core.uploads import Attached, HeldFiles, Upload
from textllm_core.usage import LedgerEntry, Usage
from textllm_core.wire import Record

__all__ = [
    "LLM",
    "Adapters",
    "AddMessages",
    "Administration",
    "AdmitUpload",
    "Admitting",
    "Allowance",
    "AlreadySettledError",
    "AnswerMessages",
    "AnyApiKey",
    "ApiKey",
    "ApiKeyPage",
    "ApiKeyRepository",
    "Approval",
    "AskedResponse",
    "Asking",
    "Attached",
    "Audit",
    "AuditBooks",
    "Authenticate",
    "Band",
    "Begun",
    "BegunConversation",
    "BlobStore",
    "BooksSize",
    "BudgetExceededError",
    "CalledFunction",
    "Caller",
    "CancelReply",
    "CancelResponse",
    "Charge",
    "ChargedCalls",
    "ChatPolicy",
    "ChatWithDocument",
    "ChatWithImage",
    "CheckHealth",
    "Clock",
    "ConfigurationError",
    "ContentPart",
    "ContentRefusedError",
    "ContextTooLongError",
    "Conversation",
    "ConversationBusyError",
    "ConversationChanges",
    "ConversationEdit",
    "ConversationFilter",
    "ConversationLostError",
    "ConversationNotFoundError",
    "ConversationPage",
    "ConversationRepository",
    "ConversationState",
    "Conversations",
    "CreateConversation",
    "DailyUsage",
    "DeleteConversation",
    "DeleteFile",
    "DeleteResponse",
    "Deletion",
    "Demand",
    "Document",
    "DocumentReader",
    "DocumentReply",
    "DocumentText",
    "DocumentTooLargeError",
    "DocumentTurn",
    "Drift",
    "EndSession",
    "EraseAtProvider",
    "Erasure",
    "ErasureFailed",
    "Erasures",
    "ErasuresWaiting",
    "Event",
    "Exchange",
    "ExchangeAdmitted",
    "ExchangeAnswered",
    "ExchangeBegun",
    "ExchangeCorrected",
    "ExchangeFailed",
    "ExchangeRerouted",
    "ExchangeSettled",
    "ExchangesRunning",
    "ExportedConversation",
    "FilePage",
    "FilePolicy",
    "FileRepository",
    "FileTokens",
    "FileTooLargeError",
    "FileView",
    "Files",
    "FinishReason",
    "FollowedResponse",
    "ForbiddenError",
    "FunctionTool",
    "GetConversation",
    "GetFile",
    "GetResponse",
    "GetSession",
    "GivenFile",
    "GivenPart",
    "HealthProbe",
    "HeldFiles",
    "Hold",
    "HostedItem",
    "HostedOutput",
    "HostedTerms",
    "HostedTool",
    "HostedTools",
    "Idempotency",
    "IdempotencyInProgressError",
    "IdempotencyMismatchError",
    "Image",
    "ImageReply",
    "ImageTooLargeError",
    "ImageTurn",
    "ImportConversation",
    "ImportedConversation",
    "InputFile",
    "InputImage",
    "InputLink",
    "InputText",
    "InputTooLongError",
    "InvalidRequestError",
    "IssueApiKey",
    "IssuedApiKey",
    "JournalEnd",
    "JournalEntry",
    "JournalPage",
    "JsonObjectFormat",
    "JsonSchemaFormat",
    "KeptResponse",
    "LatestConversation",
    "Ledger",
    "LedgerEntry",
    "LedgerUpkeep",
    "LinkFile",
    "ListApiKeys",
    "ListConversations",
    "ListFiles",
    "ListMessages",
    "ListSessions",
    "ListedFile",
    "ListedMessage",
    "ListedModel",
    "Message",
    "MessagePage",
    "MessageRole",
    "MessagesTurn",
    "ModelCounted",
    "ModelEnded",
    "ModelError",
    "ModelEvent",
    "ModelList",
    "ModelPrice",
    "ModelRequest",
    "ModelStarted",
    "ModelThinking",
    "NamedFunction",
    "NamedThing",
    "NotFoundError",
    "OutputText",
    "Owner",
    "Picture",
    "Ports",
    "Price",
    "Prices",
    "Pricing",
    "ProviderError",
    "ProviderFound",
    "ProviderReport",
    "ProviderTimeoutError",
    "ProviderUnavailableError",
    "PurgeConversations",
    "RateLimitedError",
    "RateLimiter",
    "Rates",
    "ReadBlob",
    "ReadFile",
    "Reasoning",
    "Reconcile",
    "Record",
    "Refusal",
    "RefusedEnd",
    "RemoveExpired",
    "RemovePart",
    "Replay",
    "Reply",
    "ReplyCompleted",
    "ReplyEvent",
    "ReplyFailed",
    "ReplyJournal",
    "ReplyStarted",
    "ReplyToolCall",
    "ReplyUsage",
    "ReportUsage",
    "RequestAnswered",
    "Reservation",
    "Respond",
    "ResponseFailure",
    "ResponseFormat",
    "ResponseStatus",
    "ResponseTurn",
    "Responses",
    "RestoreConversation",
    "ResumeReply",
    "Resumed",
    "RevokeApiKey",
    "Role",
    "Route",
    "Routes",
    "RunningExchanges",
    "SaidMessage",
    "Sampling",
    "Schedule",
    "SchemaStep",
    "SendMessage",
    "ServiceUnavailableError",
    "Serving",
    "Session",
    "SessionNotFoundError",
    "SessionRepository",
    "Settled",
    "Settlement",
    "Settling",
    "ShownCall",
    "ShownRefusal",
    "ShownText",
    "Step",
    "StorageQuotaExceededError",
    "StorageUnavailableError",
    "StoreFile",
    "StoredBlob",
    "StoredFile",
    "StoredFileNotFoundError",
    "StoredResponse",
    "StoredResponses",
    "SummarizeConversation",
    "SweepFiles",
    "TakeParts",
    "TakenParts",
    "Telemetry",
    "TextDelta",
    "TextLLM",
    "TextLLMError",
    "TextTurn",
    "Thought",
    "ThoughtDelta",
    "TodaysSession",
    "ToolCall",
    "ToolChoice",
    "ToolResult",
    "ToolStep",
    "Tracer",
    "TrackUsage",
    "Transcript",
    "Turn",
    "TurnNames",
    "TurnNotKept",
    "TurnOptions",
    "Turnstile",
    "UnauthenticatedError",
    "UnknownKeysError",
    "UnreadableDocumentError",
    "UnreadableReason",
    "UnsupportedMediaTypeError",
    "UpdateConversation",
    "Upload",
    "UploadFile",
    "Usage",
    "UsageOfConversation",
    "UsageOfDay",
    "UsageOfModel",
    "UsageReport",
    "UsageReports",
    "WindDown",
    "is_key",
    "problem_of_error",
    "read_exported",
    "status_of",
]
