"""What each turn asks, on the shortest way: sent, sent again where it surely did not run, and read as it comes."""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from random import SystemRandom
from typing import Final, Self

from msgspec import Struct

from textllm_adapters.openai.bodies import encoded
from textllm_adapters.openai.client import Answer, Client
from textllm_adapters.openai.decoding import anything
from textllm_adapters.openai.errors import BROKEN_ANSWER, Asked, refusal, retry_after, unanswered
from textllm_adapters.openai.sse import MAX_EVENT_BYTES, EventSplitter, ServerSentEvent
from textllm_core.errors import (
    ConversationBusyError,
    ModelError,
    ProviderError,
    ProviderUnavailableError,
    TextLLMError,
)
from textllm_core.records.model import ModelRequest, ReadBlob

_MOST_REFUSAL_BYTES: Final = 1024 * 1024  # what it means stands at its beginning
_MOST_TEXT_BYTES: Final = 4000  # of what is no stream; likewise
_DRAIN_TIMEOUT_S: Final = 0.5  # what follows the last event is a few bytes, which come with it or never
_PASSING: Final = (408, 409, 429)  # refusals of what may be answered a moment later
_random = SystemRandom()


class Retries(Struct, frozen=True, kw_only=True):
    """How often, and with which pauses in seconds, a call is sent that surely was not executed."""

    tries: int = 3
    first_wait_s: float = 0.5  # doubled with each further try
    first_busy_wait_s: float = 1.0  # where the conversation is in use
    longest_s: float = 10.0  # of all pauses together

    def wait(self, attempt: int, *, busy: bool) -> float:
        """The pause after try number `attempt`, from 1, where the provider asks for none."""
        if busy:
            return self.first_busy_wait_s * float(2 ** (attempt - 1))
        return self.first_wait_s * float(2 ** (attempt - 1)) * _random.uniform(0.75, 1.0)


RETRIES: Final = Retries()
ONCE: Final = Retries(tries=1)


async def post(
    client: Client,
    path: str,
    body: Mapping[str, object],
    retries: Retries,
    asked: Asked | None = None,
    read: ReadBlob | None = None,
) -> Answer:
    """The answer to `body`, open and unread; whoever gets it closes it.

    Args:
        asked: where it is a turn, for errors that concern it.
        read: the files in the body.
    Raises:
        TextLLMError: refused, or not answered, after all tries; or a file could not be read.
    """
    asked = asked or Asked.of(client.base_url, path)
    sent = encoded(body, read)
    waited = 0.0
    may_have_run: TextLLMError | None = None  # once a try may have run, no later refusal can take that back
    attempt = 0
    while True:
        attempt += 1
        try:
            answer = await client.post(path, sent)
            if answer.status // 100 == 2:
                asked.answered(answer.headers)
                return answer
            said = await _read(answer, _MOST_REFUSAL_BYTES)
        except tuple(BROKEN_ANSWER) as failure:
            if sent.failure is not None:  # half a body asks for nothing
                raise sent.failure from None
            error: TextLLMError = unanswered(failure, asked)
            again, wait = surely_did_not_run(error), None
        else:
            error = refusal(answer.status, answer.headers, said, asked)
            verdict = answer.headers.get("x-should-retry")
            again = verdict == "true" or (verdict != "false" and surely_did_not_run(error))
            wait = retry_after(answer.headers)
        if isinstance(error, ModelError) and error.may_have_run:
            may_have_run = may_have_run or error
        if wait is None:
            wait = retries.wait(attempt, busy=isinstance(error, ConversationBusyError))
        waited += wait
        if not again or attempt >= retries.tries or waited > retries.longest_s:
            raise may_have_run or error
        await asyncio.sleep(wait)


async def get(client: Client, path: str, retries: Retries) -> bytes | None:
    """The body of a resource, None where it does not exist; asked again where that may help.

    Raises:
        TextLLMError: refused, or not answered, after all tries.
    """
    asked = Asked.of(client.base_url, path)
    waited, attempt = 0.0, 0
    while True:
        attempt += 1
        wait: float | None = None
        try:
            answer = await client.fetch(path)
            said = await whole(answer)
        except tuple(BROKEN_ANSWER) as failure:
            error: TextLLMError = unanswered(failure, asked)
            again = True
        else:
            if answer.status // 100 == 2:
                return said
            if answer.status == 404:
                return None
            error, wait = refusal(answer.status, answer.headers, said, asked), retry_after(answer.headers)
            verdict = answer.headers.get("x-should-retry")
            again = verdict == "true" or (verdict != "false" and (answer.status in _PASSING or answer.status >= 500))
        wait = retries.wait(attempt, busy=False) if wait is None else wait
        waited += wait
        if not again or attempt >= retries.tries or waited > retries.longest_s:
            raise error
        await asyncio.sleep(wait)


def surely_did_not_run(error: TextLLMError) -> bool:
    """Did nothing run, and may the next try fare better?"""
    return isinstance(error, ConversationBusyError) or (
        isinstance(error, ProviderUnavailableError) and not error.may_have_run
    )


async def whole(answer: Answer) -> bytes:
    """All of an answer, which is closed then.

    Raises:
        ProviderError: it has more than 16 MB.
        Exception: broken, as in `BROKEN_ANSWER`.
    """
    body = await _read(answer, MAX_EVENT_BYTES + 1)
    if len(body) > MAX_EVENT_BYTES:
        raise too_much()
    return body


async def _read(answer: Answer, most: int) -> bytes:
    """The first `most` bytes of an answer, which is closed then."""
    body = b""
    try:
        while len(body) < most and (piece := await answer.read()):
            body += piece
        return body[:most]
    finally:
        answer.close()


def _listed(event: ServerSentEvent) -> list[ServerSentEvent]:
    """The events of which an event is a list; none where it is something else."""
    said = anything(event.data)
    if isinstance(said, list) and all(isinstance(each, dict) for each in said):
        return [ServerSentEvent(event.name, json.dumps(each).encode()) for each in said]
    return []


def too_much() -> ProviderError:
    """An answer has no end."""
    return ProviderError("The provider sent an answer of more than 16 MB.")


class EventStream:
    """The events of an answer, read once and then closed; all that has come is taken at once."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._splitter = EventSplitter()
        self._events: Iterator[ServerSentEvent] = iter(())  # of the bytes that were read last
        self._text = b""  # how it begins, for as long as no event has come: it may be no stream, but a page
        self._document = b""  # of a server that does not stream, or has only an error to tell
        self._is_lines: bool | None = None  # it is objects, one a line; None: not known yet
        self._has_begun = False

    @classmethod
    async def of(
        cls,
        client: Client,
        asked: Asked,
        request: ModelRequest,
        body: Mapping[str, object],
        retries: Retries,
        place: str | None = None,
    ) -> Self:
        """Ask for it; at `place`, where that is another one than errors tell of.

        Raises:
            TextLLMError: refused before the first byte.
        """
        return cls(await post(client, place or asked.path, body, retries, asked, request.read))

    @property
    def has_come(self) -> bool:
        """Whether all of it is here by now."""
        return self._answer.is_over

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ServerSentEvent:
        """
        Raises:
            ProviderError: it has no end.
            Exception: broken, as in `BROKEN_ANSWER`.
        """
        while True:
            if (event := next(self._events, None)) is not None:
                self._text = b""
                if event.data[:1] != b"[" or event.data == b"[DONE]" or not (listed := _listed(event)):
                    return event
                self._events = chain(listed, self._events)
            elif chunk := await self._answer.read():
                self._take(chunk)
            elif self._document:
                self._events, self._document = iter([ServerSentEvent(b"", self._document)]), b""
            elif (last := self._splitter.rest()) is not None:
                return last
            elif self._text:
                text, self._text = self._text, b""
                return ServerSentEvent(b"", text)
            else:
                raise StopAsyncIteration

    def _take(self, chunk: bytes) -> None:
        if self._document or self._is_lines or (not self._has_begun and chunk.lstrip()[:1] in (b"{", b"[")):
            self._document += chunk
            if self._is_lines is None and b"\n" in chunk:
                first, line_break, _ = self._document.lstrip().partition(b"\n")
                self._is_lines = isinstance(anything(first), dict) if line_break else None
            if self._is_lines:
                *lines, self._document = self._document.split(b"\n")
                self._events = iter([ServerSentEvent(b"", line) for line in lines if line.strip()])
            if len(self._document) > MAX_EVENT_BYTES:
                raise too_much()
        else:
            if not self._has_begun and not chunk.isspace():
                self._has_begun, self._text = True, chunk.lstrip()[:_MOST_TEXT_BYTES]
            self._events = self._splitter.feed(chunk)

    async def drain(self, hear: Callable[[ServerSentEvent], object] = lambda _: None) -> None:
        """Read what little may follow the last event, so that the connection can serve the next call."""
        with suppress(TimeoutError, *BROKEN_ANSWER):  # the reply is complete; a connection that lingers is closed
            if self._answer.is_over:  # as it mostly is: then there is nothing to wait for
                await self._hear_out(hear)
            else:
                async with asyncio.timeout(_DRAIN_TIMEOUT_S):
                    await self._hear_out(hear)

    async def _hear_out(self, hear: Callable[[ServerSentEvent], object]) -> None:
        async for event in self:
            hear(event)

    def close(self) -> None:
        """End the call, if it has not ended yet."""
        self._answer.close()
