"""The use case of plain text: a text turn becomes a user's message."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import overload

from textllm_core.chat.calls import call_of
from textllm_core.chat.exchange import Exchange
from textllm_core.chat.tool_use import check_results, results_bound
from textllm_core.policy import ChatPolicy
from textllm_core.records.messages import Reply, ReplyEvent, ReplyStarted, TextTurn, Turn
from textllm_core.records.parts import InputText
from textllm_core.tenancy import Caller


@dataclass(frozen=True, slots=True)
class SendMessage:
    """Answer one text turn, neither blank, unless it has results of calls, nor longer than `policy.max_input_chars`."""

    exchange: Exchange
    policy: ChatPolicy

    @overload
    async def __call__(self, turn: TextTurn | str, /) -> Reply: ...
    @overload
    async def __call__(self, caller: Caller, turn: TextTurn | str) -> Reply: ...
    async def __call__(self, caller: Caller | TextTurn | str, turn: TextTurn | str | None = None) -> Reply:
        """The whole reply, settled. `send_message("Hello")` is the default caller's turn of that text.

        Raises:
            TypeError: it was given something else.
            TextLLMError: what `stream` raises, and the error of its `ReplyFailed`.
        """
        return (await self.answer(*call_of(TextTurn, caller, turn)))[1]

    async def answer(self, caller: Caller, turn: TextTurn) -> tuple[ReplyStarted, Reply]:
        """The first event, which says what is left of the rate limit, and the whole reply, settled.

        Raises:
            TextLLMError: as `__call__`.
        """
        started, end = await self.exchange.answer(caller, self._checked(turn))
        return started, end.reply

    @overload
    def stream(self, turn: TextTurn | str, /) -> AsyncGenerator[ReplyEvent, None]: ...
    @overload
    def stream(self, caller: Caller, turn: TextTurn | str) -> AsyncGenerator[ReplyEvent, None]: ...
    def stream(
        self, caller: Caller | TextTurn | str, turn: TextTurn | str | None = None
    ) -> AsyncGenerator[ReplyEvent, None]:
        """`ReplyStarted`, any number of `TextDelta`, then `ReplyCompleted` or `ReplyFailed`.

        Who stops reading does not stop the reply: it is read to its end, kept in the conversation, and charged.
        Raises:
            TypeError, InvalidRequestError, InputTooLongError: at the call.
            TextLLMError: what `Exchange.run` raises, at the first event.
        """
        who, what = call_of(TextTurn, caller, turn)
        return self.exchange.run(who, self._checked(what))

    def batches(self, caller: Caller, turn: TextTurn) -> AsyncGenerator[list[ReplyEvent], None]:
        """As `stream`, as many events at a time as there are: for who sends them on, and is charged by the piece."""
        return self.exchange.batches(caller, self._checked(turn))

    def _checked(self, turn: TextTurn) -> Turn:
        text, results = turn.text, tuple(turn.tool_results)
        check_results(results)
        if text or not results:
            self.policy.check_message(text)
        return Turn(
            kind="text",
            content=(*results, InputText(text)) if text else results,
            token_bound=len(text.encode()) + results_bound(results),
            conversation_id=turn.conversation_id,
            user_id=turn.user_id,
            options=turn.options,
            idempotency=turn.idempotency,
            is_resumable=turn.is_resumable,
        )
