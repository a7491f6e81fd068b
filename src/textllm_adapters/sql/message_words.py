"""The words of messages, kept once somebody looks for some: what nobody searches costs no turn anything.

PostgreSQL keeps them as a `tsvector`; SQLite beside an index of FTS5, whose rows `place` names.
"""

from collections.abc import Sequence
from secrets import randbits
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    and_,
    bindparam,
    delete,
    func,
    literal,
    literal_column,
    select,
    table,
    text,
)
from sqlalchemy.ext.asyncio import AsyncEngine

from textllm_adapters.sql import upserts
from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sql.errors import STORAGE_ERRORS
from textllm_adapters.sql.tables import conversations, message_words, messages
from textllm_adapters.sql.types import PlainText
from textllm_adapters.translation import translated
from textllm_core.errors import ServiceUnavailableError
from textllm_core.records.messages import Message
from textllm_core.rules.searching import words_of

_SIMPLE: Final[ColumnElement[Any]] = literal_column("'simple'::regconfig")  # no language: words are as they are
_INDEX: Final = table("message_index")  # of FTS5, which no `Table` describes
_AT_ONCE: Final = 500  # messages of one transaction
_MOST_ROUNDS: Final = 40  # of one search: some seconds; who has more is asked to come back, and finds it nearer to done
_PAGES_AT_ONCE: Final = 500  # of a merge: 50 ms, between which others write; it takes a second for 30,000 messages
_LEAST_WRITTEN: Final = 2  # rows; as the pages of FTS5 say, a merge that writes fewer has found nothing more to do
_MERGE: Final = text("INSERT INTO message_index (message_index, rank) VALUES ('merge', :pages)")
_WRITTEN: Final = text("SELECT total_changes()")
_OF_MESSAGE: Final = and_(
    message_words.c.tenant_id == messages.c.tenant_id,
    message_words.c.user_id == messages.c.user_id,
    message_words.c.conversation_id == messages.c.conversation_id,
    message_words.c.number == messages.c.number,
)
_KEY: Final = (messages.c.tenant_id, messages.c.user_id, messages.c.conversation_id, messages.c.number)
_CONTENT: Final = (messages.c.id, messages.c.role, messages.c.content, messages.c.created_at)

# What was corrected is read anew by the next search.
FORGET_OF_REPLY: Final = delete(message_words).where(
    message_words.c.tenant_id == bindparam("of_tenant"),
    message_words.c.user_id == bindparam("of_user"),
    message_words.c.conversation_id == bindparam("of_conversation"),
    message_words.c.number.in_(
        select(messages.c.number).where(
            messages.c.tenant_id == bindparam("of_tenant"),
            messages.c.user_id == bindparam("of_user"),
            messages.c.conversation_id == bindparam("of_conversation"),
            messages.c.response_id == bindparam("of_response"),
            messages.c.role == "assistant",
        )
    ),
)


async def catch_up(engine: AsyncEngine, tenant_id: str, user_id: str | None) -> None:
    """Keep the words of all messages that have none yet: of a user, or of a tenant.

    Raises:
        ServiceUnavailableError: there are many; the same call goes on with them.
        StorageUnavailableError: the storage does not answer.
    """
    database = Database(engine)
    missing = (
        select(*_KEY, *_CONTENT)
        .outerjoin(message_words, _OF_MESSAGE)
        .where(messages.c.tenant_id == tenant_id, message_words.c.number.is_(None))
        .limit(_AT_ONCE)
    )
    if user_id is not None:
        missing = missing.where(messages.c.user_id == user_id)
    for _ in range(_MOST_ROUNDS):
        with translated(STORAGE_ERRORS):
            async with database.transaction(tenant_id) as connection:
                rows = [_row(found._mapping) for found in (await connection.execute(missing)).all()]
                if rows:
                    await connection.execute(_keep(database.dialect), rows)
        if len(rows) < _AT_ONCE:
            return
    raise ServiceUnavailableError("The messages are being made ready for a first search; ask again.", retry_after_s=1)


def _row(found: Any) -> dict[str, object]:
    message = Message(**{column.name: found[column.name] for column in _CONTENT})
    words = " ".join(words_of(message.text))
    return {column.name: found[column.name] for column in _KEY} | {"words": words, "place": randbits(62)}


def _keep(dialect: str) -> Any:
    """Adds rows; others may add the same at the same time."""
    kept = upserts.insert(message_words, dialect)
    if dialect == "postgresql":
        words = bindparam("words", type_=PlainText)
        kept = kept.values(words=func.to_tsvector(_SIMPLE, words))
    return kept.on_conflict_do_nothing(index_elements=message_words.primary_key)


async def forget_gone(database: Database) -> None:
    """Take the words that are gone out of SQLite's index, which only marks them until its parts are merged.

    Raises:
        StorageUnavailableError: the storage does not answer; the same call goes on with them.
    """
    pages, written = -_PAGES_AT_ONCE, _LEAST_WRITTEN  # the sign: all parts are to be merged
    while written >= _LEAST_WRITTEN:
        with translated(STORAGE_ERRORS):
            async with database.transaction(EVERYONE) as connection:
                before = (await connection.execute(_WRITTEN)).scalar_one()
                await connection.execute(_MERGE, {"pages": pages})
                after = (await connection.execute(_WRITTEN)).scalar_one()
        written = after - before if pages > 0 else _LEAST_WRITTEN
        pages = _PAGES_AT_ONCE


def is_said(phrases: Sequence[Sequence[str]], dialect: str) -> ColumnElement[bool]:
    """Of a conversation: one of its messages has all of the phrases."""
    if dialect == "postgresql":
        matches = [
            message_words.c.words.bool_op("@@")(func.phraseto_tsquery(_SIMPLE, literal(" ".join(phrase))))
            for phrase in phrases
        ]
    else:
        query = " ".join(f'"{" ".join(phrase)}"' for phrase in phrases)
        index: ColumnElement[Any] = literal_column("message_index")
        found = select(literal_column("rowid", BigInteger)).select_from(_INDEX).where(index.bool_op("MATCH")(query))
        matches = [message_words.c.place.in_(found)]
    return conversations.c.id.in_(
        select(message_words.c.conversation_id).where(
            message_words.c.tenant_id == bindparam("of_tenant"),
            message_words.c.user_id == conversations.c.user_id,
            *matches,
        )
    )
