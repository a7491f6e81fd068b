"""The one HTTP client of the process, and how calls are sent with it: what surely did not run is sent again."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from random import SystemRandom
from typing import Final, cast

import httpx2
import openai
from msgspec import Struct
from openai import AsyncOpenAI, AsyncStream, DefaultAioHttpClient

from textllm_adapters.openai.bodies import encoded
from textllm_adapters.openai.errors import BROKEN_ANSWER, UNANSWERED, Asked, refusal, retry_after, unanswered
from textllm_adapters.openai.sse import MAX_EVENT_BYTES, EventSplitter, ServerSentEvent
from textllm_core.errors import (
    ConversationBusyError,
    ModelError,
    ProviderError,
    ProviderUnavailableError,
    TextLLMError,
)
from textllm_core.ports.tracer import Tracer
from textllm_core.records.model import ModelRequest, ReadBlob
from textllm_core.steps import UNTRACED

OPENAI_URL: Final = "https://api.openai.com/v1"
_CONNECT_TIMEOUT_S: Final = 5.0
_SILENCE_MARGIN: Final = 1.1  # the exchange's own deadline comes first; this one only frees what it leaves behind
_MAX_CONNECTIONS: Final = 10_000  # one for each reply under way; beyond it calls wait, and none runs
_KEEP_ALIVE_S: Final = 30.0
_READ_TIMEOUT_S: Final = 10.0
_READ_RETRIES: Final = 2
_DRAIN_TIMEOUT_S: Final = 0.5

# The SDK would tell each of them of this machine; they are of no use to an answer, and kept as long as it lasts.
_UNTOLD: Final = dict.fromkeys(
    (
        "X-Stainless-Arch",
        "X-Stainless-Async",
        "X-Stainless-Lang",
        "X-Stainless-OS",
        "X-Stainless-Package-Version",
        "X-Stainless-Read-Timeout",
        "X-Stainless-Runtime",
        "X-Stainless-Runtime-Version",
    ),
    openai.Omit(),
)
_random = SystemRandom()


@asynccontextmanager
async def open_client(
    api_key: str, base_url: str | None = None, *, silence_timeout_s: float = 60.0, tracer: Tracer = UNTRACED
) -> AsyncIterator[AsyncOpenAI]:
    """A client that repeats nothing by itself, closed on exit.

    Args:
        api_key: some servers need none; the SDK wants a text all the same.
        base_url: up to and including `/v1`; None is OpenAI's.
        silence_timeout_s: how long the core waits for the next byte; the client waits a little longer.
        tracer: knows which step a request is part of; the request says so.
    """

    async def tell_step(request: httpx2.Request) -> None:
        for name, value in tracer.outgoing().items():
            request.headers[name] = value

    timeout = httpx2.Timeout(silence_timeout_s * _SILENCE_MARGIN, connect=_CONNECT_TIMEOUT_S)
    limits = httpx2.Limits(max_connections=_MAX_CONNECTIONS, keepalive_expiry=_KEEP_ALIVE_S)
    http_client = DefaultAioHttpClient(timeout=timeout, limits=limits, event_hooks={"request": [tell_step]})
    async with AsyncOpenAI(
        api_key=api_key, base_url=base_url or OPENAI_URL, timeout=timeout, max_retries=0, http_client=http_client
    ) as client:
        yield client


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


async def post(
    client: AsyncOpenAI,
    path: str,
    body: Mapping[str, object],
    retries: Retries,
    asked: Asked | None = None,
    read: ReadBlob | None = None,
) -> httpx2.Response:
    """The answer to `body`, open and unread.

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
            answer = await client.post(
                path,
                cast_to=httpx2.Response,
                content=sent.content,
                options={"headers": {**sent.headers, **_UNTOLD}},
                stream=True,
                stream_cls=AsyncStream[object],
            )
            return cast("httpx2.Response", answer)  # what `cast_to` asks for, streamed or not
        except UNANSWERED as failure:
            if sent.failure is not None:  # half a body asks for nothing
                raise sent.failure from None
            error: TextLLMError = unanswered(failure, asked)
            again, wait = _surely_did_not_run(error), None
        except openai.APIStatusError as failure:
            error = refusal(failure, asked)
            verdict = failure.response.headers.get("x-should-retry")
            again = verdict == "true" or (verdict != "false" and _surely_did_not_run(error))
            wait = retry_after(failure)
        if isinstance(error, ModelError) and error.may_have_run:
            may_have_run = may_have_run or error
        if wait is None:
            wait = retries.wait(attempt, busy=isinstance(error, ConversationBusyError))
        waited += wait
        if not again or attempt >= retries.tries or waited > retries.longest_s:
            raise may_have_run or error
        await asyncio.sleep(wait)


def _surely_did_not_run(error: TextLLMError) -> bool:
    """Did nothing run, and may the next try fare better?"""
    return isinstance(error, ConversationBusyError) or (
        isinstance(error, ProviderUnavailableError) and not error.may_have_run
    )


async def post_for_events(
    client: AsyncOpenAI, asked: Asked, request: ModelRequest, body: Mapping[str, object], retries: Retries
) -> AsyncGenerator[ServerSentEvent, None]:
    """The events of the answer as they come; closing them early ends the call at once.

    Raises:
        TextLLMError: refused before the first byte.
        Exception: broken afterwards, as in `BROKEN_ANSWER`.
    """
    answer = await post(client, asked.path, body, retries, asked, request.read)
    asked.answered(answer)
    stream, chunks = answer.stream, _chunks(answer)
    assert isinstance(stream, httpx2.AsyncByteStream)
    del answer, body, request  # there are thousands of answers at once, and each may last
    splitter = EventSplitter()
    document = bytearray()  # of a server that does not stream, or has only an error to tell
    has_begun = False
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                if document or (not has_begun and chunk.lstrip()[:1] in (b"{", b"[")):
                    document += chunk
                    if len(document) > MAX_EVENT_BYTES:
                        raise ProviderError("The provider sent an answer of more than 16 MB.")
                    continue
                has_begun = has_begun or not chunk.isspace()
                for event in splitter.feed(chunk):
                    yield event
            if document:
                yield ServerSentEvent(b"", bytes(document))
    finally:
        await stream.aclose()


def _chunks(answer: httpx2.Response) -> AsyncGenerator[bytes, None]:
    """The body as it comes; straight from the transport where it need not be decoded."""
    if "content-encoding" in answer.headers:
        return answer.aiter_bytes()
    assert isinstance(answer.stream, httpx2.AsyncByteStream)
    return cast("AsyncGenerator[bytes, None]", aiter(answer.stream))  # as its source has it; its type says less


async def drained(
    events: AsyncIterator[ServerSentEvent], hear: Callable[[ServerSentEvent], object] = lambda _: None
) -> None:
    """Read what little may follow the last event, so that the connection can serve the next call."""
    with suppress(TimeoutError, *BROKEN_ANSWER):  # the reply is complete; a connection that lingers is closed instead
        async with asyncio.timeout(_DRAIN_TIMEOUT_S):
            async for event in events:
                hear(event)


async def delete(client: AsyncOpenAI, path: str) -> None:
    """Remove a resource; one that does not exist is as good as removed.

    Raises:
        TextLLMError: the provider refused or did not answer.
    """
    try:
        answer = await client.delete(
            path, cast_to=httpx2.Response, options={"max_retries": _READ_RETRIES, "timeout": _READ_TIMEOUT_S}
        )
        await answer.aread()
        return
    except openai.NotFoundError:
        return
    except UNANSWERED as failure:
        error: TextLLMError = unanswered(failure, Asked.of(client.base_url, path))
    except openai.APIStatusError as failure:
        error = refusal(failure, Asked.of(client.base_url, path))
    raise error


async def get(client: AsyncOpenAI, path: str, params: Mapping[str, object] | None = None) -> bytes | None:
    """The body of a resource, None where it does not exist.

    Raises:
        ModelError: the provider refused or did not answer.
    """
    try:
        answer = await client.get(
            path,
            cast_to=httpx2.Response,
            options={"params": params or {}, "max_retries": _READ_RETRIES, "timeout": _READ_TIMEOUT_S},
        )
        return await answer.aread()
    except openai.NotFoundError:
        return None
    except UNANSWERED as failure:
        error: TextLLMError = unanswered(failure, Asked.of(client.base_url, path))
    except openai.APIStatusError as failure:
        error = refusal(failure, Asked.of(client.base_url, path))
    raise error
