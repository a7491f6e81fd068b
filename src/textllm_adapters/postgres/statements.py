"""What every turn asks of PostgreSQL, a statement a step: one round trip, and one transaction.

A statement chains what `LockingLedger` does step by step: a link acts on what the one before it
returned, and so all lock in the same order: hold, conversation, session, daily usage, entry. A link that came back
empty is NULL where a column allows none; then the whole statement fails, and nothing of it has happened.
"""

from typing import Final

from textllm_adapters.postgres.lanes import Statement

# Whose key it is, before anybody's rows can be shown. Returns NULLs where none is in force.
CALLER: Final = Statement(
    """
    SELECT key.tenant_id, key.role, key.user_id, key.id, key.models
    FROM (SELECT) AS asked LEFT JOIN api_keys AS key ON key.digest = :digest AND key.revoked_at IS NULL
    """,
    order=("digest",),
)

# What the next turn of a conversation needs to know of it, whoever's it is, or of one user. Returns NULLs where there
# is none.
_STATE: Final = """
    SELECT known.id, known.user_id, known.transcript_id, known.context_tokens, known.message_count, known.revision,
        known.keeps_messages, known.last_message, known.open_calls
    FROM (SELECT) AS asked LEFT JOIN conversations AS known
        ON known.tenant_id = :tenant AND known.id = :conversation AND NOT known.is_deleted
"""
STATE: Final = Statement(_STATE, order=("conversation",))
STATE_OF_USER: Final = Statement(f"{_STATE} AND known.user_id = :user", order=("conversation",))

# A response that can be asked for again, whoever's it is, but for those whose conversation is hidden. Returns NULLs
# where there is none. In links: a join of tables that nobody has analysed yet would go through all the tenant has.
_KEPT: Final = """
    WITH kept AS MATERIALIZED (
        SELECT {columns} FROM responses WHERE tenant_id = :tenant AND id = :response
    ),
    known AS MATERIALIZED (
        SELECT id, user_id, transcript_id, context_tokens, message_count, revision, keeps_messages, last_message,
            open_calls
        FROM conversations
        WHERE tenant_id = :tenant AND user_id = (SELECT user_id FROM kept)
            AND id = (SELECT conversation_id FROM kept) AND NOT is_deleted
    )
"""
_IF_KNOWN: Final = "FROM (SELECT) AS asked LEFT JOIN (known CROSS JOIN kept) ON TRUE"
_OF_RESPONSE: Final = (
    "user_id, conversation_id, message_ids, asked, created_at, is_background, is_of_conversation, failure"
)
RESPONSE: Final = Statement(
    f"{_KEPT.format(columns=_OF_RESPONSE)} SELECT kept.* {_IF_KNOWN}",
    order=("response",),
)

# What a response needs to know that follows it: the state of its conversation, whether that was named for it, whether
# it failed, and the message that is the newest there; NULL: it was removed.
_OF_FOLLOWED: Final = "user_id, conversation_id, is_of_conversation, failure IS NOT NULL AS has_failed"
FOLLOWED: Final = Statement(
    f"""
    {_KEPT.format(columns=_OF_FOLLOWED)},
    newest AS (
        SELECT id FROM messages
        WHERE tenant_id = :tenant AND user_id = (SELECT user_id FROM known)
            AND conversation_id = (SELECT id FROM known) AND number = (SELECT last_message FROM known)
    )
    SELECT known.*, kept.is_of_conversation, kept.has_failed, (SELECT id FROM newest) {_IF_KNOWN}
    """,  # noqa: S608 - joined from constants
    order=("response",),
)

# The provider is asked from now on. Returns the exchange; NULL: it was given up.
ASK: Final = Statement(
    """
    WITH hold AS (
        UPDATE holds SET is_asked = TRUE, transcript_id = :transcript, model = :model, price = :price
        WHERE tenant_id = :tenant AND user_id = :user AND response_id = :response
        RETURNING response_id
    )
    SELECT (SELECT response_id FROM hold)
    """,
    order=("user", "response"),
)

# Events of a reply; those of a write whose commit was cut off from us are written again, with what came since.
_SAY: Final = "INSERT INTO reply_events (tenant_id, user_id, response_id, first, last, events)"
_SAY_ANEW: Final = """
    ON CONFLICT (tenant_id, user_id, response_id, first) DO UPDATE SET last = excluded.last, events = excluded.events
"""
# With what is written of a resumable exchange in any case.
_SAID: Final = f"""
    said AS (
        {_SAY} SELECT :tenant, :user, :response, :first::integer, :last::integer, :events FROM hold {_SAY_ANEW}
    )
"""  # noqa: S608 - joined from constants

# The provider took the exchange: its entry is pending from here on; nothing where it is settled already.
_PENDING: Final = """
    WITH hold AS (
        UPDATE holds SET provider_response_id = :provider_response, reported_model = :model
        WHERE tenant_id = :tenant AND user_id = :user AND response_id = :response
        RETURNING conversation_id, session_id, day, kind, amount, created_at, payer_id
    ),
    entry AS (
        INSERT INTO ledger AS entry (
            tenant_id, user_id, response_id, conversation_id, session_id, day, kind, model, provider_response_id,
            status, estimated, answered, input_tokens, output_tokens, cached_tokens, cache_write_tokens,
            reasoning_tokens, held, cost, price_source, created_at, payer_id
        )
        SELECT :tenant, :user, :response, conversation_id, session_id, day, kind, :model, :provider_response,
            'pending', FALSE, FALSE, 0, 0, 0, 0, 0, amount, 0, '', created_at, payer_id
        FROM hold
        ON CONFLICT (tenant_id, user_id, response_id) DO UPDATE SET
            provider_response_id = excluded.provider_response_id, model = excluded.model
    )
"""
_IS_PENDING: Final = "SELECT count(*) FROM hold"
PEND: Final = Statement(f"{_PENDING} {_IS_PENDING}", order=("user", "response"))
PEND_AND_SAY: Final = Statement(f"{_PENDING}, {_SAID} {_IS_PENDING}", order=("user", "response"))

# The end of an exchange: its hold goes, its one entry is written, and every counter moves (`bookkeeping.settled`). The
# next turn's transcript and context are those of the turn that is running; one that came too late leaves them alone.
# Returns the conversation's answered turns and the day's cost; NULL: it was settled or released before.
_SETTLED: Final = """
    WITH hold AS (
        DELETE FROM holds WHERE tenant_id = :tenant AND user_id = :user AND response_id = :response
        RETURNING kind, amount, provider_response_id, idempotency_scope, idempotency_key, is_resumable, created_at,
            payer_id, session_was_active
    ),
    conversation AS (
        UPDATE conversations SET
            message_count = message_count + :answered::integer,
            total_tokens_input = total_tokens_input + :input_tokens::bigint,
            total_tokens_output = total_tokens_output + :output_tokens::bigint,
            total_cost = total_cost + :cost::numeric,
            revision = revision + 1,
            last_message = last_message + :messages::integer,
            updated_at = :at,
            last_image_url = coalesce(:last_image, last_image_url),
            transcript_id = CASE WHEN turn_id = :response THEN :transcript ELSE transcript_id END,
            context_tokens = CASE WHEN turn_id = :response THEN :context_tokens ELSE context_tokens END,
            open_calls = CASE WHEN turn_id = :response THEN :open_calls ELSE open_calls END,
            summary = coalesce(:summary, summary),
            title = CASE WHEN message_count = 0 AND title = :unsaid THEN NULL ELSE title END,
            turn_until = CASE WHEN turn_id = :response THEN NULL ELSE turn_until END,
            turn_id = CASE WHEN turn_id = :response THEN NULL ELSE turn_id END
        WHERE tenant_id = :tenant AND user_id = :user AND id = :conversation AND EXISTS (SELECT FROM hold)
        RETURNING id, message_count, last_message, transcript_id
    ),
    session AS (
        UPDATE sessions SET
            reserved = reserved - (SELECT amount FROM hold),
            total_cost = total_cost + :cost,
            total_tokens = total_tokens + :input_tokens + :output_tokens,
            last_activity = :at,
            is_reopened = is_reopened AND NOT (SELECT session_was_active FROM hold)
        WHERE tenant_id = :tenant AND user_id = :charged AND day = :day AND EXISTS (SELECT FROM conversation)
        RETURNING id, total_cost
    ),
    usage AS (
        INSERT INTO daily_usage AS usage (
            tenant_id, user_id, day, model, messages, input_tokens, output_tokens, cost, estimated_cost
        )
        SELECT :tenant, :charged, :day, :model_of_day, :answered, :input_tokens, :output_tokens, :cost,
            CASE WHEN :estimated THEN :cost ELSE 0 END
        FROM session
        ON CONFLICT (tenant_id, user_id, day, model) DO UPDATE SET
            messages = usage.messages + excluded.messages,
            input_tokens = usage.input_tokens + excluded.input_tokens,
            output_tokens = usage.output_tokens + excluded.output_tokens,
            cost = usage.cost + excluded.cost,
            estimated_cost = usage.estimated_cost + excluded.estimated_cost
    ),
    entry AS (
        INSERT INTO ledger AS entry (
            tenant_id, user_id, response_id, conversation_id, session_id, day, kind, model, provider_response_id,
            status, estimated, answered, input_tokens, output_tokens, cached_tokens, cache_write_tokens,
            reasoning_tokens, held, cost, price_source, rates, service_tier, metadata, created_at, settled_at,
            time_to_first_token_ms, payer_id
        )
        SELECT :tenant, :user, :response, (SELECT id FROM conversation), (SELECT id FROM session), :day, hold.kind,
            :model, coalesce(hold.provider_response_id, :provider_response), :status, :estimated, :answered > 0,
            :input_tokens, :output_tokens, :cached_tokens, :cache_write_tokens, :reasoning_tokens, hold.amount, :cost,
            :price_source, :rates, :service_tier, :metadata, hold.created_at, :at, :time_to_first_token_ms,
            hold.payer_id
        FROM hold
        ON CONFLICT (tenant_id, user_id, response_id) DO UPDATE SET
            model = excluded.model, provider_response_id = excluded.provider_response_id, status = excluded.status,
            estimated = excluded.estimated, answered = excluded.answered, input_tokens = excluded.input_tokens,
            output_tokens = excluded.output_tokens, cached_tokens = excluded.cached_tokens,
            cache_write_tokens = excluded.cache_write_tokens, reasoning_tokens = excluded.reasoning_tokens,
            cost = excluded.cost, price_source = excluded.price_source, rates = excluded.rates,
            service_tier = excluded.service_tier, metadata = excluded.metadata, settled_at = excluded.settled_at,
            time_to_first_token_ms = excluded.time_to_first_token_ms
    ),
    message AS (
        INSERT INTO messages (
            tenant_id, user_id, conversation_id, number, id, response_id, role, status, content, created_at, estimated,
            finish_reason
        )
        SELECT :tenant, :user, :conversation, conversation.last_message - :messages + said.number, said.id, :response,
            said.role, said.status, said.content, said.created_at, said.estimated, said.finish_reason
        FROM conversation, unnest(
            :message_ids::text[], :roles::text[], :statuses::text[], :contents::text[], :said_at::timestamptz[],
            :are_estimated::boolean[], :finish_reasons::text[]
        ) WITH ORDINALITY AS said (id, role, status, content, created_at, estimated, finish_reason, number)
    ),
    ended AS (
        INSERT INTO reply_ends (
            tenant_id, user_id, response_id, number, remembered, message_number, spent, ended_at
        )
        SELECT :tenant, :user, :response, :end_number, :remembered, (SELECT message_count FROM conversation),
            (SELECT total_cost FROM session), :at
        FROM hold WHERE hold.is_resumable
    ),
    remembered AS (
        UPDATE idempotency_keys SET
            remembered = :remembered,
            message_number = (SELECT message_count FROM conversation),
            spent = (SELECT total_cost FROM session)
        WHERE tenant_id = :tenant
            AND scope = (SELECT idempotency_scope FROM hold) AND key = (SELECT idempotency_key FROM hold)
    ),
    dropped AS (
        INSERT INTO erasures (tenant_id, user_id, id, kind, provider_id, attempts, next_at)
        SELECT :tenant, :user, dropped.id, 'transcript', dropped.provider_id, 0, :at
        FROM conversation, unnest(:erasures::text[], :transcripts::text[]) AS dropped (id, provider_id)
        WHERE dropped.provider_id IS DISTINCT FROM conversation.transcript_id
    ),
    estimate AS (
        INSERT INTO estimates (tenant_id, user_id, response_id, hold, next_at, until)
        SELECT :tenant, :user, :response, :hold, :at, :open_until FROM hold WHERE :open_until::timestamptz IS NOT NULL
    )
"""
_COUNTERS: Final = "SELECT (SELECT message_count FROM conversation), (SELECT total_cost FROM session)"
SETTLE: Final = Statement(f"{_SETTLED} {_COUNTERS}", order=("charged", "day"))
SETTLE_AND_SAY: Final = Statement(f"{_SETTLED}, {_SAID} {_COUNTERS}", order=("charged", "day"))

# The end of one of which nobody was told: its response goes, unless that was told before it began.
_FORGOTTEN: Final = """
    forgotten AS (
        DELETE FROM responses
        WHERE tenant_id = :tenant AND user_id = :user AND id = :response AND NOT is_background
            AND EXISTS (SELECT FROM hold)
    )
"""
SETTLE_UNTOLD: Final = Statement(f"{_SETTLED}, {_FORGOTTEN} {_COUNTERS}", order=("charged", "day"))

# Leases that go on. A hold that somebody has locked is just being settled or pended: it is not waited for, so that no
# batch waits in a circle with this statement, which locks the rows of many users. Returns how many there were.
RENEW: Final = Statement(
    """
    WITH alive AS (
        SELECT hold.tenant_id, hold.user_id, hold.response_id, named.thought, named.counted
        FROM unnest(:tenants::text[], :users::text[], :responses::text[], :thoughts::bigint[], :counts::text[])
            AS named (tenant_id, user_id, response_id, thought, counted)
        JOIN holds AS hold USING (tenant_id, user_id, response_id)
        FOR UPDATE OF hold SKIP LOCKED
    ),
    hold AS (
        UPDATE holds AS hold SET lease_until = :lease_until, thought = alive.thought, counted = alive.counted
        FROM alive
        WHERE hold.tenant_id = alive.tenant_id AND hold.user_id = alive.user_id
            AND hold.response_id = alive.response_id
        RETURNING hold.tenant_id, hold.user_id, hold.response_id, hold.conversation_id
    ),
    conversation AS (
        UPDATE conversations AS conversation SET turn_until = :lease_until
        FROM hold
        WHERE conversation.tenant_id = hold.tenant_id AND conversation.user_id = hold.user_id
            AND conversation.id = hold.conversation_id AND conversation.turn_id = hold.response_id
    )
    SELECT count(*) FROM hold
    """,
    order=("lease_until",),
)

# Events of replies that are running. Returns how many rows they are.
WRITE_EVENTS: Final = Statement(
    f"""
    WITH said AS (
        {_SAY}
        SELECT * FROM unnest(
            :tenants::text[], :users::text[], :responses::text[], :firsts::integer[], :lasts::integer[], :events::text[]
        )
        {_SAY_ANEW}
        RETURNING first
    )
    SELECT count(*) FROM said
    """,  # noqa: S608 - joined from constants
    order=("responses",),
)
