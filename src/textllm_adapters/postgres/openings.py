"""What opens an exchange in PostgreSQL, in a statement: a token of the rate limit is taken, and the turn reserved for.

As every statement of a turn, each is a chain of links (`statements`).
"""

import itertools
from typing import Final, NamedTuple

from textllm_adapters.postgres.lanes import Statement
from textllm_core.rules.buckets import FULL_AFTER_US, TOKEN

# The time is read before the lock on the row is waited for, so the second of two takes may have the earlier one: then
# no time has passed for it. Where it is earlier by more than anybody waits, the clock was set back: no time has passed
# then either, and from there on it goes by the clock as it is now.
# A refusal writes what has flowed in, too: the level it returns tells how long to wait.
NOW_US: Final = "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)"
_SET_BACK_US: Final = 250_000  # as long as a lane waits for a lock
_ELAPSED_US: Final = f"least({FULL_AFTER_US}, greatest(0, excluded.updated_at - bucket.updated_at))"
_REFILLED: Final = f"least(:per_minute * {TOKEN}, bucket.level + :per_minute * {_ELAPSED_US})"

# `buckets`: what has flowed in since is added, and a token taken where there is one. Returns admitted, level.
_TAKEN: Final = f"""
    INSERT INTO rate_buckets AS bucket (tenant_id, user_id, level, updated_at, admitted)
    VALUES (:tenant, :charged, (:per_minute::bigint - 1) * {TOKEN}, {NOW_US}, TRUE)
    ON CONFLICT (tenant_id, user_id) DO UPDATE SET
        level = {_REFILLED} - CASE WHEN {_REFILLED} >= {TOKEN} THEN {TOKEN} ELSE 0 END,
        updated_at = CASE
            WHEN excluded.updated_at < bucket.updated_at - {_SET_BACK_US} THEN excluded.updated_at
            ELSE greatest(excluded.updated_at, bucket.updated_at)
        END,
        admitted = {_REFILLED} >= {TOKEN}
    RETURNING admitted, level
"""  # noqa: S608 - joined from constants
TAKE_TOKEN: Final = Statement(_TAKEN, order=("charged",))

# `buckets.given_back`; what has flowed in meanwhile is added by the next take. Returns the level; NULL: no bucket.
GIVE_TOKEN_BACK: Final = Statement(
    f"""
    WITH given AS (
        UPDATE rate_buckets SET level = least(:per_minute::bigint * {TOKEN}, level + {TOKEN})
        WHERE tenant_id = :tenant AND user_id = :charged
        RETURNING level
    )
    SELECT (SELECT level FROM given)
    """,  # noqa: S608 - joined from constants
    order=("charged",),
)

# What was there before anything is written, in links of their own: Citus carries out one after the other, and asks in
# each for rows of one user, or for a key. The session; none: it is made. Who has the turn's key, if it has one: two
# that come in the same instant find nobody, and then one of them finds it taken where it takes it, and fails.
_BEFORE: Final = """
    before AS MATERIALIZED (
        SELECT id, last_activity, is_active, total_cost + reserved AS promised FROM sessions
        WHERE tenant_id = :tenant AND user_id = :charged AND day = :day
    ),
    repeated AS MATERIALIZED (
        SELECT response_id FROM idempotency_keys WHERE tenant_id = :tenant AND scope = :scope AND key = :key
    ),
"""
_IS_NO_REPEAT: Final = "NOT EXISTS (SELECT FROM repeated)"
_LAST_ACTIVITY: Final = "(SELECT last_activity FROM before)"
_HOLD: Final = """
    INSERT INTO holds (
        tenant_id, user_id, response_id, conversation_id, session_id, day, kind, model, price, input_estimate, amount,
        made_conversation, created_at, lease_until, is_resumable, cancel_asked, message, said_before, is_asked,
        payer_id, session_last_activity, metadata, idempotency_scope, idempotency_key
    )
"""
_KEY: Final = """
    INSERT INTO idempotency_keys (tenant_id, scope, key, fingerprint, response_id, created_at)
    SELECT :tenant, :scope, :key, :fingerprint, :response, :at FROM hold WHERE :key::text IS NOT NULL
"""
# What is kept of a response that can be asked for again.
_RESPONSE: Final = """,
    response AS (
        INSERT INTO responses (
            tenant_id, user_id, id, conversation_id, message_ids, asked, created_at, is_background, is_of_conversation
        )
        SELECT :tenant, :user, :response, :conversation, :message_ids, :asked, :at, :is_background, :is_of_conversation
        FROM hold
    )
"""
# Where the turn is counted as well: it goes on only where there was a token. Returns admitted, level, and the session.
_COUNTED: Final = f"WITH bucket AS ({_TAKEN}),", "(SELECT admitted FROM bucket) AND", "admitted, level,", "FROM bucket"
_UNCOUNTED: Final = "WITH", "", "", ""


def _open(counting: tuple[str, str, str, str], response: str) -> Statement:
    """A new conversation, in a session that is opened for it, or is open and has room.

    Room is for all that the turn may cost (`budgets.grant`); whether a session without anything in it has so much is
    seen before. Returns the session; NULL: neither is so, or it is a repeat.
    """
    begins, is_counted, count, of_count = counting
    return Statement(
        f"""
        {begins} {_BEFORE}
        session AS (
            INSERT INTO sessions AS session (
                tenant_id, user_id, day, id, created_at, last_activity, total_tokens, total_cost, reserved,
                conversation_count, is_active
            )
            SELECT :tenant::varchar, :charged, :day, :session, :at, :at, 0, 0, :amount, 1, TRUE
            WHERE {is_counted} {_IS_NO_REPEAT}
            ON CONFLICT (tenant_id, user_id, day) DO UPDATE SET
                last_activity = excluded.last_activity,
                reserved = session.reserved + excluded.reserved,
                conversation_count = session.conversation_count + 1
            WHERE session.is_active AND session.total_cost + session.reserved + excluded.reserved <= :limit
            RETURNING id
        ),
        conversation AS (
            INSERT INTO conversations (
                tenant_id, user_id, id, session_id, created_at, updated_at, message_count, total_tokens_input,
                total_tokens_output, total_cost, title, tags, metadata, is_deleted, context_tokens, keeps_messages,
                revision, last_message, turn_id, turn_until, expires_at
            )
            SELECT :tenant, :user, :conversation, session.id, :at, :at, 0, 0, 0, 0, :title, '{{}}', '{{}}', FALSE, 0,
                :keeps_messages, 0, 0, :response, :lease_until, :expires_at
            FROM session
            ON CONFLICT DO NOTHING
            RETURNING id
        ),
        hold AS (
            {_HOLD}
            SELECT :tenant, :user, :response, (SELECT id FROM conversation), session.id, :day, :kind, :model, :price,
                :input_estimate, :amount, TRUE, :at, :lease_until, :is_resumable, FALSE, :message, :said_before,
                :is_asked, :payer, {_LAST_ACTIVITY}, :metadata, :scope, :key
            FROM session
            RETURNING session_id
        ),
        key AS ({_KEY}){response}
        SELECT {count} (SELECT session_id FROM hold) {of_count}
        """,  # noqa: S608 - joined from constants
        order=("charged", "day"),
    )


def _continue(counting: tuple[str, str, str, str], response: str) -> Statement:
    """A conversation that is as it was read, free, has its title, and has had a turn today, in whose session is room.

    So a release has nothing to undo in it. Returns the session; NULL: one of these is not so, or it is a repeat.
    """
    begins, is_counted, count, of_count = counting
    return Statement(
        f"""
        {begins} {_BEFORE}
        conversation AS (
            UPDATE conversations AS conversation SET turn_id = :response, turn_until = :lease_until
            WHERE {is_counted} {_IS_NO_REPEAT}
                AND tenant_id = :tenant AND user_id = :user AND id = :conversation
                AND NOT is_deleted AND revision = :revision AND turn_id IS NULL
                AND (title IS NOT NULL OR message_count > 0)
                AND EXISTS (
                    SELECT FROM before
                    WHERE before.id = conversation.session_id AND before.is_active
                        AND before.promised + :amount <= :limit
                )
            RETURNING id
        ),
        session AS (
            UPDATE sessions SET last_activity = :at, reserved = reserved + :amount
            WHERE tenant_id = :tenant AND user_id = :charged AND day = :day
                AND total_cost + reserved + :amount <= :limit AND is_active AND EXISTS (SELECT FROM conversation)
            RETURNING id
        ),
        hold AS (
            {_HOLD}
            SELECT :tenant, :user, :response, conversation.id, (SELECT id FROM session), :day, :kind, :model, :price,
                :input_estimate, :amount, FALSE, :at, :lease_until, :is_resumable, FALSE, :message, :said_before,
                :is_asked, :payer, {_LAST_ACTIVITY}, :metadata, :scope, :key
            FROM conversation
            RETURNING session_id
        ),
        key AS ({_KEY}){response}
        SELECT {count} (SELECT session_id FROM hold) {of_count}
        """,  # noqa: S608 - joined from constants
        order=("charged", "day"),
    )


class Opening(NamedTuple):
    """How a turn is opened."""

    is_counted: bool
    begins: bool
    keeps_response: bool


def _opening(how: Opening) -> Statement:
    opened = _open if how.begins else _continue
    return opened(_COUNTED if how.is_counted else _UNCOUNTED, _RESPONSE if how.keeps_response else "")


OPENINGS: Final = {(how := Opening(*each)): _opening(how) for each in itertools.product((True, False), repeat=3)}
