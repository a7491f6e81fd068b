"""Conversations that were exported, from here or elsewhere, taken in again."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta
from msgspec.structs import replace

from textllm_core.edit_conversation import tokens_bound
from textllm_core.errors import FileTooLargeError, ForbiddenError, InvalidRequestError, NotFoundError
from textllm_core.fields import Id, UserId
from textllm_core.files import AdmitUpload
from textllm_core.ids import checked_user_id
from textllm_core.list_messages import ListedFile, ListedMessage
from textllm_core.ports.clock import Clock
from textllm_core.ports.conversation_repository import ConversationRepository
from textllm_core.records.conversations import Conversation, ConversationChanges
from textllm_core.records.hosted import ITEMS, Approval, HostedItem
from textllm_core.records.messages import Message
from textllm_core.records.parts import (
    ContentPart,
    InputImage,
    InputLink,
    InputText,
    OutputText,
    Refusal,
    ShownRefusal,
    ShownText,
)
from textllm_core.records.tools import ShownCall, ToolCall, ToolResult
from textllm_core.tenancy import Caller
from textllm_core.wire import Record

MAX_IMPORTED_MESSAGES: Final = 50_000  # some hundred MB of records while one conversation is taken in
_CONVERSATION_ID: Final = re.compile(r"conv_[0-9a-f]{24}")
_MESSAGE_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,255}")
_TOOL_ITEMS: Final = ", ".join(sorted(ITEMS))
_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MOST: Final = 2**63 - 1  # of a sum
_MOST_OF_SUMMARY: Final = 65_536  # characters: 16 for each token of a long reply; lists have a hundred of them
_MOST_IDS: Final = 100  # how often one conversation may be taken in and erased again
# Of msgspec's messages, which may quote what was sent: the place alone, and what is wrong there.
_PLACE: Final = re.compile(r" - at `\$\.?([\w.\[\]]{1,100})`\Z")
_MISSING: Final = re.compile(r"\AObject missing required field `(\w{1,64})`")
_UNKNOWN: Final = re.compile(r"\AObject contains unknown field `(\w{1,64})`")


class ExportedConversation(Conversation, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A conversation with all that was said in it; its encoding is a line of an export."""

    messages: Annotated[Sequence[ListedMessage], Meta(description="All that was said in it, the oldest first.")]

    def checked(self) -> "ExportedConversation":
        """The same.

        Raises:
            InvalidRequestError: something in it cannot be.
        """
        if not _CONVERSATION_ID.fullmatch(self.id):
            raise InvalidRequestError.of("id", "must be conv_ and 24 of 0-9 a-f, as an export has it")
        checked_user_id(self.user_id)
        for name in ("message_count", "total_tokens_input", "total_tokens_output", "total_cost"):
            value = Decimal(getattr(self, name))
            if not value.is_finite() or not 0 <= value <= _MOST:  # what is no number compares with nothing
                raise InvalidRequestError.of(name, f"must be a number from 0 to {_MOST}")
        if len(self.summary or "") > _MOST_OF_SUMMARY:
            raise InvalidRequestError.of("summary", f"must have at most {_MOST_OF_SUMMARY} characters")
        ConversationChanges(title=self.title or None, tags=self.tags, metadata=self.metadata).checked()
        metadata = [word for pair in self.metadata.items() for word in pair]
        _check_texts(title=[self.title or ""], summary=[self.summary or ""], tags=self.tags, metadata=metadata)
        _check_moment(self.created_at, "created_at")
        _check_moment(self.updated_at, "updated_at")
        _check_messages(self.messages)
        return self


class ImportedConversation(Record, frozen=True):
    """Where a conversation of an export is now.

    Args:
        id: another one than `imported_from` where that one was taken.
        is_new: False: it was there already, from an earlier import or since it was exported, and stays as it was.
    """

    id: Id
    user_id: UserId
    imported_from: Annotated[str, Meta(description="Its id in the export. `id` is another one where that was taken.")]
    is_new: Annotated[bool, Meta(description="False: it was there already, and is left as it was.")]
    is_deleted: Annotated[bool, Meta(description="It was there already, deleted; it can be restored.")] = False


_EXPORTED: Final = msgspec.json.Decoder(ExportedConversation)


def read_exported(line: bytes, *, max_bytes: int) -> ExportedConversation:
    """One line of an export.

    Raises:
        FileTooLargeError: it has more bytes than that.
        InvalidRequestError: it is no such line; its text says where, and repeats nothing of it.
    """
    if len(line) > max_bytes:
        raise FileTooLargeError.of_export(limit=max_bytes)
    try:
        return _EXPORTED.decode(line)
    except msgspec.ValidationError as error:
        raise _fault(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError("It is not valid JSON in UTF-8.") from error


def _fault(theirs: str) -> InvalidRequestError:
    place = _PLACE.search(theirs)
    within = f"{place[1]}." if place else ""
    if missing := _MISSING.search(theirs):
        return InvalidRequestError.of(within + missing[1], "is missing")
    if unknown := _UNKNOWN.search(theirs):
        return InvalidRequestError.of(within + unknown[1], "is no field of an exported conversation")
    if place is None:
        return InvalidRequestError("It is no exported conversation.")
    return InvalidRequestError.of(place[1], "is not what an export has there")


@dataclass(frozen=True, slots=True)
class ImportConversation:
    """Take in a conversation that was exported: it can be read, found and gone on with as any other.

    Nothing is charged, and what it has cost stays in the books where it was paid: its sums begin with 0. A new one
    counts as a turn does in its user's rate limit.

    Args:
        keeps_messages: our own copy of messages is to be kept.
        max_per_user: how many conversations a user may have.
    """

    conversations: ConversationRepository
    admit: AdmitUpload
    clock: Clock
    keeps_messages: bool
    max_per_user: int

    async def __call__(
        self, caller: Caller, exported: ExportedConversation, *, user_id: str | None = None
    ) -> ImportedConversation:
        """Where it is now: under its own id, or another where that is taken; the same one for each further import.

        Args:
            user_id: whose it is to be; left out, that of the export.
        Raises:
            InvalidRequestError: something in it cannot be.
            NotFoundError: the caller may not act for the user.
            ForbiddenError: the user has as many as a user may have; or no messages are kept here.
            RateLimitedError: too many requests.
        """
        user = _owner(caller, exported.user_id if user_id is None else user_id)
        conversation, messages = _kept(exported.checked(), user, self.clock.now())
        if not self.keeps_messages:
            raise ForbiddenError(
                "Nothing can be imported here: no copies of messages are kept (the setting store_messages)."
            )
        is_admitted = False
        for new_id in _ids(caller.tenant_id, user, exported.id):
            there = await self.conversations.get(caller.tenant_id, new_id, include_deleted=True)
            if there is None:
                if not is_admitted:
                    await self.admit(caller, user)
                    is_admitted = True
                kept = await self.conversations.add_imported(
                    caller.tenant_id,
                    replace(conversation, id=new_id),
                    messages,
                    context_tokens=sum(map(tokens_bound, messages)),
                    at_most=self.max_per_user,
                )
                if kept is not None:
                    return ImportedConversation(kept.id, user, exported.id, is_new=True)
                there = await self.conversations.get(caller.tenant_id, new_id, include_deleted=True)
            if there is not None and there.user_id == user:
                return ImportedConversation(there.id, user, exported.id, is_new=False, is_deleted=there.is_deleted)
        raise ForbiddenError(
            f"This conversation was imported and erased {_MOST_IDS} times; it cannot be imported again."
        )


def _owner(caller: Caller, named: str) -> str:
    if caller.user_id not in (None, checked_user_id(named)):
        raise NotFoundError(
            f"Your key acts for one user alone, and the conversation is another one's; import it for {caller.user_id} "
            "(the query parameter user_id, or --user)."
        )
    return caller.acts_for(named) or named


def _ids(tenant_id: str, user_id: str, first: str) -> Sequence[str]:
    """The ids that a conversation of an export may have here, always the same ones, so that it is found again."""
    others = (
        sha256(f"{tenant_id}\0{user_id}\0{first}\0{number}".encode()).hexdigest()[:24] for number in range(1, _MOST_IDS)
    )
    return [first, *(f"conv_{other}" for other in others)]


def _check_texts(**fields: Sequence[str]) -> None:
    for field, texts in fields.items():
        if any("\0" in text for text in texts):  # which is kept of what was said alone
            raise InvalidRequestError.of(field, "must not contain the character NUL")


def _check_messages(messages: Sequence[ListedMessage]) -> None:
    if len(messages) > MAX_IMPORTED_MESSAGES:
        raise InvalidRequestError.of("messages", f"may be {MAX_IMPORTED_MESSAGES} at most")
    if len({message.id for message in messages}) < len(messages):
        raise InvalidRequestError.of("messages", "must have ids that differ from each other")
    for place, message in enumerate(messages):
        at, is_reply = f"messages[{place}]", message.role == "assistant"
        if not _MESSAGE_ID.fullmatch(message.id):
            raise InvalidRequestError.of(f"{at}.id", "must be 1 to 255 characters of A-Z a-z 0-9 _ . : -")
        kinds = ShownText | ShownRefusal | ShownCall | HostedItem
        instructs = message.role not in ("user", "assistant")
        if any(
            isinstance(part, kinds) != is_reply or (instructs and not isinstance(part, InputText))
            for part in message.content
        ):
            raise InvalidRequestError.of(f"{at}.content", "has a part that a message of this role cannot have")
        if any(isinstance(part, HostedItem) and part.type not in ITEMS for part in message.content):
            raise InvalidRequestError.of(f"{at}.content", f"has a tool's item of a type that is none of {_TOOL_ITEMS}")
        if not is_reply and all(isinstance(part, InputText) and not part.text.strip() for part in message.content):
            raise InvalidRequestError.of(f"{at}.content", "must say something")
        for ids in (
            [part.call_id for part in message.content if isinstance(part, kind)] for kind in (ShownCall, ToolResult)
        ):
            if "" in ids or len(set(ids)) < len(ids):  # no provider would take it, and the conversation could not go on
                raise InvalidRequestError.of(f"{at}.content", "has calls, or results, whose ids are empty or the same")
        _check_moment(message.created_at, f"{at}.created_at")


def _check_moment(at: datetime, field: str) -> None:
    if at.tzinfo is None or at < _EARLIEST:
        raise InvalidRequestError.of(field, "must be a moment since 1970, with its time zone")


def _kept(exported: ExportedConversation, user_id: str, now: datetime) -> tuple[Conversation, Sequence[Message]]:
    """The conversation as it is kept here, and what was said in it.

    What is said to be still to come is now, so that it does not stay the newest for ever.
    """
    messages = [_message(said, now) for said in exported.messages]
    conversation = Conversation(
        id=exported.id,
        user_id=user_id,
        session_id=None,
        created_at=min(exported.created_at, now),
        updated_at=min(exported.updated_at, now),
        message_count=sum(message.role == "assistant" for message in messages),
        total_tokens_input=0,
        total_tokens_output=0,
        total_cost=Decimal(0),
        title=exported.title or None,
        summary=exported.summary,
        tags=exported.tags,
        metadata=exported.metadata,
        is_deleted=False,
    )
    return conversation, messages


def _message(said: ListedMessage, now: datetime) -> Message:
    is_reply = said.role == "assistant"
    return Message(
        id=said.id,
        role=said.role,
        content=_content(said),
        created_at=min(said.created_at, now),
        status=said.status if is_reply else "completed",
        estimated=None if said.estimated is UNSET or not is_reply else said.estimated,
        finish_reason=None if said.finish_reason is UNSET or not is_reply else said.finish_reason,
    )


def _content(said: ListedMessage) -> tuple[ContentPart, ...]:
    """Its parts; an export has no bytes of files, and addresses end, so that a note stands in the place of each."""
    parts: list[ContentPart] = []
    for part in said.content:
        if isinstance(part, InputImage | ListedFile | InputLink):
            name = f"at {part.url}" if isinstance(part, InputLink) else part.name
            before = "\n\n" if parts else ""
            parts.append(InputText(f"{before}[The file {name} was not imported.]\n"))
        else:
            parts.append(_part(part))
    return tuple(parts)


def _part(told: InputText | ShownText | ShownRefusal | ShownCall | ToolResult | HostedItem | Approval) -> ContentPart:
    """The part as it is kept; no export has what was thought before it."""
    match told:
        case ShownText():
            return OutputText(told.text, told.annotations)
        case ShownRefusal():
            return Refusal(told.refusal)
        case ShownCall():
            return ToolCall(call_id=told.call_id, name=told.name, arguments=told.arguments, beside=told.beside)
    return told
