"""OpenAI's Conversations API: the provider keeps the messages, and adds each turn by itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

import msgspec
from msgspec import Struct
from openai import AsyncOpenAI

from textllm_adapters.openai.bodies import input_message
from textllm_adapters.openai.client import RETRIES, Retries, delete, get, post
from textllm_adapters.openai.decoding import decoded
from textllm_adapters.openai.errors import BROKEN_ANSWER, Asked, nothing_there
from textllm_adapters.translation import translated
from textllm_core.chat.messages import ContentPart, InputText, Message, OutputText, Refusal, well_formed
from textllm_core.errors import ConversationLostError, ProviderError
from textllm_core.ports.llm import ReadBlob

_BATCH: Final = 20  # the most items that one call may create
_PAGE: Final = 100


class _Conversation(Struct):
    id: str
    created_at: float


class _Part(Struct):
    type: str = ""
    text: str | None = None
    refusal: str | None = None


class _Item(Struct):
    id: str = ""
    type: str = ""
    role: str = ""
    status: str | None = None
    content: list[_Part] | None = None


class _Page(Struct):
    data: list[_Item]
    has_more: bool = False
    last_id: str | None = None


class _Named(Struct):
    id: str


class _StoredResponse(Struct):
    conversation: _Named | None = None


_stored_response: Final = msgspec.json.Decoder(_StoredResponse)
_conversation: Final = msgspec.json.Decoder(_Conversation)
_page: Final = msgspec.json.Decoder(_Page)


@dataclass(frozen=True, slots=True)
class OpenAITranscript:
    """Conversations kept by OpenAI as a `Transcript`. It knows no time of a message: all bear the conversation's."""

    client: AsyncOpenAI
    retries: Retries = RETRIES

    async def create(self, messages: Sequence[Message], *, read: ReadBlob | None = None) -> str:
        """Keeps `Transcript.create`; twenty messages a call."""
        items = [input_message(message) for message in messages]
        with translated(BROKEN_ANSWER):
            body = await self._post("/conversations", {"items": items[:_BATCH]} if items else {}, read)
            try:
                transcript_id = decoded(_conversation, body).id
            except msgspec.DecodeError:  # some answer 200 wherever they have nothing
                raise nothing_there(Asked.of(self.client.base_url, "/conversations")) from None
            for first in range(_BATCH, len(items), _BATCH):
                await self._post(f"{_path(transcript_id)}/items", {"items": items[first : first + _BATCH]}, read)
        return transcript_id

    async def messages(self, transcript_id: str) -> Sequence[Message]:
        """Keeps `Transcript.messages`; a hundred items a call."""
        with translated(BROKEN_ANSWER):
            conversation = decoded(_conversation, await self._get(_path(transcript_id)))
            created_at = datetime.fromtimestamp(conversation.created_at, UTC)
            messages: list[Message] = []
            after: str | None = None
            while True:
                params = {"limit": _PAGE, "order": "asc"} | ({"after": after} if after else {})
                page = decoded(_page, await self._get(f"{_path(transcript_id)}/items", params))
                messages += (message for item in page.data if (message := _message(item, created_at)) is not None)
                if not page.has_more:
                    return messages
                if not page.last_id or page.last_id == after:
                    raise ProviderError("The provider lists the conversation's items without an end.")
                after = page.last_id

    async def erase(self, transcript_id: str) -> None:
        """Keeps `Transcript.erase`; a call an item, since they would outlive their conversation."""
        path, last = _path(transcript_id), None
        with translated(BROKEN_ANSWER):
            while (body := await get(self.client, f"{path}/items", {"limit": _PAGE, "order": "asc"})) is not None:
                items = decoded(_page, body).data
                if not items:
                    break
                if not items[0].id or items[0].id == last:
                    raise ProviderError("The provider still lists an item that it has deleted.")
                last = items[0].id
                for item in items:
                    await delete(self.client, f"{path}/items/{quote(item.id, safe='')}")
            await delete(self.client, path)

    async def erase_reply(self, provider_response_id: str) -> None:
        """Keeps `Transcript.erase_reply`."""
        path = f"/responses/{quote(provider_response_id, safe='')}"
        with translated(BROKEN_ANSWER):
            if (body := await get(self.client, path)) is None:
                return
            if (conversation := decoded(_stored_response, body).conversation) is not None:
                await self.erase(conversation.id)
            await delete(self.client, path)

    async def _post(self, path: str, body: Mapping[str, object], read: ReadBlob | None) -> bytes:
        answer = await post(self.client, path, body, self.retries, read=read)
        try:
            return await answer.aread()
        finally:
            await answer.aclose()

    async def _get(self, path: str, params: Mapping[str, object] | None = None) -> bytes:
        body = await get(self.client, path, params)
        if body is None:
            raise ConversationLostError
        return body


def _path(transcript_id: str) -> str:
    return f"/conversations/{quote(transcript_id, safe='')}"


def _message(item: _Item, created_at: datetime) -> Message | None:
    """The message that an item is; reasoning, tool calls and system messages are none."""
    if item.type != "message" or item.role not in ("user", "assistant"):
        return None
    return Message(
        id=item.id,
        role="user" if item.role == "user" else "assistant",
        content=tuple(part for given in item.content or () if (part := _part(given)) is not None),
        created_at=created_at,
        status="incomplete" if item.status == "incomplete" else "completed",
    )


def _part(part: _Part) -> ContentPart | None:
    match part:
        case _Part(type="input_text", text=str(text)):
            return InputText(well_formed(text))
        case _Part(type="output_text", text=str(text)):
            return OutputText(well_formed(text))
        case _Part(type="refusal", refusal=str(text)):
            return Refusal(well_formed(text))
    return None
