"""One provider of several: its names told apart from those of others, and no more calls at a time than it takes."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from textllm_adapters.routing.names import bare, qualified
from textllm_core.errors import ProviderUnavailableError
from textllm_core.ports.llm import LLM
from textllm_core.ports.transcript import Transcript
from textllm_core.records.messages import Message
from textllm_core.records.model import ModelEnded, ModelEvent, ModelRequest, ModelStarted, ReadBlob

_PLACE_WITHIN_S: Final = 5.0  # a fallback, or the client's next try, is better than a longer line


class Places:
    """How many calls run at a time in this process; more wait a little for their turn.

    Args:
        most: None: any number.
        whose: the provider, for the words of a refusal.
    """

    def __init__(self, most: int | None, whose: str) -> None:
        self._free = None if most is None else asyncio.Semaphore(most)
        self._whose = whose

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """The block has a place.

        Raises:
            ProviderUnavailableError: none became free in time; nothing ran.
        """
        if self._free is None:
            yield
            return
        try:
            async with asyncio.timeout(_PLACE_WITHIN_S):
                await self._free.acquire()
        except TimeoutError:
            raise ProviderUnavailableError(
                f"The provider {self._whose} has as many calls as it may (the setting max_concurrency).",
                may_have_run=False,
            ) from None
        try:
            yield
        finally:
            self._free.release()


async def always() -> None:
    """Nothing is to be done before a call."""


@dataclass(frozen=True, slots=True)
class NamedLLM:
    """An `LLM` whose model and replies have the provider's name before their own.

    Args:
        name: empty: they have none.
        before: is awaited before each call, for a key that runs out.
    """

    llm: LLM
    name: str
    places: Places
    before: Callable[[], Awaitable[None]] = always

    @property
    def reads_images(self) -> bool:
        """Keeps `LLM.reads_images`."""
        return self.llm.reads_images

    @property
    def reads_files(self) -> bool:
        """Keeps `LLM.reads_files`."""
        return self.llm.reads_files

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Keeps `LLM.stream`."""
        name, transcript_id = self.name, request.transcript_id
        request = replace(
            request,
            model=bare(name, request.model),
            transcript_id=None if transcript_id is None else bare(name, transcript_id),
        )
        async with self.places.one():
            await self.before()
            async with aclosing(self.llm.stream(request)) as events:
                async for event in events:
                    if isinstance(event, ModelStarted):
                        own = event.provider_response_id
                        yield replace(
                            event,
                            model=qualified(name, event.model),
                            provider_response_id=None if own is None else qualified(name, own),
                        )
                    else:
                        yield event

    async def outcome(self, provider_response_id: str) -> ModelEnded | None:
        """Keeps `LLM.outcome`."""
        await self.before()
        return await self.llm.outcome(bare(self.name, provider_response_id))


@dataclass(frozen=True, slots=True)
class NamedTranscript:
    """A `Transcript` whose conversations have the provider's name before their own."""

    transcript: Transcript
    name: str

    def keeps(self, provider_id: str) -> bool:
        """Keeps `Transcript.keeps`."""
        return provider_id.startswith(qualified(self.name, ""))

    async def create(self, messages: Sequence[Message], *, read: ReadBlob | None = None) -> str:
        """Keeps `Transcript.create`."""
        return qualified(self.name, await self.transcript.create(messages, read=read))

    async def add(self, transcript_id: str, turn: Sequence[Message], *, read: ReadBlob | None = None) -> bool:
        """Keeps `Transcript.add`."""
        return await self.transcript.add(bare(self.name, transcript_id), turn, read=read)

    async def messages(self, transcript_id: str) -> Sequence[Message]:
        """Keeps `Transcript.messages`."""
        return await self.transcript.messages(bare(self.name, transcript_id))

    async def erase(self, transcript_id: str) -> int:
        """Keeps `Transcript.erase`."""
        return await self.transcript.erase(bare(self.name, transcript_id))

    async def erase_reply(self, provider_response_id: str) -> int:
        """Keeps `Transcript.erase_reply`."""
        return await self.transcript.erase_reply(bare(self.name, provider_response_id))
