"""The use case of a conversation that its caller keeps: the messages become a turn, of which nothing stays here."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from msgspec.structs import replace

from textllm_core.chat.approvals import check_approvals, open_requests_in, with_live_tools
from textllm_core.chat.exchange import Exchange
from textllm_core.chat.tool_use import check_ids
from textllm_core.errors import InputTooLongError, InvalidRequestError
from textllm_core.policy import ChatPolicy
from textllm_core.records.hosted import Approval, HostedItem
from textllm_core.records.messages import Message, Reply, ReplyCompleted, ReplyEvent, ReplyStarted, Turn
from textllm_core.records.messages_turn import MessagesTurn
from textllm_core.records.parts import InputFile, InputImage, InputLink, InputText
from textllm_core.records.tools import ToolCall, ToolResult
from textllm_core.tenancy import Caller
from textllm_core.usage import estimated_tokens
from textllm_core.wire import to_json

MAX_GIVEN: Final = 2000  # messages of one turn; the longest runs of agents have some hundred, and each costs some 10 µs
_TOKENS_BESIDE: Final = 8  # which a provider writes around a message, a call or a result, for its model
_INSTRUCTING: Final = ("system", "developer")
_AT_ONCE: Final = timedelta(0)


@dataclass(frozen=True, slots=True)
class AnswerMessages:
    """Answer a conversation that its caller keeps.

    It may have `MAX_GIVEN` messages, and as many characters as a history of `policy.max_history_items` of the longest.
    Where a message instructs the model, the operator's default prompt does not.
    """

    exchange: Exchange
    policy: ChatPolicy

    async def __call__(self, caller: Caller, turn: MessagesTurn) -> Reply:
        """The whole reply, settled.

        Raises:
            TextLLMError: what `stream` raises, and the error of its `ReplyFailed`.
        """
        return (await self.answer(caller, turn))[1].reply

    async def answer(self, caller: Caller, turn: MessagesTurn) -> tuple[ReplyStarted, ReplyCompleted]:
        """The first event, which says what is left of the rate limit, and the last one, which has the whole reply.

        Raises:
            TextLLMError: as `__call__`.
        """
        return await self.exchange.answer(caller, self._checked(turn))

    def stream(self, caller: Caller, turn: MessagesTurn) -> AsyncGenerator[ReplyEvent, None]:
        """`ReplyStarted`, any number of `TextDelta`, then `ReplyCompleted` or `ReplyFailed`.

        Who stops reading does not stop the reply: it is read to its end, and charged.
        Raises:
            InvalidRequestError, InputTooLongError: at the call.
            TextLLMError: what `Exchange.run` raises, at the first event.
        """
        return self.exchange.run(caller, self._checked(turn))

    def batches(self, caller: Caller, turn: MessagesTurn) -> AsyncGenerator[list[ReplyEvent], None]:
        """As `stream`, as many events at a time as there are."""
        return self.exchange.batches(caller, self._checked(turn))

    def _checked(self, turn: MessagesTurn) -> Turn:
        given, hosted = tuple(turn.messages), turn.options.hosted
        if given:
            check_approvals(given[-1].content, hosted, asked=open_requests_in(given[:-1]))
            given = with_live_tools(given, hosted)
        characters, token_bound, tokens = measured(given)
        if len(given) > MAX_GIVEN:
            raise InvalidRequestError.of("messages", f"may be {MAX_GIVEN} at most")
        if not characters and not any(message.has_shown_parts for message in given):
            raise InvalidRequestError.of("messages", "must say something")
        limit = self.policy.max_input_chars * self.policy.max_history_items
        if characters > limit:
            raise InputTooLongError.of_messages(length=characters, limit=limit)
        options = turn.options
        if options.prompt is None and any(message.role in _INSTRUCTING for message in given):
            options = replace(options, instructions=options.instructions or "")  # in the place of the default prompt
        return Turn(
            kind=turn.kind,
            content=(),
            token_bound=token_bound + turn.files.most,
            conversation_id=None,
            user_id=turn.user_id,
            options=options,
            idempotency=turn.idempotency,
            is_streamed=turn.is_streamed,
            allowance=turn.allowance,
            attached=turn.attached,
            given=given,
            file_tokens=tokens + turn.files.about,
            expires_in=_AT_ONCE,
        )


def measured(messages: Sequence[Message], *, field: str = "messages", are_all: bool = True) -> tuple[int, int, int]:
    """The characters of the messages, an upper bound of the tokens they make, and about how many these are.

    Args:
        are_all: nothing was said before them, so that each result has its call among them.
    Raises:
        InvalidRequestError: half of a character, the result of a call that the reply before it does not ask for, or
            two calls, or results, with the same id.
    """
    characters = size = 0
    open_calls: set[str] = set()
    for place, message in enumerate(messages):
        calls: set[str] = set()
        has_results = False
        for part in message.content:
            match part:
                case InputText():  # which is what most messages are
                    said = part.text
                case ToolCall():
                    calls.add(part.call_id)
                    thought = part.reasoning.content if part.reasoning else ""
                    said = f"{part.call_id}{part.name}{part.arguments}{thought}"
                case ToolResult():
                    if are_all and part.call_id not in open_calls:
                        raise InvalidRequestError.of(
                            f"{field}[{place}]", "has the result of a call that the reply before it does not ask for"
                        )
                    has_results, said = True, part.call_id + part.output
                case InputImage() | InputFile() | InputLink():  # counted by whoever has looked at them
                    said = ""
                case HostedItem() | Approval():
                    said = to_json(part).decode()
                case _:
                    said = part.text + (part.reasoning.content if part.reasoning else "")
            characters += len(said)
            try:
                size += len(said.encode()) + _TOKENS_BESIDE
            except UnicodeEncodeError:
                raise InvalidRequestError.of(
                    f"{field}[{place}]", "has half of a surrogate pair, which is no character"
                ) from None
        size += _TOKENS_BESIDE
        if message.role not in _INSTRUCTING:
            open_calls = calls
        if calls or has_results:
            check_ids(message.content, field=field)
    return characters, size, estimated_tokens(characters=characters)
