"""The use case of plain text: a text turn becomes a user's message."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from textllm_core.chat.exchange import Exchange, last_reply
from textllm_core.policy import ChatPolicy
from textllm_core.records.messages import InputText, Reply, ReplyEvent, TextTurn, Turn
from textllm_core.tenancy import Caller


@dataclass(frozen=True, slots=True)
class SendMessage:
    """Answer one text turn, neither blank nor longer than `policy.max_input_chars` characters."""

    exchange: Exchange
    policy: ChatPolicy

    async def __call__(self, caller: Caller, turn: TextTurn) -> Reply:
        """The whole reply, settled.

        Raises:
            TextLLMError: what `stream` raises, and the error of its `ReplyFailed`.
        """
        return await last_reply(self.stream(caller, turn))

    def stream(self, caller: Caller, turn: TextTurn) -> AsyncGenerator[ReplyEvent, None]:
        """`ReplyStarted`, any number of `TextDelta`, then `ReplyCompleted` or `ReplyFailed`.

        Who stops reading does not stop the reply: it is read to its end, kept in the conversation, and charged.
        Raises:
            InvalidRequestError, InputTooLongError: at the call.
            TextLLMError: what `Exchange.run` raises, at the first event.
        """
        text = turn.text
        self.policy.check_message(text)
        return self.exchange.run(
            caller,
            Turn(
                kind="text",
                content=(InputText(text),),
                token_bound=len(text.encode()),
                conversation_id=turn.conversation_id,
                user_id=turn.user_id,
                options=turn.options,
                idempotency=turn.idempotency,
                is_resumable=turn.is_resumable,
            ),
        )
