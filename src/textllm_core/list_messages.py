"""What was said in a conversation, page by page."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal

from msgspec import UNSET, Meta, UnsetType

from textllm_core.errors import ConversationLostError, ConversationNotFoundError, InvalidRequestError, NotFoundError
from textllm_core.fields import (
    CreatedAt,
    Estimated,
    FileKey,
    FileName,
    FileWarnings,
    HasMore,
    Id,
    Listed,
    MediaType,
    Pages,
    SizeInBytes,
    Text,
)
from textllm_core.ports.conversation_repository import ConversationRepository
from textllm_core.ports.transcript import Transcript
from textllm_core.records.conversations import ConversationState
from textllm_core.records.hosted import Approval, HostedItem
from textllm_core.records.messages import Message, MessageEnd, MessageRole
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
from textllm_core.records.tools import ShownCall, ToolCall, ToolResult
from textllm_core.tenancy import Caller
from textllm_core.wire import Record

Order = Literal["asc", "desc"]
MAX_MESSAGES: Final = 1000


class ListedFile(Record, frozen=True, kw_only=True, tag="input_file"):
    """A document as the outside sees it: an `InputFile` without the text that was read out of it for the model."""

    key: FileKey
    media_type: MediaType
    size: SizeInBytes
    name: FileName
    pages: Pages = UNSET
    warnings: FileWarnings = UNSET

    @classmethod
    def of(cls, part: InputFile) -> "ListedFile":
        return cls(
            key=part.key,
            media_type=part.media_type,
            size=part.size,
            name=part.name,
            pages=UNSET if part.pages is None else part.pages,
            warnings=part.warnings or UNSET,
        )


ListedPart = (
    InputText
    | InputImage
    | ListedFile
    | InputLink
    | ShownText
    | ShownRefusal
    | ShownCall
    | ToolResult
    | HostedItem
    | Approval
)


def _listed(part: ContentPart) -> ListedPart:
    match part:
        case InputFile():
            return ListedFile.of(part)
        case OutputText() | Refusal() | ToolCall():
            return part.shown
    return part


class ListedMessage(Record, frozen=True, kw_only=True):
    """A message as the outside sees it: `text` is all that was said in it, `content` its parts, files too.

    Args:
        estimated: of a reply of which a copy is kept here: what it cost is an estimate.
        finish_reason: of such a reply: why it ended where it does; `error`: it broke off.
    """

    id: Id
    role: Annotated[MessageRole, Meta(description="Who says it.")]
    text: Text
    content: Annotated[
        Sequence[ListedPart],
        Meta(
            description="Its parts: texts, the files that came with it, calls of functions, their results, what "
            "tools on the provider's own servers did, and what was decided of calls of MCP servers."
        ),
    ]
    created_at: CreatedAt
    status: Annotated[
        Literal["completed", "incomplete"], Meta(description="`incomplete`: of a reply that was cut short.")
    ]
    estimated: Estimated | UnsetType = UNSET
    finish_reason: Annotated[
        MessageEnd | UnsetType,
        Meta(
            description="Why a reply ended where it does, in the words of replies; `error`: it broke off, and `text` "
            "is what was read of it."
        ),
    ] = UNSET

    @classmethod
    def of(cls, message: Message) -> "ListedMessage":
        return cls(
            id=message.id,
            role=message.role,
            text=message.text,
            content=[_listed(part) for part in message.content],
            created_at=message.created_at,
            status=message.status,
            estimated=UNSET if message.estimated is None else message.estimated,
            finish_reason=message.finish_reason or UNSET,
        )


class MessagePage(Record, frozen=True):
    """Some messages of a conversation, in the order that was asked for."""

    data: Listed[ListedMessage]
    has_more: HasMore


@dataclass(frozen=True, slots=True)
class ListMessages:
    """What was said in a conversation.

    Args:
        transcript: where the messages of conversations are read of which no copy is kept here.
    """

    conversations: ConversationRepository
    transcript: Transcript | None

    async def __call__(
        self,
        caller: Caller,
        conversation_id: str,
        *,
        limit: int = 100,
        order: Order = "asc",
        after: str | None = None,
    ) -> MessagePage:
        """At most `limit` messages: the oldest first with `asc`, the newest with `desc`.

        Args:
            after: the id of the last message of the page before.
        Raises:
            InvalidRequestError: `limit` is not 1 to 1000, or no message of the conversation is called `after`.
            ConversationNotFoundError: not the caller's, deleted, or unknown.
            ConversationLostError, ModelError: the provider keeps the only copy, and it is gone or out of reach.
        """
        if not 1 <= limit <= MAX_MESSAGES:
            raise InvalidRequestError.of("limit", f"must be a whole number from 1 to {MAX_MESSAGES}")
        conversation = await self._state(caller, conversation_id)
        newest_first = order == "desc"
        if conversation.keeps_messages or not conversation.message_count:
            found = await self.conversations.messages(
                caller.tenant_id,
                conversation.user_id,
                conversation.id,
                newest_first=newest_first,
                after=after,
                limit=limit + 1,
            )
        else:
            found = _part(await self._from_provider(conversation), newest_first=newest_first, after=after)
        if found is None:
            raise InvalidRequestError.of("after", "must be the id of a message of this conversation")
        return MessagePage([ListedMessage.of(message) for message in found[:limit]], len(found) > limit)

    async def one(self, caller: Caller, conversation_id: str, message_id: str) -> ListedMessage:
        """One message.

        Raises:
            NotFoundError: the conversation has none of this id.
            ConversationNotFoundError, ConversationLostError, ModelError: as a call does.
        """
        conversation = await self._state(caller, conversation_id)
        key = caller.tenant_id, conversation.user_id, conversation.id
        if conversation.keeps_messages or not conversation.message_count:
            found = await self.conversations.messages_of(*key, [message_id])
        else:
            found = [each for each in await self._from_provider(conversation) if each.id == message_id]
        if not found:
            raise NotFoundError("This conversation has no such item.")
        return ListedMessage.of(found[0])

    async def every(self, caller: Caller, conversation_id: str) -> AsyncGenerator[ListedMessage, None]:
        """All messages, oldest first; raises as a call does."""
        after = None
        while True:
            page = await self(caller, conversation_id, limit=MAX_MESSAGES, after=after)
            for message in page.data:
                yield message
            if not page.has_more:
                return
            after = page.data[-1].id

    async def _state(self, caller: Caller, conversation_id: str) -> ConversationState:
        conversation = await self.conversations.state(caller.tenant_id, conversation_id, user_id=caller.user_id)
        if conversation is None:
            raise ConversationNotFoundError
        return conversation

    async def _from_provider(self, conversation: ConversationState) -> Sequence[Message]:
        if conversation.transcript_id is None:
            raise ConversationLostError
        if self.transcript is None:
            raise ConversationLostError.of_settings(conversation.transcript_id)
        return await self.transcript.messages(conversation.transcript_id)


def _part(messages: Sequence[Message], *, newest_first: bool, after: str | None) -> Sequence[Message] | None:
    ordered = list(reversed(messages)) if newest_first else messages
    if after is None:
        return ordered
    ids = [message.id for message in ordered]
    return ordered[ids.index(after) + 1 :] if after in ids else None
