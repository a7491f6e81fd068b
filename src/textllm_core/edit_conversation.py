"""What was said in a conversation, changed otherwise than by a turn: messages that are added, and parts that go."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from textllm_core.chat.approvals import approvals_in, renamed
from textllm_core.chat.replay import remembered_failure
from textllm_core.chat.tool_use import check_ids
from textllm_core.chat.turn_files import TurnFiles
from textllm_core.errors import (
    ConversationBusyError,
    ConversationNotFoundError,
    ForbiddenError,
    InputTooLongError,
    NotFoundError,
)
from textllm_core.files import AdmitUpload
from textllm_core.ids import new_id
from textllm_core.list_messages import ListedMessage
from textllm_core.ports.clock import Clock
from textllm_core.ports.conversation_repository import ConversationRepository
from textllm_core.records.conversations import ConversationChanges, ConversationState, title_from
from textllm_core.records.edits import ConversationEdit, SaidMessage
from textllm_core.records.hosted import Approval, HostedItem
from textllm_core.records.messages import Message
from textllm_core.records.parts import file_keys
from textllm_core.records.tools import ToolCall, ToolResult
from textllm_core.tenancy import Caller
from textllm_core.wire import to_json

_ANSWERED_WITHIN: Final = 10  # messages: an approval comes right behind what it answers, or a few of these later
_OVERHEAD_TOKENS: Final = 8  # what a provider adds around one message


def tokens_bound(message: Message) -> int:
    """How many tokens a message makes at most, but for its files: a token has at least a byte."""
    of_tools = (part for part in message.content if isinstance(part, ToolCall | ToolResult | HostedItem | Approval))
    return len(message.text_for_model.encode()) + sum(len(to_json(part)) for part in of_tools) + _OVERHEAD_TOKENS


@dataclass(frozen=True, slots=True)
class _Editing:
    conversations: ConversationRepository
    clock: Clock

    async def _state(self, caller: Caller, conversation_id: str) -> ConversationState:
        """
        Raises:
            ConversationNotFoundError: not the caller's, deleted, or unknown.
            ForbiddenError: what was said in it is kept by the provider alone.
        """
        state = await self.conversations.state(caller.tenant_id, conversation_id)
        if state is None or caller.user_id not in (None, state.user_id):
            raise ConversationNotFoundError
        if not state.keeps_messages:
            raise ForbiddenError(
                "The messages of this conversation are kept by the provider alone (the setting store_messages), and "
                "cannot be changed here."
            )
        return state


@dataclass(frozen=True, slots=True)
class AddMessages(_Editing):
    """Add what was said elsewhere to the end of a conversation; nobody is asked, and nothing is charged.

    It counts as a turn does in the rate limit of the conversation's user.

    Args:
        max_input_chars: of one message.
    """

    admit: AdmitUpload
    max_input_chars: int

    async def __call__(
        self,
        caller: Caller,
        conversation_id: str,
        said: Sequence[SaidMessage],
        *,
        file_tokens: int = 0,
        is_counted: bool = False,
    ) -> Sequence[ListedMessage]:
        """The messages, as they are kept.

        Args:
            said: oldest first.
            file_tokens: at most so many are made by their files.
            is_counted: it has been counted in the rate limit already.
        Raises:
            InputTooLongError: one of them is too long.
            InvalidRequestError: two calls, or two results, of one have the same id.
            RateLimitedError: too many requests.
            ConversationNotFoundError: not the caller's, deleted, or unknown.
            ConversationBusyError: an exchange is running in it.
            ForbiddenError: what was said in it is kept by the provider alone.
        """
        now = self.clock.now()
        messages = [Message(id=new_id("msg"), role=it.role, content=it.content, created_at=now) for it in said]
        for message in messages:
            brought = (to_json(part).decode() for part in message.content if isinstance(part, HostedItem | Approval))
            texts = [message.text, *(part.output for part in message.tool_results), *brought]
            if (length := max(map(len, texts))) > self.max_input_chars:
                raise InputTooLongError(length=length, limit=self.max_input_chars)
            check_ids(message.content, field="items")
        state = await self._state(caller, conversation_id)
        if not is_counted:
            await self.admit(caller, state.user_id)
        messages = await self._renamed(caller, state, messages)
        edit = ConversationEdit(
            revision=state.revision,
            added=tuple(messages),
            context_tokens=state.context_tokens + file_tokens + sum(map(tokens_bound, messages)),
            open_calls=messages[-1].open_calls if messages else state.open_calls,
            at=now,
        )
        try:
            await self.conversations.edit(caller.tenant_id, state.user_id, state.id, edit)
        except ConversationBusyError:
            if not is_counted:
                await self.admit.give_back(caller, state.user_id)
            raise
        return [ListedMessage.of(message) for message in messages]

    async def _renamed(self, caller: Caller, state: ConversationState, added: list[Message]) -> list[Message]:
        """The messages, whose approvals name what they answer as it is called here, if need be since earlier."""
        if not any(approvals_in(message.content) for message in added):
            return added
        key = caller.tenant_id, state.user_id, state.id
        before = await self.conversations.last_messages(*key, limit=_ANSWERED_WITHIN)
        return renamed((*before, *added))[-len(added) :]


@dataclass(frozen=True, slots=True)
class RemovePart(_Editing):
    """Remove a message of a conversation, or one of the parts of a message, as a call of a function."""

    files: TurnFiles

    async def __call__(self, caller: Caller, conversation_id: str, message_id: str, places: Sequence[int]) -> None:
        """
        Args:
            places: of the parts that go, counted from 0; a message of which no part is left goes as a whole.
        Raises:
            NotFoundError: it has no such message, or that has no such part.
            ConversationNotFoundError, ConversationBusyError, ForbiddenError: as `AddMessages`.
        """
        state = await self._state(caller, conversation_id)
        key = caller.tenant_id, state.user_id, state.id
        found = await self.conversations.messages_of(*key, [message_id])
        if not found or not all(place < len(found[0].content) for place in places):
            raise NotFoundError("This conversation has no such item.")
        message, gone = found[0], {*places}
        left = tuple(part for place, part in enumerate(message.content) if place not in gone)
        *before, newest = await self.conversations.last_messages(*key, limit=2)
        open_calls = state.open_calls
        if newest.id == message_id:  # then the calls are open of what is the newest from now on
            is_newest = [replace(message, content=left)] if left else before
            open_calls = is_newest[0].open_calls if is_newest else None
        edit = ConversationEdit(
            revision=state.revision,
            removed=None if left else message_id,
            rewritten=replace(message, content=left) if left else None,
            remembered=remembered_failure(None, ConversationNotFoundError()),
            context_tokens=state.context_tokens,
            open_calls=open_calls,
            at=self.clock.now(),
        )
        await self.conversations.edit(*key, edit)
        await self._forget_title(key, message)
        removed = [message.content[place] for place in sorted(gone)]
        await self.files.discard(caller.tenant_id, state.user_id, file_keys(removed))

    async def _forget_title(self, key: tuple[str, str, str], message: Message) -> None:
        """Take back the title, where it is the first words of the message."""
        tenant_id, user_id, conversation_id = key
        words = title_from(message.text)
        if message.role == "user" and words:
            kept = await self.conversations.get(tenant_id, conversation_id, user_id=user_id)
            if kept is not None and kept.title == words:
                await self.conversations.update(*key, ConversationChanges(title=None))
