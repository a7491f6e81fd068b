"""Where a response is said: in its conversation, behind another response, or in a new conversation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from msgspec.structs import replace

from textllm_core.chat.answer_messages import MAX_GIVEN
from textllm_core.errors import ConversationBusyError, ConversationNotFoundError, InvalidRequestError
from textllm_core.ids import new_id
from textllm_core.policy import ChatPolicy
from textllm_core.ports.clock import Clock
from textllm_core.ports.conversation_repository import ConversationRepository
from textllm_core.ports.ledger import Ledger
from textllm_core.ports.stored_responses import StoredResponses
from textllm_core.records.conversations import Conversation, ConversationState
from textllm_core.records.messages import Message, reply_message_id
from textllm_core.records.parts import lent
from textllm_core.records.response_turns import ResponseTurn
from textllm_core.records.stored_responses import FollowedResponse
from textllm_core.tenancy import Caller, is_unnamed
from textllm_core.wire import to_json

_MOST_BYTES: Final = 4  # of a character, in UTF-8


class Place(NamedTuple):
    """Where a response is said, and for whom; without a conversation: in a new one, which expires.

    Args:
        state: of the conversation, as it was just now.
        is_named: that one was named; `named_id` as `Answered` in `respond` has it.
        forked: the response that it follows in a new conversation, as a copy of what was said until then.
    """

    user_id: str
    state: ConversationState | None = None
    charged_id: str | None = None
    is_named: bool = False
    named_id: str | None = None
    forked: FollowedResponse | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Finds and makes the conversations of responses."""

    conversations: ConversationRepository
    responses: StoredResponses
    ledger: Ledger
    clock: Clock
    policy: ChatPolicy

    async def find(self, caller: Caller, asked: ResponseTurn, *, forks: bool) -> Place:
        """Where the turn is said.

        Args:
            forks: not behind the response that it follows, where something else may be about to be.
        Raises:
            InvalidRequestError: it names no place, or two.
            ConversationNotFoundError: the place is another user's.
        """
        if asked.conversation_id is not None and asked.previous_response_id is not None:
            raise InvalidRequestError.of("previous_response_id", "cannot be there with conversation; send one of them")
        if asked.previous_response_id is not None:
            followed = await self.followed(caller, asked.previous_response_id)
            known = followed.conversation
            charged_id = self.charged(caller, asked.user_id, known.user_id)
            named_id = known.id if followed.is_of_conversation else None
            if forks or not followed.is_last:
                return Place(known.user_id, None, charged_id, named_id=named_id, forked=followed)
            return Place(known.user_id, known, charged_id, is_named=followed.is_of_conversation, named_id=named_id)
        if asked.conversation_id is not None:
            state = await self.conversations.state(caller.tenant_id, asked.conversation_id, user_id=caller.user_id)
            if state is None:
                raise ConversationNotFoundError
            charged_id = self.charged(caller, asked.user_id, state.user_id)
            return Place(state.user_id, state, charged_id, is_named=True, named_id=state.id)
        return Place(caller.acts_for(asked.user_id) or caller.id)

    async def followed(self, caller: Caller, response_id: str) -> FollowedResponse:
        """The response that another one is to follow.

        Raises:
            InvalidRequestError: the caller has no such response, or not any more.
        """
        followed = await self.responses.followed(caller.tenant_id, response_id)
        if followed is None or caller.user_id not in (None, followed.conversation.user_id):
            raise InvalidRequestError.of(
                "previous_response_id", "is no response that is kept here; send what was said in input instead"
            )
        return followed

    def charged(self, caller: Caller, named: str | None, owner: str) -> str | None:
        """Who is charged in the place of a conversation's user; None: whoever is charged for that one.

        Raises:
            ConversationNotFoundError: the conversation is of another user than that which was named.
        """
        if is_anothers(caller, named, owner):
            raise ConversationNotFoundError
        return None if caller.user_id is not None or named in (None, owner) else caller.acts_for(named)

    async def copy(self, caller: Caller, previous: FollowedResponse) -> str:
        """A new conversation, with what was said up to the response, and with it.

        Raises:
            ConversationBusyError, InvalidRequestError: as `until`; the latter, too, where that is more than a request
                may bring: users with free models have no budget, and what their copies take is bounded by this alone.
        """
        said = await self.until(caller, previous)
        self._check_length(said)
        messages = [replace(message, content=lent(message.content)) for message in said]
        known = previous.conversation
        state = await self.conversations.state(caller.tenant_id, known.id)
        return await self.new_conversation(
            caller, known.user_id, messages, context_tokens=0 if state is None else state.context_tokens
        )

    def _check_length(self, said: Sequence[Message]) -> None:
        left = self.policy.max_input_chars * self.policy.max_history_items * _MOST_BYTES
        for number, message in enumerate(said, 1):
            left -= len(to_json(message.content))
            if left < 0 or number > MAX_GIVEN:
                raise InvalidRequestError.of(
                    "previous_response_id",
                    "is not the last of its chain, and what was said until then is too long to be copied; follow the "
                    "last one, or send what matters of it in input",
                )

    async def until(self, caller: Caller, previous: FollowedResponse) -> Sequence[Message]:
        """What was said up to its reply, and with it.

        Raises:
            ConversationBusyError: it is still running.
            InvalidRequestError: it ended without a reply.
        """
        key = caller.tenant_id, previous.conversation.user_id, previous.conversation.id
        messages = list(await self.conversations.last_messages(*key, limit=None))
        places = [place for place, each in enumerate(messages) if each.id == reply_message_id(previous.id)]
        if places:
            return messages[: places[0] + 1]
        entry = await self.ledger.entry(caller.tenant_id, previous.id)
        if not previous.has_failed and (entry is None or entry.status == "pending"):
            raise ConversationBusyError
        raise InvalidRequestError.of("previous_response_id", "ended without a reply, so that nothing can follow it")

    async def new_conversation(
        self, caller: Caller, user_id: str, messages: Sequence[Message] = (), *, context_tokens: int = 0
    ) -> str:
        """One that is in no list, and expires."""
        now = self.clock.now()
        replies = sum(message.role == "assistant" for message in messages)
        conversation = Conversation.begun(new_id("conv"), user_id, now, replies=replies)
        await self.conversations.add_imported(
            caller.tenant_id,
            conversation,
            messages,
            context_tokens=context_tokens,
            at_most=None,
            expires_at=now + self.policy.retention.responses,
        )
        return conversation.id


def is_anothers(caller: Caller, named: str | None, owner: str) -> bool:
    """Whether it is of neither the caller's user nor of that which the request names; what no user has is anyone's."""
    return caller.user_id not in (None, owner) or (named not in (None, owner) and not is_unnamed(owner))
