"""What has happened in one exchange so far, for any number of readers, none of whom can hold it up."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from textllm_core.chat.messages import ReplyEvent, ReplyFailed
from textllm_core.errors import TextLLMError


class ReplyLog:
    """The events of one exchange, kept while it runs. It is written by one task; a reader may come and leave at will.

    It grows with the reply, whose length the model's `max_output_tokens` bounds, and not with its readers: a slow one
    holds a place in the list and nothing else. Once closed it does not change any more. Events count from 1.
    """

    __slots__ = ("_error", "_events", "_grew", "_is_closed", "_readers")

    def __init__(self) -> None:
        self._events: list[ReplyEvent] = []
        self._grew = asyncio.Event()
        self._is_closed = False
        self._error: BaseException | None = None
        self._readers = 0

    @property
    def has_readers(self) -> bool:
        """Whether anyone is reading it now."""
        return self._readers > 0

    @property
    def length(self) -> int:
        """The number of the newest event."""
        return len(self._events)

    @property
    def end_number(self) -> int:
        """The number that its terminal event has, or will have."""
        return len(self._events) + (not self._is_closed)

    def after(self, number: int) -> Sequence[ReplyEvent]:
        """The events that follow the one of this number, as of now."""
        return self._events[number:]

    def append(self, event: ReplyEvent) -> None:
        """Write the next event."""
        if not self._is_closed:
            self._events.append(event)
            self._wake()

    def close(self) -> None:
        """End the log: its last event was terminal."""
        self._end(None)

    def refuse(self, error: BaseException) -> None:
        """End the log before its first event: readers see `error` raised."""
        self._end(error)

    def fail(self, response_id: str, error: TextLLMError) -> None:
        """End the log with a failure: as an event where the reply had begun, else as a refusal."""
        if not self._events:
            self.refuse(error)
            return
        self.append(ReplyFailed(response_id, error))
        self.close()

    async def read(self, *, after: int = 0) -> AsyncGenerator[ReplyEvent, None]:
        """All events that follow the one of this number, then each new one as it comes.

        Raises:
            Exception: what the log was refused with.
        """
        position = after
        self._readers += 1
        try:
            while True:
                while position < len(self._events):
                    yield self._events[position]
                    position += 1
                if self._is_closed:
                    if self._error is not None:
                        raise self._error
                    return
                await self._grew.wait()
        finally:
            self._readers -= 1

    def _end(self, error: BaseException | None) -> None:
        if not self._is_closed:
            self._is_closed, self._error = True, error
            self._wake()

    def _wake(self) -> None:
        self._grew.set()
        self._grew = asyncio.Event()
