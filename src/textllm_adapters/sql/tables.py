"""The tables. Each has tenant and user first in its key, so that one user's rows can live together on one shard.

A further index that finds something by its id begins with it: one that began with the tenant, too, would seem as good
as the key to a planner who does not know yet how many rows a tenant has. So would one of days, where the key has a day.
"""

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    false,
    true,
)

from textllm_adapters.sql.types import Content, Id, Labels, Money, Name, PlainText, Record, Tags, UtcDateTime, Words
from textllm_core.money import Price, Rates
from textllm_core.records.ledger import Hold
from textllm_core.records.messages import Message, ReplyStarted
from textllm_core.rules.bookkeeping import Before
from textllm_core.usage import Usage

metadata: Final = MetaData()

# turn_id: the exchange that is running in it; whether that is alive, the lease of its hold alone says. turn_until: the
# same lease once more, for workers of the last release, which run beside newer ones while a service is upgraded: they
# take a conversation over once that has passed. The release after this one can drop it.
# transcript_id: the provider's side of it. revision: how many exchanges have ended in it.
# last_image_url: the key of its newest image; links run out, and are made when they are asked for.
# imported_turns: how many of message_count came with an import; the ledger has none of them.
# open_calls: calls of functions that its last reply asks for, whose results the next turn brings.
# expires_at: when it goes by itself, unless something was said in it since; such ones are in no list. NULL: never.
# last_message: the number of the newest message kept. session_id: of the newest turn; it changes with the first
# turn of a day alone, so that all others leave the indexes as they are.
conversations: Final = Table(
    "conversations",
    metadata,
    Column("tenant_id", Id, nullable=False),
    Column("user_id", Id, nullable=False),
    Column("id", Id, nullable=False),
    Column("session_id", Id),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("message_count", Integer, nullable=False),
    Column("total_tokens_input", BigInteger, nullable=False),
    Column("total_tokens_output", BigInteger, nullable=False),
    Column("total_cost", Money, nullable=False),
    Column("title", PlainText),
    Column("summary", PlainText),
    Column("tags", Tags, nullable=False),
    Column("metadata", Labels, nullable=False),
    Column("is_deleted", Boolean, nullable=False),
    Column("deleted_at", UtcDateTime),
    Column("last_image_url", PlainText),
    Column("transcript_id", PlainText),
    Column("context_tokens", BigInteger, nullable=False),
    Column("open_calls", Record(tuple[str, ...])),
    Column("keeps_messages", Boolean, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("last_message", Integer, nullable=False),
    Column("turn_id", Id),
    Column("turn_until", UtcDateTime),
    Column("imported_turns", Integer, nullable=False, server_default="0"),
    Column("expires_at", UtcDateTime),
    PrimaryKeyConstraint("tenant_id", "user_id", "id", name="pk_conversations"),
    Index("ix_conversations_id_tenant_id", "id", "tenant_id"),
    Index("ix_conversations_session_id_tenant_id_user_id", "session_id", "tenant_id", "user_id"),
)

# reserved: the sum of the day's holds. conversation_count: conversations that have an entry or a hold in it.
# is_reopened: it was ended, and only turns that came later, and are running, have made it active again.
sessions: Final = Table(
    "sessions",
    metadata,
    Column("tenant_id", Id, nullable=False),
    Column("user_id", Id, nullable=False),
    Column("day", Date, nullable=False),
    Column("id", Id, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("last_activity", UtcDateTime, nullable=False),
    Column("total_tokens", BigInteger, nullable=False),
    Column("total_cost", Money, nullable=False),
    Column("reserved", Money, nullable=False),
    Column("conversation_count", Integer, nullable=False),
    Column("is_active", Boolean, nullable=False),
    Column("is_reopened", Boolean, nullable=False, server_default=false()),
    PrimaryKeyConstraint("tenant_id", "user_id", "day", name="pk_sessions"),
    Index("ix_sessions_id_tenant_id", "id", "tenant_id"),
    Index("ix_sessions_created_at", "created_at"),
)

# The settled exchanges of the ledger, added up, so that statistics need not read it. messages: those answered.
# estimated_cost: the part of cost whose usage the provider did not state.
daily_usage: Final = Table(
    "daily_usage",
    metadata,
    Column("tenant_id", Id, nullable=False),
    Column("user_id", Id, nullable=False),
    Column("day", Date, nullable=False),
    Column("model", Name, nullable=False),
    Column("messages", Integer, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cost", Money, nullable=False),
    Column("estimated_cost", Money, nullable=False, server_default="0"),
    PrimaryKeyConstraint("tenant_id", "user_id", "day", "model", name="pk_daily_usage"),
)

# One row for each exchange that is running. made_conversation: a release takes the conversation back as well.
# is_resumable: it has a journal. watched_until: somebody reads it from there. message, said_before: what the user says,
# and what comes before it; they would else be lost with the process, as the caller's metadata. is_asked: the provider
# may have been asked. transcript_id: what was made for it there. payer_id: who is charged in the user's place; NULL:
# the user. thought: characters of reasoning, counted: what the provider had stated of its usage (NULL: nothing), by the
# last renewal. before: what a release has to undo in the conversation. session_last_activity: what it puts back in the
# session; NULL: it was made for it. session_was_active: FALSE once the session was ended under the exchange.
holds: Final = Table(
    "holds",
    metadata,
    Column("tenant_id", Id, nullable=False),
    Column("user_id", Id, nullable=False),
    Column("response_id", Id, nullable=False),
    Column("conversation_id", Id, nullable=False),
    Column("session_id", Id, nullable=False),
    Column("day", Date, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("model", PlainText, nullable=False),
    Column("price", Record(Price), nullable=False),
    Column("input_estimate", BigInteger, nullable=False),
    Column("amount", Money, nullable=False),
    Column("made_conversation", Boolean, nullable=False),
    Column("provider_response_id", PlainText),
    Column("idempotency_scope", PlainText),
    Column("idempotency_key", PlainText),
    Column("created_at", UtcDateTime, nullable=False),
    Column("lease_until", UtcDateTime, nullable=False),
    Column("is_resumable", Boolean, nullable=False, server_default=false()),
    Column("cancel_asked", Boolean, nullable=False, server_default=false()),
    Column("watched_until", UtcDateTime),
    Column("message", Record(Message)),
    Column("is_asked", Boolean, nullable=False, server_default=true()),
    Column("transcript_id", PlainText),
    Column("reported_model", PlainText),
    Column("payer_id", Id),
    Column("before", Record(Before)),
    Column("session_was_active", Boolean, nullable=False, server_default=true()),
    Column("session_last_activity", UtcDateTime),
    Column("metadata", Labels),
    Column("thought", BigInteger, nullable=False, server_default="0"),
    Column("said_before", Record(tuple[Message, ...]), nullable=False, server_default="[]"),
    Column("counted", Record(Usage)),
    PrimaryKeyConstraint("tenant_id", "user_id", "response_id", name="pk_holds"),
    ForeignKeyConstraint(
        ["tenant_id", "user_id", "conversation_id"],
        ["conversations.tenant_id", "conversations.user_id", "conversations.id"],
        name="fk_holds_conversations",
    ),
    Index("ix_holds_lease_until", "lease_until"),
)

# Exchanges settled by an estimate, of which the provider is asked at next_at, and no more after until. hold: as it was,
# without its message.
estimates: Final = Table(
    "estimates",
    metadata,
    Column("tenant_id", Id, nullable=False),
    Column("user_id", Id, nullable=False),
    Column("response_id", Id, nullable=False),
    Column("hold", Record(Hold), nullable=False),
    Column("next_at", UtcDateTime, nullable=False),
    Column("until", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("tenant_id", "user_id", "response_id", name="pk_estimates"),
    Index("ix_estimates_next_at", "next_at"),
)

# One row for each exchange that reached the provider. No foreign key: an entry outlives its conversation.
# payer_id: as in holds.
# On PostgreSQL it has a table for each month (`postgres.ledger_upkeep`).
ledger: Final = Table(
    "ledger",
    metadata,
    Column("tenant_id", Id, nullable=False),
    Column("user_id", Id, nullable=False),
    Column("response_id", Id, nullable=False),
    Column("conversation_id", Id, nullable=False),
    Column("session_id", Id, nullable=False),
    Column("day", Date, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("model", PlainText, nullable=False),
    Column("provider_response_id", PlainText),
    Column("status", String(16), nullable=False),
    Column("estimated", Boolean, nullable=False),
    Column("answered", Boolean, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("cache_write_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("held", Money, nullable=False),
    Column("cost", Money, nullable=False),
    Column("price_source", PlainText, nullable=False),
    Column("rates", Record(Rates)),
    Column("service_tier", PlainText),
    Column("metadata", Labels),
    Column("created_at", UtcDateTime, nullable=False),
    Column("settled_at", UtcDateTime),
    Column("time_to_first_token_ms", Integer),
    Column("payer_id", Id),
    PrimaryKeyConstraint("tenant_id", "user_id", "response_id", name="pk_ledger"),
    Index("ix_ledger_response_id_tenant_id", "response_id", "tenant_id"),
    Index("ix_ledger_conversation_id_tenant_id", "conversation_id", "tenant_id"),
)

# estimated: of a reply: what it cost is an estimate. finish_reason: of a reply, where it is known.
messages: Final = Table(
    "messages",
    metadata,
    Column("tenant_id", Id, nullable=False),
    Column("user_id", Id, nullable=False),
    Column("conversation_id", Id, nullable=False),
    Column("number", Integer, nullable=False),
    Column("id", Id, nullable=False),
    Column("response_id", Id, nullable=False),
    Column("role", String(16), nullable=False),
    Column("status", String(16), nullable=False),
    Column("content", Content, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("estimated", Boolean),
    Column("finish_reason", String(16)),
    PrimaryKeyConstraint("tenant_id", "user_id", "conversation_id", "number", name="pk_messages"),
    ForeignKeyConstraint(
        ["tenant_id", "user_id", "conversation_id"],
        ["conversations.tenant_id", "conversations.user_id", "conversations.id"],
        name="fk_messages_conversations",
        ondelete="CASCADE",
    ),
)

# What was said, as words, for searches: of messages that were there when somebody last searched.
# place: of the words in SQLite's index; PostgreSQL has them in the row.
message_words: Final = Table(
    "message_words",
    metadata,
    Column("tenant_id", Id, nullable=False),
    Column("user_id", Id, nullable=False),
    Column("conversation_id", Id, nullable=False),
    Column("number", Integer, nullable=False),
    Column("words", Words, nullable=False),
    Column("place", BigInteger),
    PrimaryKeyConstraint("tenant_id", "user_id", "conversation_id", "number", name="pk_message_words"),
    ForeignKeyConstraint(
        ["tenant_id", "user_id", "conversation_id", "number"],
        ["messages.tenant_id", "messages.user_id", "messages.conversation_id", "messages.number"],
        name="fk_message_words_messages",
        ondelete="CASCADE",
    ),
)

# What a repeat of an exchange is told, once it is settled: remembered, and the counters of that moment.
idempotency_keys: Final = Table(
    "idempotency_keys",
    metadata,
    Column("tenant_id", Id, nullable=False),
    Column("scope", PlainText, nullable=False),
    Column("key", PlainText, nullable=False),
    Column("fingerprint", PlainText, nullable=False),
    Column("response_id", Id, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("remembered", PlainText),
    Column("message_number", Integer),
    Column("spent", Money),
    PrimaryKeyConstraint("tenant_id", "scope", "key", name="pk_idempotency_keys"),
    Index("ix_idempotency_keys_created_at", "created_at"),
    Index("ix_idempotency_keys_response_id_tenant_id", "response_id", "tenant_id"),
)

# What the provider is still to forget. next_at: when it is tried again, or when its lease ends.
erasures: Final = Table(
    "erasures",
    metadata,
    Column("tenant_id", Id, nullable=False),
    Column("user_id", Id, nullable=False),
    Column("id", Id, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("provider_id", PlainText, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("tenant_id", "user_id", "id", name="pk_erasures"),
    Index("ix_erasures_next_at", "next_at"),
)

# What resumable replies said, a few events a row, numbered from first to last.
reply_events: Final = Table(
    "reply_events",
    metadata,
    Column("tenant_id", Id, nullable=False),
    Column("user_id", Id, nullable=False),
    Column("response_id", Id, nullable=False),
    Column("first", Integer, nullable=False),
    Column("last", Integer, nullable=False),
    Column("events", Record(list[ReplyStarted | str | tuple[str, Any]]), nullable=False),
    PrimaryKeyConstraint("tenant_id", "user_id", "response_id", "first", name="pk_reply_events"),
)

# How resumable replies ended, until nobody may ask any more; the columns mean what they mean in idempotency_keys.
reply_ends: Final = Table(
    "reply_ends",
    metadata,
    Column("tenant_id", Id, nullable=False),
    Column("user_id", Id, nullable=False),
    Column("response_id", Id, nullable=False),
    Column("number", Integer, nullable=False),
    Column("remembered", PlainText, nullable=False),
    Column("message_number", Integer, nullable=False),
    Column("spent", Money, nullable=False),
    Column("ended_at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("tenant_id", "user_id", "response_id", name="pk_reply_ends"),
    Index("ix_reply_ends_response_id_tenant_id", "response_id", "tenant_id"),
    Index("ix_reply_ends_ended_at", "ended_at"),
)

# What is done from time to time, by one of all processes. due_at: when it is done again.
jobs: Final = Table(
    "jobs",
    metadata,
    Column("name", Id, nullable=False),
    Column("due_at", UtcDateTime, nullable=False),
    PrimaryKeyConstraint("name", name="pk_jobs"),
)

# UNLOGGED on PostgreSQL: after a crash it is empty, and a bucket never seen is full.
# level: in parts of a token, 60 million each; so many fill in a microsecond as tokens do in a minute: whole numbers.
# updated_at: microseconds since 1970 by the database's clock. admitted: whether the last take passed.
rate_buckets: Final = Table(
    "rate_buckets",
    metadata,
    Column("tenant_id", Id, nullable=False),
    Column("user_id", Id, nullable=False),
    Column("level", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("admitted", Boolean, nullable=False),
    PrimaryKeyConstraint("tenant_id", "user_id", name="pk_rate_buckets"),
)

# digest: SHA-256 of the secret, unique across tenants and found without one: whoever brings a secret has not said yet
# whose it is. So this table, which is small, belongs on every shard. user_id: of the role `user` alone, and no part of
# the primary key: the key is the tenant's, not the user's.
api_keys: Final = Table(
    "api_keys",
    metadata,
    Column("tenant_id", Id, nullable=False),
    Column("id", Id, nullable=False),
    Column("role", String(16), nullable=False),
    Column("user_id", Id),
    Column("name", PlainText),
    Column("hint", String(16), nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("revoked_at", UtcDateTime),
    Column("models", Record(tuple[str, ...])),
    PrimaryKeyConstraint("tenant_id", "id", name="pk_api_keys"),
    Index("ix_api_keys_digest", "digest", unique=True),
    Index("ix_api_keys_revoked_at", "revoked_at"),
    Index("ix_api_keys_tenant_id_created_at_id", "tenant_id", "created_at", "id"),
)
