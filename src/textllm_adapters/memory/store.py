"""What the ledger and the repositories in memory share."""

from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Final, Literal, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from textllm_core.ids import new_id
from textllm_core.records.accounts import ConversationAccount, SessionAccount
from textllm_core.records.api_keys import ApiKey
from textllm_core.records.conversations import Conversation, ConversationState
from textllm_core.records.erasures import Erasure, ErasureKind
from textllm_core.records.files import StoredFile
from textllm_core.records.journal import JournalEnd, JournalEntry, Spoken
from textllm_core.records.ledger import Hold, Replay
from textllm_core.records.messages import Message
from textllm_core.records.sessions import Session
from textllm_core.records.stored_responses import StoredResponse
from textllm_core.records.usage_reports import DailyUsage
from textllm_core.rules.bookkeeping import Before
from textllm_core.usage import LedgerEntry

Key: TypeAlias = tuple[str, str, str]  # tenant, user, id

# What an account has in common with what the outside sees.
_SHARED: Final = sorted({*ConversationAccount.__struct_fields__} & {*Conversation.__struct_fields__})
_OF_SESSION: Final = sorted({*SessionAccount.__struct_fields__} & {*Session.__struct_fields__})


class KeptConversation(Struct, frozen=True):
    """A conversation, the provider's side of it, and the exchange that is running in it until its lease ends."""

    conversation: Conversation
    messages: tuple[Message, ...] = ()
    transcript_id: str | None = None
    context_tokens: int = 0
    open_calls: tuple[str, ...] | None = None
    keeps_messages: bool = True
    revision: int = 0
    turn_id: str | None = None
    turn_until: datetime | None = None
    deleted_at: datetime | None = None
    imported_turns: int = 0
    expires_at: datetime | None = None

    @property
    def keeps_nothing(self) -> bool:
        """Nothing that was said in it is kept, here or at the provider."""
        return not self.messages and self.transcript_id is None and self.conversation.last_image_url is None

    @property
    def state(self) -> ConversationState:
        """What the next turn needs to know of it."""
        return ConversationState(
            id=self.conversation.id,
            user_id=self.conversation.user_id,
            transcript_id=self.transcript_id,
            context_tokens=self.context_tokens,
            open_calls=self.open_calls,
            message_count=self.conversation.message_count,
            revision=self.revision,
            keeps_messages=self.keeps_messages,
            last_message=len(self.messages),
        )

    @property
    def account(self) -> ConversationAccount:
        of_both = {name: getattr(self.conversation, name) for name in _SHARED}
        return ConversationAccount(
            **of_both,
            transcript_id=self.transcript_id,
            context_tokens=self.context_tokens,
            open_calls=self.open_calls,
            revision=self.revision,
            last_message=len(self.messages),
            turn_id=self.turn_id,
            turn_until=self.turn_until,
        )

    def with_account(self, account: ConversationAccount) -> "KeptConversation":
        return replace(
            self,
            conversation=replace(self.conversation, **{name: getattr(account, name) for name in _SHARED}),
            transcript_id=account.transcript_id,
            context_tokens=account.context_tokens,
            open_calls=account.open_calls,
            revision=account.revision,
            turn_id=account.turn_id,
            turn_until=account.turn_until,
        )


class KeptSession(Struct, frozen=True):
    """A session, the sum of its holds, in USD, and whether it is only reopened; see `SessionAccount`."""

    session: Session
    reserved: Decimal
    is_reopened: bool = False

    @property
    def account(self) -> SessionAccount:
        of_session = {name: getattr(self.session, name) for name in _OF_SESSION}
        return SessionAccount(**of_session, reserved=self.reserved, is_reopened=self.is_reopened)

    def with_account(self, account: SessionAccount) -> "KeptSession":
        session = replace(self.session, **{name: getattr(account, name) for name in _OF_SESSION})
        return KeptSession(session, account.reserved, account.is_reopened)


class KeptHold(Struct, frozen=True):
    """A hold and its lease.

    Args:
        made_conversation: a release takes the conversation back as well.
        was_ended: its session, under it.
    """

    hold: Hold
    lease_until: datetime
    made_conversation: bool
    before: Before | None = None
    last_activity: datetime | None = None
    repeat: "KeptRepeat | None" = None
    is_resumable: bool = False
    cancel_asked: bool = False
    watched_until: datetime | None = None
    was_ended: bool = False


class KeptEstimate(Struct, frozen=True):
    """An exchange that is settled by an estimate, of which the provider is asked at `next_at`, and until `until`."""

    hold: Hold
    next_at: datetime
    until: datetime


class KeptEnd(Struct, frozen=True):
    """How a resumable exchange ended, and when."""

    end: JournalEnd
    at: datetime


class KeptRepeat(Struct, frozen=True):
    """An idempotency key, by tenant, scope and key; `replay` is None while its exchange runs."""

    key: Key
    fingerprint: str
    response_id: str
    reserved_at: datetime
    replay: Replay | None = None


class KeptFile(Struct, frozen=True):
    """A file, and how far it is."""

    file: StoredFile
    status: Literal["announced", "ready", "hidden"]


class KeptApiKey(Struct, frozen=True):
    """A key and the SHA-256 of its secret."""

    key: ApiKey
    digest: bytes


class KeptErasure(Struct, frozen=True):
    """Something that the provider is to forget, but not before `next_at`."""

    erasure: Erasure
    next_at: datetime


@dataclass(slots=True)
class MemoryStore:
    """Tables in dictionaries. No method of the adapters waits while it changes them: each is a transaction.

    `ledger_since`: the first day of which all entries are there.
    """

    conversations: dict[Key, KeptConversation] = field(default_factory=dict)
    sessions: dict[tuple[str, str, date], KeptSession] = field(default_factory=dict)
    daily_usage: dict[tuple[str, str, date, str], DailyUsage] = field(default_factory=dict)
    holds: dict[Key, KeptHold] = field(default_factory=dict)
    estimates: dict[Key, KeptEstimate] = field(default_factory=dict)
    replies: dict[Key, str] = field(default_factory=dict)  # the message that is the reply of an exchange
    repeats: dict[Key, KeptRepeat] = field(default_factory=dict)
    entries: dict[Key, LedgerEntry] = field(default_factory=dict)
    spoken: dict[Key, dict[int, tuple[Spoken, ...]]] = field(default_factory=dict)
    ends: dict[Key, KeptEnd] = field(default_factory=dict)
    files: dict[Key, KeptFile] = field(default_factory=dict)
    api_keys: dict[tuple[str, str], KeptApiKey] = field(default_factory=dict)
    erasures: dict[Key, KeptErasure] = field(default_factory=dict)
    ledger_since: date = date.min
    responses: dict[Key, StoredResponse] = field(default_factory=dict)

    def to_erase(self, tenant_id: str, user_id: str, kind: ErasureKind, provider_id: str, *, at: datetime) -> None:
        """Have the provider forget something, from `at` on."""
        erasure = Erasure(
            tenant_id=tenant_id,
            user_id=user_id,
            id=new_id("erase"),
            kind=kind,
            provider_id=provider_id,
            attempts=0,
        )
        self.erasures[tenant_id, user_id, erasure.id] = KeptErasure(erasure, at)

    def say(self, said: JournalEntry | None) -> None:
        """Keep events of a reply; what starts with one that is kept already takes its place."""
        if said is not None:
            key = said.hold.tenant_id, said.hold.user_id, said.hold.response_id
            self.spoken.setdefault(key, {})[said.first] = said.events
