"""What a repeat of a turn is told: the same ids, the same text, the same end."""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from textllm_core.chat.messages import (
    InputFile,
    InputImage,
    Reply,
    ReplyCompleted,
    ReplyEvent,
    ReplyFailed,
    ReplyStarted,
    TextDelta,
)
from textllm_core.errors import (
    ContentRefusedError,
    ContextTooLongError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    StorageUnavailableError,
    TextLLMError,
)
from textllm_core.ports.ledger import Replay

_FIXED: Final = (ContentRefusedError, ContextTooLongError)
_WORDED: Final = (ProviderError, ProviderUnavailableError, ProviderTimeoutError, StorageUnavailableError)


class _Failure(Struct, frozen=True):
    code: str
    message: str


class _Remembered(Struct, frozen=True):
    started: ReplyStarted | None
    reply: Reply | None
    failure: _Failure | None
    files: tuple[InputImage | InputFile, ...] = ()


def remembered_reply(started: ReplyStarted, reply: Reply, files: tuple[InputImage | InputFile, ...] = ()) -> bytes:
    """A completed reply, but for what only its settlement counts, and the files of its turn."""
    return msgspec.json.encode(_Remembered(replace(started, allowance=None), reply, None, files))


def remembered_failure(started: ReplyStarted | None, error: TextLLMError) -> bytes:
    """A failure; `started` where the reply had begun."""
    begun = replace(started, allowance=None) if started else None
    return msgspec.json.encode(_Remembered(begun, None, _Failure(error.code, str(error))))


def replayed(replay: Replay, warnings: Sequence[str]) -> Iterator[ReplyEvent]:
    """The events of a turn that was settled before; `warnings` are those of its reply.

    Raises:
        TextLLMError: it had failed before it began.
    """
    kept = msgspec.json.decode(replay.remembered, type=_Remembered)
    if kept.started is not None:
        yield replace(kept.started, is_replayed=True)
    if kept.reply is not None:
        if kept.reply.text:
            yield TextDelta(kept.reply.text)
        yield ReplyCompleted(replace(kept.reply, message_number=replay.message_number, warnings=warnings), kept.files)
    elif kept.failure is not None:
        error = _error(kept.failure)
        error.is_replayed = True
        if kept.started is None:
            raise error
        yield ReplyFailed(kept.started.response_id, error)


def _error(failure: _Failure) -> TextLLMError:
    for fixed in _FIXED:
        if fixed.code == failure.code:
            return fixed()
    worded = next((kind for kind in _WORDED if kind.code == failure.code), ProviderError)
    return worded(failure.message)
