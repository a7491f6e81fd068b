"""TextLLM for code that does not await: scripts, notebooks, and applications whose threads wait."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import aclosing, contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from textllm_adapters.settings import Settings
from textllm_adapters.wiring.applications import open_textllm
from textllm_core.application import Adapters, Administration, Conversations, Files, TextLLM
from textllm_core.chat.calls import call_of
from textllm_core.chat.chat_with_document import DocumentTurn
from textllm_core.chat.chat_with_image import ImageTurn
from textllm_core.errors import ServiceUnavailableError
from textllm_core.records.messages import Reply, ReplyEvent, TextTurn
from textllm_core.tenancy import Caller

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

T = TypeVar("T")


@contextmanager
def open_textllm_sync(settings: Settings, **adapters: Unpack[Adapters]) -> Iterator[SyncTextLLM]:
    """The same as `open_textllm`, on an event loop in a thread of its own: also where another loop runs in this one.

    Any number of threads may use it at once. Arguments and errors are those of `open_textllm`. The block must be left:
    a process that ends inside it waits for the loop's thread without end.
    """
    from anyio.from_thread import start_blocking_portal  # here, since those who await need none of it

    with (
        start_blocking_portal(name="textllm") as portal,
        portal.wrap_async_context_manager(open_textllm(settings, **adapters)) as textllm,
    ):
        waiting = SyncTextLLM(textllm, portal)
        try:
            yield waiting
        finally:
            waiting.is_closed = True


class SyncTextLLM:
    """Its methods wait, and return what those of `TextLLM` return, or raise what they raise.

    For all else there is `wait`: `textllm.wait(textllm.conversations.get(Caller(), conversation_id))`.

    Attributes:
        is_closed: the block has ended; each method raises `ServiceUnavailableError`.
    """

    def __init__(self, textllm: TextLLM, portal: BlockingPortal) -> None:
        self._textllm, self._portal = textllm, portal
        self.is_closed = False

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

        async def carry_out() -> T:
            return await work

        try:
            return self._begun(carry_out).result()
        finally:
            work.close()  # where it never began

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

        reading = self._begun(read)
        try:
            while (item := come.get()) is not None:
                yield item[0]
            reading.result()
        finally:
            reading.cancel()

    def _begun(self, work: Callable[[], Awaitable[T]]) -> Future[T]:
        if self.is_closed:
            raise ServiceUnavailableError.of_closed()
        return self._portal.start_task_soon(work)
