"""Several providers as one: whatever has a provider's name before its own is asked of that one, and of no other."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass

from textllm_core.erasing import absent
from textllm_core.errors import ConversationLostError, ProviderError
from textllm_core.ports.llm import LLM
from textllm_core.ports.transcript import Transcript
from textllm_core.records.messages import Message
from textllm_core.records.model import ModelEnded, ModelEvent, ModelRequest, ReadBlob


def owner_of(word: str, providers: Mapping[str, object]) -> str:
    """The name before a word, where it is a provider's; else the one without a name is meant."""
    name, slash, _ = word.partition("/")
    return name if slash and name in providers else ""


@dataclass(frozen=True, slots=True)
class SeveralLLMs:
    """The models of all providers, by their names; the one without a name, if any, by the empty one.

    Args:
        first: answers what has no name of a provider.
    """

    providers: Mapping[str, LLM]
    first: LLM

    @property
    def reads_images(self) -> bool:
        """Keeps `LLM.reads_images`, of the first."""
        return self.first.reads_images

    @property
    def reads_files(self) -> bool:
        """Keeps `LLM.reads_files`, of the first."""
        return self.first.reads_files

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent, None]:
        """Keeps `LLM.stream`."""
        return self.providers.get(owner_of(request.model, self.providers), self.first).stream(request)

    async def outcome(self, provider_response_id: str) -> ModelEnded | None:
        """Keeps `LLM.outcome`; nobody can say where its provider is not configured any more."""
        llm = self.providers.get(owner_of(provider_response_id, self.providers))
        return (
            None
            if llm is None or _is_foreign(provider_response_id, self.providers)
            else await llm.outcome(provider_response_id)
        )


@dataclass(frozen=True, slots=True)
class SeveralTranscripts:
    """The conversations at all providers that keep some.

    Args:
        first: where a new one is made.
    """

    providers: Mapping[str, Transcript]
    first: Transcript

    def keeps(self, provider_id: str) -> bool:
        """Keeps `Transcript.keeps`."""
        return self._of(provider_id) is not None

    async def create(self, messages: Sequence[Message], *, read: ReadBlob | None = None) -> str:
        """Keeps `Transcript.create`."""
        return await self.first.create(messages, read=read)

    async def add(self, transcript_id: str, turn: Sequence[Message], *, read: ReadBlob | None = None) -> bool:
        """Keeps `Transcript.add`; errors as `messages`."""
        return await self._configured(transcript_id).add(transcript_id, turn, read=read)

    async def messages(self, transcript_id: str) -> Sequence[Message]:
        """Keeps `Transcript.messages`; those of a provider that is not configured any more are lost."""
        return await self._configured(transcript_id).messages(transcript_id)

    async def erase(self, transcript_id: str) -> int:
        """Keeps `Transcript.erase`."""
        return await self._sure(transcript_id).erase(transcript_id)

    async def erase_reply(self, provider_response_id: str) -> int:
        """Keeps `Transcript.erase_reply`."""
        return await self._sure(provider_response_id).erase_reply(provider_response_id)

    def _of(self, word: str) -> Transcript | None:
        return None if _is_foreign(word, self.providers) else self.providers.get(owner_of(word, self.providers))

    def _configured(self, transcript_id: str) -> Transcript:
        """
        Raises:
            ConversationLostError: its provider is not, any more.
        """
        if (transcript := self._of(transcript_id)) is None:
            raise ConversationLostError.of_settings(transcript_id)
        return transcript

    def _sure(self, word: str) -> Transcript:
        """
        Raises:
            ProviderError: its provider is not configured; it waits until it is.
        """
        if (transcript := self._of(word)) is None:
            raise ProviderError(absent({word.partition("/")[0] if "/" in word else "": 1}), may_have_run=False)
        return transcript


def _is_foreign(word: str, providers: Mapping[str, object]) -> bool:
    """It has the name of a provider that is not there; ids themselves have no slash."""
    return "/" in word and not owner_of(word, providers)
