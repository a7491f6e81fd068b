"""TextLLM as objects: one field for each thing it can do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypedDict

from textllm_core.api_keys import AnyApiKey, Authenticate, IssueApiKey, ListApiKeys, RevokeApiKey
from textllm_core.audit import AuditBooks
from textllm_core.chat.answer_messages import AnswerMessages
from textllm_core.chat.attachments import Attachments
from textllm_core.chat.cancel_reply import CancelReply
from textllm_core.chat.chat_with_document import ChatWithDocument
from textllm_core.chat.chat_with_image import ChatWithImage
from textllm_core.chat.exchange import Exchange
from textllm_core.chat.given_parts import TakeParts
from textllm_core.chat.in_two_steps import InTwoSteps
from textllm_core.chat.resume_reply import ResumeReply
from textllm_core.chat.routes import Routes
from textllm_core.chat.running import RunningExchanges
from textllm_core.chat.send_message import SendMessage
from textllm_core.chat.track_usage import TrackUsage
from textllm_core.chat.turn_files import TurnFiles
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
from textllm_core.events import UNHEARD
from textllm_core.file_links import LinkFile
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
from textllm_core.import_conversation import ImportConversation
from textllm_core.list_messages import ListMessages
from textllm_core.policy import ChatPolicy
from textllm_core.ports.api_key_repository import ApiKeyRepository
from textllm_core.ports.audit import Audit
from textllm_core.ports.blob_store import BlobStore
from textllm_core.ports.clock import Clock
from textllm_core.ports.conversation_repository import ConversationRepository
from textllm_core.ports.document_reader import DocumentReader
from textllm_core.ports.erasures import Erasures
from textllm_core.ports.file_repository import FileRepository
from textllm_core.ports.health_probe import HealthProbe
from textllm_core.ports.ledger import Ledger
from textllm_core.ports.ledger_upkeep import LedgerUpkeep
from textllm_core.ports.llm import LLM
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
from textllm_core.purge_conversations import PurgeConversations
from textllm_core.reconcile import Reconcile
from textllm_core.report_usage import ReportUsage
from textllm_core.retention import RemoveExpired
from textllm_core.sessions import EndSession, GetSession, ListSessions, TodaysSession
from textllm_core.steps import UNTRACED
from textllm_core.stored_responses import Responses
from textllm_core.summarize_conversation import SummarizeConversation
from textllm_core.sweep_files import SweepFiles


@dataclass(frozen=True, slots=True)
class Administration:
    """Sessions, usage, the audit and API keys: they need the database alone, and no model."""

    get_session: GetSession
    todays_session: TodaysSession
    list_sessions: ListSessions
    end_session: EndSession
    report_usage: ReportUsage
    audit: AuditBooks
    issue_api_key: IssueApiKey
    list_api_keys: ListApiKeys
    revoke_api_key: RevokeApiKey
    authenticate: Authenticate
    any_api_key: AnyApiKey

    @classmethod
    def over(
        cls,
        sessions: SessionRepository,
        reports: UsageReports,
        audit: Audit,
        api_keys: ApiKeyRepository,
        clock: Clock,
        models: Sequence[str] | None = None,
    ) -> Self:
        """All of them over one set of adapters; `models`: the names that there are, None where any may be one."""
        return cls(
            get_session=GetSession(sessions),
            todays_session=TodaysSession(sessions, clock),
            list_sessions=ListSessions(sessions, clock),
            end_session=EndSession(sessions),
            report_usage=ReportUsage(reports, clock),
            audit=AuditBooks(audit),
            issue_api_key=IssueApiKey(api_keys, clock, models),
            list_api_keys=ListApiKeys(api_keys),
            revoke_api_key=RevokeApiKey(api_keys, clock),
            authenticate=Authenticate(api_keys, clock),
            any_api_key=AnyApiKey(api_keys),
        )


@dataclass(frozen=True, slots=True)
class Files:
    """What needs the database and the store of files; no model is asked, and none need be there."""

    admit: AdmitUpload
    upload: UploadFile
    list: ListFiles
    get: GetFile
    read: ReadFile
    link: LinkFile
    delete: DeleteFile
    sweep: SweepFiles

    @classmethod
    def over(
        cls,
        files: FileRepository,
        blobs: BlobStore,
        rate_limiter: RateLimiter,
        clock: Clock,
        policy: FilePolicy,
        *,
        link_secret: bytes,
    ) -> Self:
        """All of them over one set of adapters; `link_secret` as `LinkFile` has it."""
        admit = AdmitUpload(rate_limiter, policy)
        return cls(
            admit=admit,
            upload=UploadFile(admit, StoreFile(files, blobs, clock, policy)),
            list=ListFiles(files),
            get=GetFile(files),
            read=ReadFile(blobs),
            link=LinkFile(files, blobs, clock, policy, link_secret),
            delete=DeleteFile(files, blobs),
            sweep=SweepFiles(files, blobs, clock),
        )

    def of_turns(self, conversations: ConversationRepository) -> TurnFiles:
        """The files that come with turns."""
        return TurnFiles(self.upload.store, self.get, self.link, conversations)


@dataclass(frozen=True, slots=True)
class Conversations:
    """What is done with conversations beside talking: it needs the database, and the provider's side of them."""

    create: CreateConversation
    add_messages: AddMessages
    remove_part: RemovePart
    import_one: ImportConversation
    list: ListConversations
    latest: LatestConversation
    get: GetConversation
    messages: ListMessages
    update: UpdateConversation
    delete: DeleteConversation
    restore: RestoreConversation
    erase_at_provider: EraseAtProvider

    @classmethod
    def over(
        cls,
        conversations: ConversationRepository,
        erasures: Erasures,
        transcript: Transcript | None,
        running: RunningExchanges,
        files: TurnFiles,
        clock: Clock,
        *,
        admit: AdmitUpload,
        keeps_messages: bool,
        max_per_user: int,
        max_input_chars: int,
        telemetry: Telemetry = UNHEARD,
    ) -> Self:
        """All of them over one set of adapters."""
        erase = EraseAtProvider(erasures, transcript, clock, telemetry)
        return cls(
            create=CreateConversation(conversations, admit, clock, keeps_messages, max_per_user),
            add_messages=AddMessages(conversations, clock, admit, max_input_chars),
            remove_part=RemovePart(conversations, clock, files),
            import_one=ImportConversation(conversations, admit, clock, keeps_messages, max_per_user),
            list=ListConversations(conversations, files),
            latest=LatestConversation(conversations, files),
            get=GetConversation(conversations, files),
            messages=ListMessages(conversations, transcript),
            update=UpdateConversation(conversations, files),
            delete=DeleteConversation(conversations, files, erase, running, clock),
            restore=RestoreConversation(conversations, files),
            erase_at_provider=erase,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """One adapter of each port, and what goes with it.

    Args:
        transcript: the provider's side of conversations; None where the history is sent with each turn.
        pricing: what models charge.
        routes: where the models are that may be asked; `llm` and `transcript` then take the ids of all of them. None:
            all are behind these two.
        link_secret: as `LinkFile` has it.
        turnstile: over the storage of `ledger` and `rate_limiter`; None: these are asked one after the other.
        probes: of what the service depends on.
    """

    llm: LLM
    transcript: Transcript | None
    pricing: Pricing
    ledger: Ledger
    upkeep: LedgerUpkeep
    conversations: ConversationRepository
    sessions: SessionRepository
    reports: UsageReports
    audit: Audit
    api_keys: ApiKeyRepository
    erasures: Erasures
    journal: ReplyJournal
    responses: StoredResponses
    rate_limiter: RateLimiter
    files: FileRepository
    blobs: BlobStore
    documents: DocumentReader
    clock: Clock
    schedule: Schedule
    link_secret: bytes
    routes: Routes | None = None
    turnstile: Turnstile | None = None
    probes: Sequence[HealthProbe] = ()
    telemetry: Telemetry = UNHEARD
    tracer: Tracer = UNTRACED


class Adapters(TypedDict, total=False):
    """Any of the ports, kept by anyone: the same names as `Ports` has."""

    llm: LLM
    transcript: Transcript | None
    pricing: Pricing
    ledger: Ledger
    upkeep: LedgerUpkeep
    conversations: ConversationRepository
    sessions: SessionRepository
    reports: UsageReports
    audit: Audit
    api_keys: ApiKeyRepository
    erasures: Erasures
    journal: ReplyJournal
    responses: StoredResponses
    rate_limiter: RateLimiter
    files: FileRepository
    blobs: BlobStore
    documents: DocumentReader
    clock: Clock
    schedule: Schedule
    link_secret: bytes
    routes: Routes | None
    turnstile: Turnstile | None
    probes: Sequence[HealthProbe]
    telemetry: Telemetry
    tracer: Tracer


@dataclass(frozen=True, slots=True)
class TextLLM:
    """All use cases over one set of adapters."""

    send_message: SendMessage
    answer_messages: AnswerMessages
    chat_with_image: ChatWithImage
    chat_with_document: ChatWithDocument
    take_parts: TakeParts
    summarize_conversation: SummarizeConversation
    responses: Responses
    resume_reply: ResumeReply
    cancel_reply: CancelReply
    wind_down: WindDown
    conversations: Conversations
    administration: Administration
    files: Files
    track_usage: TrackUsage
    reconcile: Reconcile
    remove_expired: RemoveExpired
    check_health: CheckHealth

    @classmethod
    def over(cls, ports: Ports, policy: ChatPolicy, file_policy: FilePolicy, running: RunningExchanges) -> Self:
        """All of them; `running` has the exchanges of this process, and is drained before the adapters are closed."""
        files = Files.over(
            ports.files, ports.blobs, ports.rate_limiter, ports.clock, file_policy, link_secret=ports.link_secret
        )
        of_turns = files.of_turns(ports.conversations)
        track_usage = TrackUsage(ports.ledger, ports.telemetry)
        routes = ports.routes or Routes.of_one(ports.llm, ports.transcript)
        exchange = Exchange.over(
            llm=ports.llm,
            routes=routes,
            ledger=ports.ledger,
            conversations=ports.conversations,
            journal=ports.journal,
            rate_limiter=ports.rate_limiter,
            turnstile=ports.turnstile or InTwoSteps(ports.rate_limiter, ports.ledger),
            track_usage=track_usage,
            pricing=ports.pricing,
            clock=ports.clock,
            policy=policy,
            running=running,
            attachments=Attachments(ports.blobs),
            telemetry=ports.telemetry,
            tracer=ports.tracer,
        )
        conversations = Conversations.over(
            ports.conversations,
            ports.erasures,
            ports.transcript,
            running,
            of_turns,
            ports.clock,
            admit=files.admit,
            keeps_messages=policy.keep_messages,
            max_per_user=policy.max_conversations,
            max_input_chars=policy.max_input_chars,
            telemetry=ports.telemetry,
        )
        resume_reply = ResumeReply(running, ports.journal, ports.conversations, of_turns, ports.clock, policy)
        cancel_reply = CancelReply(running, ports.journal, resume_reply)
        return cls(
            send_message=SendMessage(exchange, policy),
            answer_messages=AnswerMessages(exchange, policy),
            chat_with_image=ChatWithImage(exchange, of_turns, ports.documents, policy),
            chat_with_document=ChatWithDocument(exchange, of_turns, ports.documents, policy),
            take_parts=TakeParts(exchange, of_turns, ports.documents, files.read),
            summarize_conversation=SummarizeConversation(
                exchange, GetConversation(ports.conversations, of_turns), policy
            ),
            resume_reply=resume_reply,
            responses=Responses.over(
                exchange, ports.conversations, ports.responses, conversations.delete, cancel_reply
            ),
            cancel_reply=cancel_reply,
            wind_down=WindDown(running),
            conversations=conversations,
            administration=Administration.over(
                ports.sessions, ports.reports, ports.audit, ports.api_keys, ports.clock, routes.names
            ),
            files=files,
            track_usage=track_usage,
            reconcile=Reconcile(
                ports.llm,
                ports.ledger,
                ports.journal,
                ports.conversations,
                of_turns,
                track_usage,
                ports.pricing,
                ports.clock,
                running,
            ),
            remove_expired=RemoveExpired(
                ledger=ports.ledger,
                upkeep=ports.upkeep,
                journal=ports.journal,
                rate_limiter=ports.rate_limiter,
                api_keys=ports.api_keys,
                purge=PurgeConversations(ports.conversations, of_turns, ports.clock, policy.retention),
                schedule=ports.schedule,
                clock=ports.clock,
                kept=policy.retention,
                telemetry=ports.telemetry,
            ),
            check_health=CheckHealth(ports.probes),
        )
