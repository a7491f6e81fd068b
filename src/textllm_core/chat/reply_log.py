"""What has happened in one exchange so far, for any number of readers, none of whom can hold it up."""

import asyncio
from array import array
from bisect import bisect_left
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from textllm_core.errors import ServiceUnavailableError, TextLLMError
from textllm_core.records.hosted import HostedItem, ToolStep
from textllm_core.records.messages import Reply, ReplyCompleted, ReplyEvent, ReplyFailed, ReplyStarted, TextDelta
from textllm_core.records.thoughts import Reasoning, Thought, ThoughtDelta
from textllm_core.usage import Usage


class ReplyLog:
    """The events of one exchange, kept while it runs. It is written by one task; a reader may come and leave at will.

    It grows with the reply, whose length `AskModel` bounds, and not with its readers: a slow one
    holds a place in it and nothing else. Once closed it does not change any more. Events count from 1.

    Attributes:
        thought: characters of reasoning that came with the reply, whether or not anybody is told.
        counted: what the provider has stated so far that it has used; None: nothing yet.
    """

    __slots__ = (
        "_ending",
        "_ends",
        "_error",
        "_is_closed",
        "_kinds",
        "_others",
        "_readers",
        "_steps",
        "_text",
        "_thought_before",
        "_thought_ends",
        "_thought_places",
        "_thoughts",
        "_waiting",
        "counted",
        "thought",
    )

    def __init__(self) -> None:
        # What a reply says is thousands of tiny pieces, each of which would be ten times as large as an object.
        self._text = bytearray()
        self._ends = array("I")
        self._kinds = bytearray()  # of each piece, whether it is of a refusal
        self._steps: dict[int, ToolStep | Thought] = {}  # by their places among the pieces, where they are empty ones
        self._thoughts = bytearray()  # in words; the places of their pieces, which are empty among those of the text
        self._thought_places, self._thought_ends = array("I"), array("I")
        self._thought_before: int | None = None  # how much of them, once the text has begun
        self._others: list[ReplyEvent] = []  # what comes before the text, and after it: one each
        self._waiting: list[asyncio.Future[None]] = []  # for whatever comes next
        self._ending: list[asyncio.Future[None]] = []  # for the end alone
        self._is_closed = False
        self._error: BaseException | None = None
        self._readers = 0
        self.thought = 0
        self.counted: Usage | None = None

    @property
    def has_readers(self) -> bool:
        """Whether anyone is reading it now."""
        return self._readers > 0

    @property
    def is_closed(self) -> bool:
        """Whether it has ended: nothing follows any more."""
        return self._is_closed

    @property
    def length(self) -> int:
        """The number of the newest event."""
        return len(self._others) + len(self._ends)

    @property
    def end_number(self) -> int:
        """The number that its terminal event has, or will have."""
        return self.length + (not self._is_closed)

    @property
    def size(self) -> int:
        """How many bytes it has said so far."""
        return len(self._text)

    @property
    def text(self) -> str:
        """All that was said of the reply so far."""
        return self._text.decode()

    @property
    def tools(self) -> list[HostedItem]:
        """What tools of the provider's have done for the reply so far, or have begun to do."""
        items: dict[str, HostedItem] = {}
        for place, step in self._steps.items():
            if isinstance(step, ToolStep):
                items[step.item.id or str(place)] = step.item
        return list(items.values())

    @property
    def thoughts(self) -> tuple[str, str]:
        """What the model thought in words before its text, and behind that."""
        before = len(self._thoughts) if self._thought_before is None else self._thought_before
        return self._thoughts[:before].decode(), self._thoughts[before:].decode()

    @property
    def returned(self) -> Reasoning | None:
        """What it thought before its text, as its provider wants it back."""
        thoughts = [step.reasoning for step in self._steps.values() if isinstance(step, Thought)]
        return thoughts[0] if thoughts else None

    @property
    def first(self) -> ReplyStarted:
        """The first event, once there is one."""
        first = self._others[0]
        assert isinstance(first, ReplyStarted)
        return first

    def after(self, number: int) -> Iterator[ReplyEvent]:
        """The events that follow the one of this number, as of now."""
        return map(self._event, range(number, self.length))

    def _event(self, position: int) -> ReplyEvent:
        if position == 0:
            return self._others[0]
        if position > len(self._ends):
            return self._others[1]
        if (step := self._steps.get(position - 1)) is not None:
            return step
        number = bisect_left(self._thought_places, position - 1)
        if number < len(self._thought_places) and self._thought_places[number] == position - 1:
            begins = self._thought_ends[number - 1] if number else 0
            return ThoughtDelta(self._thoughts[begins : self._thought_ends[number]].decode())
        begins = self._ends[position - 2] if position > 1 else 0
        text = self._text[begins : self._ends[position - 1]].decode()
        return TextDelta(text, bool(self._kinds[position - 1]))

    def append(self, event: ReplyEvent) -> None:
        """Write the next event: `ReplyStarted`, then any number of pieces and steps, then a terminal one."""
        if isinstance(event, TextDelta):
            self.say(event.text.encode(), is_refusal=event.is_refusal)
        elif isinstance(event, ThoughtDelta):
            self.think(event.text.encode())
        elif isinstance(event, ToolStep | Thought):
            self.step(event)
        elif not self._is_closed:
            self._others.append(event)
            self._wake(self._waiting)

    def say(self, text: bytes, *, is_refusal: bool = False) -> None:
        """Write the next piece of the text, of whole characters in UTF-8; nothing where there is none."""
        if text and not self._is_closed:
            if self._thought_before is None:
                self._thought_before = len(self._thoughts)
            self._text += text
            self._ends.append(len(self._text))
            self._kinds.append(is_refusal)
            if self._waiting:  # which nobody does who wants the whole reply, whatever many pieces it has
                self._wake(self._waiting)

    def think(self, words: bytes) -> None:
        """Write the next piece of what the model thinks in words, as `say` has it."""
        if words and not self._is_closed:
            self._thoughts += words
            self._thought_places.append(len(self._ends))
            self._thought_ends.append(len(self._thoughts))
            self._stand_between()

    def step(self, step: ToolStep | Thought) -> None:
        """Write down that a tool is at work, or what was thought, between the pieces of the text."""
        if not self._is_closed:
            self._steps[len(self._ends)] = step
            self._stand_between()

    def _stand_between(self) -> None:
        """An event that is no piece of the text."""
        self._ends.append(len(self._text))
        self._kinds.append(False)
        self._wake(self._waiting)

    def close(self) -> None:
        """End the log: its last event was terminal."""
        self._end(None)

    def refuse(self, error: BaseException) -> None:
        """End the log before its first event: readers see `error` raised."""
        self._end(error)

    def fail(self, response_id: str, error: TextLLMError) -> None:
        """End the log with a failure: as an event where the reply had begun, else as a refusal."""
        if not self._others:
            self.refuse(error)
            return
        self.append(ReplyFailed(response_id, error))
        self.close()

    async def begun(self) -> ReplyStarted | None:
        """Wait for the first event; None where this process was about to end.

        Raises:
            Exception: what the log was refused with.
        """
        self._readers += 1
        try:
            if not (self._others or self._is_closed):
                await self._woken(self._waiting)
        finally:
            self._readers -= 1
        if self._error is not None:
            raise self._error
        return self.first if self._others else None

    async def ended(self) -> ReplyEvent | None:
        """Wait for the end: its last event, which is not terminal where this process was about to end.

        Raises:
            Exception: what the log was refused with.
        """
        self._readers += 1
        try:
            if not self._is_closed:
                await self._woken(self._ending)
        finally:
            self._readers -= 1
        if self._error is not None:
            raise self._error
        return self._others[-1] if self._others else None

    async def read(self, *, after: int = 0) -> AsyncGenerator[ReplyEvent, None]:
        """All events that follow the one of this number, then each new one as it comes.

        Raises:
            Exception: what the log was refused with.
        """
        async with aclosing(self.batches(after=after)) as batches:
            async for batch in batches:
                for event in batch:
                    yield event

    async def batches(self, *, after: int = 0) -> AsyncGenerator[list[ReplyEvent], None]:
        """As `read`, as many at a time as there are by then."""
        position = after
        self._readers += 1
        try:
            while True:
                while position < self.length:
                    batch = list(self.after(position))
                    position += len(batch)
                    yield batch
                if self._is_closed:
                    if self._error is not None:
                        raise self._error
                    return
                await self._woken(self._waiting)
        finally:
            self._readers -= 1

    def _end(self, error: BaseException | None) -> None:
        if not self._is_closed:
            self._is_closed, self._error = True, error
            self._wake(self._waiting)
            self._wake(self._ending)

    def _woken(self, sleepers: list[asyncio.Future[None]]) -> asyncio.Future[None]:
        waiting = asyncio.get_running_loop().create_future()
        sleepers.append(waiting)
        return waiting

    def _wake(self, sleepers: list[asyncio.Future[None]]) -> None:
        for waiting in sleepers:
            if not waiting.done():
                waiting.set_result(None)
        sleepers.clear()


def reply_of(end: ReplyEvent | None) -> ReplyCompleted:
    """What the last event of a reply says.

    Raises:
        TextLLMError: the error of `ReplyFailed`.
        ServiceUnavailableError: it is none, because this process is about to end.
    """
    match end:
        case ReplyCompleted():
            return end
        case ReplyFailed(_, error):
            raise error
    raise ServiceUnavailableError("The service is shutting down; ask for this reply again.")


async def last_reply(events: AsyncGenerator[ReplyEvent, None]) -> Reply:
    """Read a reply to its end.

    Raises:
        TextLLMError: as `reply_of`, or what the events raise.
    """
    end = None
    async with aclosing(events):
        async for end in events:
            if isinstance(end, ReplyCompleted | ReplyFailed):
                break
    return reply_of(end).reply
