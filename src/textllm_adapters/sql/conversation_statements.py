"""The statements of conversations, built once. Parameters are named as those of the books."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Delete,
    Select,
    Text,
    Update,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal,
    literal_column,
    or_,
    select,
    tuple_,
    type_coerce,
    update,
)

from textllm_adapters.sql.file_tables import files
from textllm_adapters.sql.message_words import is_said
from textllm_adapters.sql.tables import (
    conversations,
    erasures,
    holds,
    idempotency_keys,
    ledger,
    message_words,
    messages,
    reply_ends,
    reply_events,
)
from textllm_adapters.sql.types import PlainText, UtcDateTime
from textllm_core.records.conversations import BegunConversation, ConversationFilter
from textllm_core.rules.searching import phrases_of

_OF_TENANT: Final = conversations.c.tenant_id == bindparam("of_tenant")
_OF_USER: Final = conversations.c.user_id == bindparam("of_user")
_IS_THERE: Final = conversations.c.is_deleted.is_(False)
_ID: Final = conversations.c.id == bindparam("of_conversation")
_IT: Final = and_(_OF_TENANT, _OF_USER, _ID)
_IS_IDLE: Final = conversations.c.turn_id.is_(None)
_STAYS: Final = conversations.c.expires_at.is_(None)
# An exchange that lost it to another one still has its hold until it is settled.
_HAS_HOLDS: Final = exists().where(
    holds.c.tenant_id == conversations.c.tenant_id,
    holds.c.user_id == conversations.c.user_id,
    holds.c.conversation_id == conversations.c.id,
)
_NEWEST_FIRST: Final = (conversations.c.updated_at.desc(), conversations.c.id.desc())

GET: Final = select(conversations).where(_OF_TENANT, _ID)  # of whichever user
GET_SHOWN: Final = GET.where(_IS_THERE)
IS_OF_USER: Final = _OF_USER  # with it, of that one alone
_IS_ANSWERED: Final = conversations.c.message_count > 0
LATEST: Final = (
    select(conversations).where(_OF_TENANT, _OF_USER, _IS_THERE, _STAYS, _IS_ANSWERED).order_by(*_NEWEST_FIRST).limit(1)
)
# PostgreSQL's, until the transaction ends: of whoever counts before adding, one goes after the other.
LOCK_USER: Final = select(
    func.pg_advisory_xact_lock(
        func.hashtextextended(
            bindparam("of_tenant", type_=conversations.c.tenant_id.type),
            func.hashtextextended(bindparam("of_user", type_=conversations.c.user_id.type), 0),
        )
    )
)
COUNT: Final = select(func.count()).select_from(
    select(conversations.c.id).where(_OF_TENANT, _OF_USER, _STAYS).limit(bindparam("at_most")).subquery()
)
STATE: Final = select(
    conversations.c.id,
    conversations.c.user_id,
    conversations.c.transcript_id,
    conversations.c.context_tokens,
    conversations.c.message_count,
    conversations.c.revision,
    conversations.c.keeps_messages,
    conversations.c.open_calls,
    conversations.c.last_message,
).where(_OF_TENANT, _ID, _IS_THERE)

ADD: Final = insert(conversations).returning(conversations)
ADD_MESSAGES: Final = insert(messages)
# Also by one that was erased: the books still speak of it.
IS_TAKEN: Final = select(
    or_(
        exists().where(_OF_TENANT, _ID),
        exists().where(
            ledger.c.tenant_id == bindparam("of_tenant"), ledger.c.conversation_id == bindparam("of_conversation")
        ),
    )
)
UPDATE: Final = update(conversations).where(_IT, _IS_THERE).returning(conversations)
HIDE: Final = (
    update(conversations)
    .where(_IT, _IS_THERE, _IS_IDLE)
    .values(is_deleted=True, deleted_at=bindparam("new_moment"))
    .returning(conversations.c.id)
)
WAS_HIDDEN: Final = conversations.c.deleted_at < bindparam("hidden_before")
HIDDEN: Final = (
    select(conversations.c.tenant_id, conversations.c.user_id, conversations.c.id)
    .where(WAS_HIDDEN)
    .order_by(conversations.c.deleted_at)
    .limit(bindparam("at_most"))
)
_BEGUN: Final = tuple_(conversations.c.created_at, conversations.c.id)
BEGUN: Final = (
    select(*(conversations.c[name] for name in BegunConversation.__struct_fields__))
    .where(conversations.c.created_at < bindparam("of_moment"), _STAYS)
    .order_by(conversations.c.created_at, conversations.c.id)
    .limit(bindparam("at_most"))
)
IS_BEHIND: Final = tuple_(bindparam("of_start", type_=UtcDateTime), bindparam("of_it")) < _BEGUN
IS_SILENT: Final = conversations.c.updated_at <= bindparam("of_moment")
_KEEPS_NOTHING: Final = and_(
    conversations.c.last_message == 0,
    conversations.c.transcript_id.is_(None),
    conversations.c.last_image_url.is_(None),
)
_HAS_EXPIRED: Final = and_(conversations.c.expires_at <= bindparam("of_moment"), _IS_IDLE)
FORGET_EXPIRED: Final = delete(conversations).where(
    tuple_(*conversations.primary_key).in_(
        select(*conversations.primary_key)
        .where(_HAS_EXPIRED, _KEEPS_NOTHING, ~_HAS_HOLDS)
        .order_by(conversations.c.expires_at)
        .limit(bindparam("at_most"))
        .with_for_update(skip_locked=True)
    )
)
EXPIRED: Final = (
    select(conversations.c.tenant_id, conversations.c.user_id, conversations.c.id, conversations.c.updated_at)
    .where(_HAS_EXPIRED, ~_KEEPS_NOTHING)
    .order_by(conversations.c.expires_at)
    .limit(bindparam("at_most"))
)
EXPIRE: Final = (
    update(conversations).where(_IT, ~_STAYS).values(expires_at=bindparam("new_moment")).returning(conversations.c.id)
)
RESTORE: Final = update(conversations).where(_IT).values(is_deleted=False, deleted_at=None).returning(conversations)

# Nothing is said in it until we are done; SQLite has one writer at a time anyway.
LOCK: Final = select(conversations.c.id).where(_IT).with_for_update()
HAS_WORDS: Final = select(
    exists().where(
        message_words.c.tenant_id == bindparam("of_tenant"),
        message_words.c.user_id == bindparam("of_user"),
        message_words.c.conversation_id == bindparam("of_conversation"),
    )
)
CONTENTS_WITH_FILES: Final = (
    select(messages.c.content)
    .where(
        messages.c.tenant_id == bindparam("of_tenant"),
        messages.c.user_id == bindparam("of_user"),
        messages.c.conversation_id == bindparam("of_conversation"),
        or_(
            *(
                type_coerce(messages.c.content, Text).contains(f'"type":"{tag}"')
                for tag in ("input_image", "input_file")
            )
        ),
    )
    .execution_options(yield_per=16)  # each may hold all the text of a document
)
HIDE_FILES: Final = (
    update(files)
    .where(
        files.c.tenant_id == bindparam("of_tenant"),
        files.c.user_id == bindparam("of_user"),
        files.c.key.in_(bindparam("of_keys", expanding=True)),
        files.c.status == "ready",
    )
    .values(status="hidden")
)

# Its messages go with it.
ERASE: Final = (
    delete(conversations)
    .where(
        _IT,
        _IS_IDLE,
        ~_HAS_HOLDS,
    )
    .returning(conversations.c.transcript_id, conversations.c.last_image_url)
)
_ITS_ENTRIES: Final = (
    ledger.c.tenant_id == bindparam("of_tenant"),
    ledger.c.user_id == bindparam("of_user"),
    ledger.c.conversation_id == bindparam("of_conversation"),
)
_ITS_REPLIES: Final = select(ledger.c.response_id).where(*_ITS_ENTRIES)
_ITS_REPLY: Final = _ITS_REPLIES.where(ledger.c.response_id == bindparam("of_response"))


def _forget(replies: Select[tuple[str]]) -> tuple[Update, Sequence[Delete]]:
    """What repeats of these replies are told from now on, and the end of their journals."""
    repeats = (
        update(idempotency_keys)
        .where(
            idempotency_keys.c.tenant_id == bindparam("of_tenant"),
            idempotency_keys.c.response_id.in_(replies),
        )
        .values(remembered=bindparam("new_text"))
    )
    journals = [
        delete(table).where(
            table.c.tenant_id == bindparam("of_tenant"),
            table.c.user_id == bindparam("of_user"),
            table.c.response_id.in_(replies),
        )
        for table in (reply_events, reply_ends)
    ]
    return repeats, journals


ERASE_REPEATS, ERASE_JOURNALS = _forget(_ITS_REPLIES)
ERASE_REPEATS_OF_REPLY, ERASE_JOURNALS_OF_REPLY = _forget(_ITS_REPLY)
ERASE_METADATA: Final = update(ledger).where(*_ITS_ENTRIES).values(metadata=None)
ERASE_REPLIES: Final = insert(erasures).from_select(
    [column.name for column in erasures.c],
    select(
        ledger.c.tenant_id,
        ledger.c.user_id,
        ledger.c.response_id,
        literal("reply"),
        ledger.c.provider_response_id,
        literal_column("0"),
        bindparam("new_moment", type_=erasures.c.next_at.type),
    ).where(*_ITS_ENTRIES, ledger.c.provider_response_id.is_not(None)),
)
FORGET_REPLIES: Final = (  # each is erased once, however many edits follow
    update(ledger).where(*_ITS_ENTRIES, ledger.c.provider_response_id.is_not(None)).values(provider_response_id=None)
)

MESSAGES: Final = select(messages).where(
    messages.c.tenant_id == bindparam("of_tenant"),
    messages.c.user_id == bindparam("of_user"),
    messages.c.conversation_id == bindparam("of_conversation"),
    exists().where(_IT, _IS_THERE),
)
MESSAGES_OF: Final = MESSAGES.where(messages.c.id.in_(bindparam("of_messages", expanding=True))).order_by(
    messages.c.number
)
NEWEST_MESSAGES: Final = MESSAGES.order_by(messages.c.number.desc())
LAST_MESSAGES: Final = NEWEST_MESSAGES.limit(bindparam("at_most"))
NUMBER_OF_MESSAGE: Final = MESSAGES.with_only_columns(messages.c.number).where(messages.c.id == bindparam("of_message"))


def page_of_messages(*, newest_first: bool) -> Select[Any]:
    """At most `at_most` messages behind that of number `of_number`."""
    number, last = messages.c.number, bindparam("of_number", type_=messages.c.number.type)
    behind = MESSAGES.where(number < last if newest_first else number > last)
    return behind.order_by(number.desc() if newest_first else number).limit(bindparam("at_most"))


def listed(wanted: ConversationFilter, dialect: str) -> tuple[Select[Any], Select[Any]]:
    """A page of what is wanted, and how many there are; parameters `of_tenant`, `at_most`, `from_place`."""
    conditions: list[ColumnElement[bool]] = [_OF_TENANT, _STAYS]
    if wanted.user_id is not None:
        conditions.append(conversations.c.user_id == wanted.user_id)
    if not wanted.include_deleted:
        conditions.append(_IS_THERE)
    if wanted.tag is not None:
        tag = literal(wanted.tag, PlainText)
        if dialect == "sqlite":
            each = func.json_each(conversations.c.tags).table_valued("value")
            conditions.append(exists(select(each.c.value).where(each.c.value == tag)))
        else:
            conditions.append(tag == func.any(conversations.c.tags))
    if wanted.q is not None:
        conditions.append(conversations.c.title.icontains(wanted.q, autoescape=True))
    if wanted.search is not None:
        conditions.append(is_said(phrases_of(wanted.search), dialect))
    page = select(conversations).where(*conditions).order_by(*_NEWEST_FIRST)
    return (
        page.limit(bindparam("at_most")).offset(bindparam("from_place")),
        select(func.count()).select_from(conversations).where(*conditions),
    )


# Edits of what was said. What it had before they began, and nothing else is said in it until they are done.
EDITED: Final = (
    select(
        conversations.c.transcript_id, conversations.c.last_message, conversations.c.turn_id, conversations.c.revision
    )
    .where(_IT, _IS_THERE)
    .with_for_update()
)
EDIT: Final = (
    update(conversations)
    .where(_IT)
    .values(
        revision=conversations.c.revision + 1,
        transcript_id=None,
        last_message=conversations.c.last_message + bindparam("new_messages"),
        message_count=conversations.c.message_count + bindparam("new_replies"),
        imported_turns=conversations.c.imported_turns + bindparam("new_replies"),
        context_tokens=bindparam("new_context"),
        open_calls=bindparam("new_calls"),
        updated_at=bindparam("new_moment"),
    )
)
_MESSAGE: Final = and_(
    messages.c.tenant_id == bindparam("of_tenant"),
    messages.c.user_id == bindparam("of_user"),
    messages.c.conversation_id == bindparam("of_conversation"),
    messages.c.id == bindparam("of_message"),
)
REMOVE_MESSAGE: Final = delete(messages).where(_MESSAGE)
REWRITE_MESSAGE: Final = (  # it is what no exchange has said from now on, so that none corrects it
    update(messages).where(_MESSAGE).values(content=bindparam("new_content"), response_id=bindparam("new_response"))
)
# What says something else is read anew by the next search.
FORGET_WORDS: Final = delete(message_words).where(
    message_words.c.tenant_id == bindparam("of_tenant"),
    message_words.c.user_id == bindparam("of_user"),
    message_words.c.conversation_id == bindparam("of_conversation"),
    message_words.c.number.in_(select(messages.c.number).where(_MESSAGE)),
)
