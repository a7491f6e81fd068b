"""The use case of summaries: the model is asked about a conversation, and its answer is kept beside it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from textllm_core.chat.exchange import Exchange
from textllm_core.chat.reply_log import last_reply
from textllm_core.conversations import GetConversation
from textllm_core.errors import Charge, ContentRefusedError, InvalidRequestError, ProviderError, TextLLMError
from textllm_core.policy import ChatPolicy
from textllm_core.records.conversations import Conversation
from textllm_core.records.messages import Idempotency, ReplyCompleted, ReplyEvent, ReplyFailed, Turn, TurnOptions
from textllm_core.records.parts import InputText
from textllm_core.tenancy import Caller


@dataclass(frozen=True, slots=True)
class SummarizeConversation:
    """Have the model sum up a conversation. It is charged like a turn, and is none: nothing is said in it by this."""

    exchange: Exchange
    get: GetConversation
    policy: ChatPolicy

    async def __call__(
        self, caller: Caller, conversation_id: str, idempotency: Idempotency | None = None
    ) -> Conversation:
        """The conversation, with its new summary.

        Raises:
            TextLLMError: what `stream` raises, and the error of its `ReplyFailed`.
        """
        await last_reply(self.stream(caller, conversation_id, idempotency))
        return await self.get(caller, conversation_id)

    async def stream(
        self, caller: Caller, conversation_id: str, idempotency: Idempotency | None = None
    ) -> AsyncGenerator[ReplyEvent, None]:
        """As `SendMessage.stream`; the reply's text is the summary, which the settlement keeps in the conversation.

        What the model is sent is what a turn would be sent as its past, or what the provider alone keeps. A model that
        refuses or writes nothing ends in `ReplyFailed`; that is charged, and the earlier summary stays.
        Raises:
            ConversationNotFoundError: not the caller's, deleted, or unknown.
            InvalidRequestError: nothing was answered in it yet, or all that was said is deleted.
            TextLLMError: what `Exchange.run` raises.
        """
        conversation = await self.get(caller, conversation_id)
        if not conversation.message_count:
            raise InvalidRequestError.of("conversation_id", "names a conversation in which nothing was answered yet")
        if await self._is_emptied(caller, conversation):
            raise InvalidRequestError.of("conversation_id", "names a conversation of which all messages are deleted")
        prompt = self.policy.summary_prompt
        events = self.exchange.run(
            caller,
            Turn(
                kind="summary",
                content=(InputText(prompt),),
                token_bound=len(prompt.encode()),
                conversation_id=conversation_id,
                user_id=None,
                options=TurnOptions(),
                idempotency=idempotency,
            ),
        )
        async with aclosing(events):
            async for event in events:
                yield _checked(event)

    async def _is_emptied(self, caller: Caller, conversation: Conversation) -> bool:
        """Our own copy of what was said is the record, and nothing is left of it."""
        repository = self.get.conversations
        if await repository.last_messages(caller.tenant_id, conversation.user_id, conversation.id, limit=1):
            return False
        state = await repository.state(caller.tenant_id, conversation.id, user_id=conversation.user_id)
        return state is not None and state.keeps_messages


def _checked(event: ReplyEvent) -> ReplyEvent:
    """The event; a failure in place of a reply that is no summary."""
    if not isinstance(event, ReplyCompleted):
        return event
    error: TextLLMError
    if event.reply.finish_reason == "refusal":
        error = ContentRefusedError()
    elif event.reply.finish_reason == "cancelled" or not event.reply.text.strip():
        error = ProviderError("The model wrote no summary.")
    else:
        return event
    error.charge = Charge(event.reply.cost, bool(event.reply.estimated))
    return ReplyFailed(event.reply.response_id, error)
