"""The path of every turn with files: they are looked at once it is counted, and those of a repeat never are."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from functools import partial
from typing import Literal, NamedTuple, Protocol

from textllm_core.chat.exchange import Exchange
from textllm_core.chat.turn_files import TurnFiles
from textllm_core.errors import Allowance, TextLLMError
from textllm_core.file_tokens import FileTokens
from textllm_core.records.files import StoredFile
from textllm_core.records.messages import Idempotency, ReplyEvent, Turn, TurnOptions
from textllm_core.records.parts import InputFile, InputImage, InputText
from textllm_core.tenancy import Caller


class TurnWithFiles(Protocol):
    """What turns with files have in common."""

    @property
    def text(self) -> str: ...
    @property
    def conversation_id(self) -> str | None: ...
    @property
    def user_id(self) -> str | None: ...
    @property
    def options(self) -> TurnOptions: ...
    @property
    def idempotency(self) -> Idempotency | None: ...
    @property
    def is_resumable(self) -> bool: ...
    @property
    def allowance(self) -> Allowance | None: ...


class KeptFiles(NamedTuple):
    """The files of a turn, checked and stored, and what they cost."""

    stored: Sequence[StoredFile]
    parts: Sequence[InputImage | InputFile]
    tokens: FileTokens


@contextmanager
def told_apart(what: str, place: int, count: int) -> Iterator[None]:
    """A refusal of a file says which it is, where there are several."""
    try:
        yield
    except TextLLMError as refusal:
        if count > 1:
            refusal.tell_of(f"{what} {place} of {count}")
        raise


async def stream_with_files(
    exchange: Exchange,
    files: TurnFiles,
    caller: Caller,
    turn: TurnWithFiles,
    *,
    kind: Literal["image", "document"],
    keep: Callable[[str], Awaitable[KeptFiles]],
) -> AsyncGenerator[ReplyEvent, None]:
    """The events of the turn, its completed reply with links to its files; everything is raised at the first event.

    Args:
        keep: checks and stores the files for the user of this id.
    Raises:
        InvalidRequestError, InputTooLongError: the message is wrong.
        TextLLMError: what `keep` and `Exchange.run` raise.
    """
    since = asyncio.get_running_loop().time()  # its files may take longer to be read than a stream is silent
    exchange.policy.check_message(turn.text)
    admission = exchange.admission
    user_id = await files.owner(caller, user_id=turn.user_id, conversation_id=turn.conversation_id)
    allowance = turn.allowance or await admission.count(caller, user_id)
    async with admission.counted(caller, user_id, allowance):
        events = await admission.repeat(caller, user_id, turn.idempotency)
        if events is None:
            try:
                stored, parts, tokens = await keep(user_id)
            except TextLLMError:  # perhaps for a first one that came at the same time, and has filled the quota
                events = await admission.repeat(caller, user_id, turn.idempotency)
                if events is None:
                    raise
            else:
                ready = Turn(
                    kind=kind,
                    content=(InputText(turn.text), *parts),
                    token_bound=len(turn.text.encode()) + tokens.most,
                    file_tokens=tokens.about,
                    conversation_id=turn.conversation_id,
                    user_id=user_id,
                    options=turn.options,
                    idempotency=turn.idempotency,
                    is_resumable=turn.is_resumable,
                    allowance=allowance,
                    show_files=partial(files.show, caller, stored),
                    discard_files=partial(files.discard, caller.tenant_id, user_id, [file.key for file in stored]),
                    since=since,
                )
                events = exchange.run(caller, ready)
    async with aclosing(files.linked(caller, events)) as linked:
        async for event in linked:
            yield event
