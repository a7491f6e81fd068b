"""TextLLM for code that does not await: scripts, notebooks, and applications whose threads wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack, aclosing
from functools import cache
from queue import SimpleQueue
from typing import Any, Self, TypeVar, Unpack, overload

from textllm_adapters.settings import Settings
from textllm_adapters.wiring.applications import open_textllm
from textllm_core.application import Adapters, Administration, Conversations, Files, TextLLM
from textllm_core.chat.calls import call_of
from textllm_core.chat.chat_with_document import DocumentTurn
from textllm_core.chat.chat_with_image import ImageTurn
from textllm_core.errors import ServiceUnavailableError
from textllm_core.records.messages import Reply, ReplyEvent, TextTurn
from textllm_core.tenancy import Caller

T = TypeVar("T")


def open_textllm_sync(settings: Settings | None = None, **adapters: Unpack[Adapters]) -> SyncTextLLM:
    """The same as `open_textllm`, on an event loop in a thread of its own: also where another loop runs in this one.

    Close it, or use it in a `with` block, which does. A block that Ctrl-C ends cuts replies short, and settles them.
    What nobody closed is closed when the main thread ends. Arguments and errors are those of `open_textllm`.
    """
    from anyio.from_thread import start_blocking_portal  # here, since those who await need none of it

    with ExitStack() as opening:
        portal = opening.enter_context(start_blocking_portal(name="textllm"))
        textllm = opening.enter_context(portal.wrap_async_context_manager(open_textllm(settings, **adapters)))
        opened = SyncTextLLM(textllm, portal.call(asyncio.get_running_loop), opening.pop_all())
    _opened().add(opened)
    return opened


@cache
def _opened() -> set[SyncTextLLM]:
    """What is to be closed when the main thread has ended, by when asyncio can hand nothing to threads any more.

    That is before the standard library's pools of threads end, which closing needs: `atexit` would be too late.
    """
    # What is registered first, as the end of these pools is now, is called last.
    import concurrent.futures.thread  # noqa: F401

    opened = set[SyncTextLLM]()

    def close() -> None:
        for textllm in list(opened):
            textllm.close()

    threading._register_atexit(close)  # type: ignore[attr-defined]
    return opened


class SyncTextLLM:
    """Its methods wait, and return what those of `TextLLM` return, or raise what they raise.

    For all else there is `wait`: `textllm.wait(textllm.conversations.get(Caller(), conversation_id))`. Any number of
    threads may use it at once.

    Attributes:
        is_closed: each method raises `ServiceUnavailableError`.
    """

    def __init__(self, textllm: TextLLM, loop: asyncio.AbstractEventLoop, closing: ExitStack) -> None:
        self._textllm, self._loop, self._closing = textllm, loop, closing
        self.is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is KeyboardInterrupt:  # whoever presses Ctrl-C waits for no reply
            self.wait(self._textllm.wind_down(grace_s=0))
        self.close()

    def close(self) -> None:
        """Let running replies end, then close what was opened. A second time nothing happens."""
        self.is_closed = True
        self._closing.close()
        _opened().discard(self)

    @overload
    def send_message(self, turn: TextTurn | str, /) -> Reply: ...
    @overload
    def send_message(self, caller: Caller, turn: TextTurn | str) -> Reply: ...
    def send_message(self, caller: Caller | TextTurn | str, turn: TextTurn | str | None = None) -> Reply:
        """As `SendMessage`."""
        return self.wait(self._textllm.send_message(*call_of(TextTurn, caller, turn)))

    @overload
    def stream(self, turn: TextTurn | str, /) -> Iterator[ReplyEvent]: ...
    @overload
    def stream(self, caller: Caller, turn: TextTurn | str) -> Iterator[ReplyEvent]: ...
    def stream(self, caller: Caller | TextTurn | str, turn: TextTurn | str | None = None) -> Iterator[ReplyEvent]:
        """As `SendMessage.stream`, an event at a time."""
        return self.each(self._textllm.send_message.stream(*call_of(TextTurn, caller, turn)))

    @overload
    def chat_with_image(self, turn: ImageTurn, /) -> Reply: ...
    @overload
    def chat_with_image(self, caller: Caller, turn: ImageTurn) -> Reply: ...
    def chat_with_image(self, caller: Caller | ImageTurn, turn: ImageTurn | None = None) -> Reply:
        """As `ChatWithImage`."""
        return self.wait(self._textllm.chat_with_image(*call_of(ImageTurn, caller, turn)))

    @overload
    def chat_with_document(self, turn: DocumentTurn, /) -> Reply: ...
    @overload
    def chat_with_document(self, caller: Caller, turn: DocumentTurn) -> Reply: ...
    def chat_with_document(self, caller: Caller | DocumentTurn, turn: DocumentTurn | None = None) -> Reply:
        """As `ChatWithDocument`."""
        return self.wait(self._textllm.chat_with_document(*call_of(DocumentTurn, caller, turn)))

    @property
    def conversations(self) -> Conversations:
        """Each returns something for `wait`."""
        return self._textllm.conversations

    @property
    def files(self) -> Files:
        """Each returns something for `wait`, or for `each`."""
        return self._textllm.files

    @property
    def administration(self) -> Administration:
        """Each returns something for `wait`, or for `each`."""
        return self._textllm.administration

    @property
    def asynchronous(self) -> TextLLM:
        """The whole of it."""
        return self._textllm

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` of this TextLLM returns."""
        begun = self._begun(work)
        try:
            return self._result_of(begun)
        finally:
            begun.cancel()  # where the wait was interrupted

    def each(self, of: AsyncGenerator[T, None]) -> Iterator[T]:
        """What `of` this TextLLM yields, as soon as it does. Who stops reading a reply does not stop it."""
        come: SimpleQueue[tuple[T] | None] = SimpleQueue()

        async def read() -> None:
            try:
                async with aclosing(of):
                    async for item in of:
                        come.put((item,))
            finally:
                come.put(None)

        reading = self._begun(read())
        try:
            while (item := come.get()) is not None:
                yield item[0]
            self._result_of(reading)
        finally:
            reading.cancel()

    def _begun(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        if self.is_closed:
            work.close()
            raise ServiceUnavailableError.of_closed()
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _result_of(self, begun: Future[T]) -> T:
        try:
            return begun.result()
        except CancelledError:
            if self.is_closed:
                raise ServiceUnavailableError.of_closed() from None
            raise
