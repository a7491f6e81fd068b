"""OpenAI's Conversations API: the provider keeps the messages, and adds each turn by itself."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from textllm_adapters.openai.bodies import input_items
from textllm_adapters.openai.client import Client
from textllm_adapters.openai.decoding import anything, decoded, word
from textllm_adapters.openai.errors import Asked, hearing, nothing_there, told_in_stream
from textllm_adapters.openai.faults import fault_of
from textllm_adapters.openai.http import ONCE, RETRIES, Retries, get, post, surely_did_not_run, whole
from textllm_adapters.openai.reasoning import made_by
from textllm_core.errors import (
    ConversationBusyError,
    ConversationLostError,
    ModelError,
    ProviderError,
    StorageUnavailableError,
    StoredFileNotFoundError,
    TextLLMError,
)
from textllm_core.records.messages import Message, MessageRole
from textllm_core.records.model import ReadBlob
from textllm_core.records.parts import ContentPart, InputFile, InputImage, InputLink, InputText, OutputText, Refusal
from textllm_core.rules.transcripts import ends_with
from textllm_core.texts import well_formed

_NO_ROUTE: Final = (405, 501)
_REFUSES: Final = (400, 422)
_REFUSES_FILES: Final = (*_REFUSES, 413, 415)
_BATCH: Final = 20  # the most items that one call may create
_PAGE: Final = 100
_NEWEST: Final = 20  # a turn has two items, and one for each thing that was thought or looked up before its reply
_YEAR_9999: Final = 253_370_764_800  # in seconds; behind it, there are no dates


class _Created(Struct):
    id: str


# Only what is read, of whatever type it is: what is odd about one item must not keep the others from being erased.
class _Conversation(Struct):
    created_at: object = None


class _Item(Struct):
    id: object = None
    type: object = "message"
    role: object = None
    status: object = None
    content: object = None


class _Page(Struct):
    data: list[_Item | None] | None  # some write an empty list as null
    has_more: object = None
    last_id: object = None

    @property
    def items(self) -> list[_Item]:
        """Those that are any."""
        return [item for item in self.data or () if item is not None]

    @property
    def ids(self) -> list[str]:
        """What its items are called; what has no name, or none that can be sent, can be asked for by none."""
        return [name for item in self.items if (name := word(item.id, ""))]

    @property
    def last(self) -> str | None:
        """After which item the next page begins."""
        return word(self.last_id, "") or next(reversed(self.ids), None)


class _Named(Struct):
    id: str


class _StoredResponse(Struct):
    conversation: _Named | str | None = None

    @property
    def transcript_id(self) -> str | None:
        return self.conversation.id if isinstance(self.conversation, _Named) else self.conversation


_stored_response: Final = msgspec.json.Decoder(_StoredResponse)
_created: Final = msgspec.json.Decoder(_Created)
_conversation: Final = msgspec.json.Decoder(_Conversation)
_page: Final = msgspec.json.Decoder(_Page)


@dataclass(frozen=True, slots=True)
class OpenAITranscript:
    """Conversations kept by OpenAI as a `Transcript`. It knows no time of a message: all bear the conversation's."""

    client: Client
    retries: Retries = RETRIES

    def keeps(self, provider_id: str) -> bool:
        """Keeps `Transcript.keeps`; ids of OpenAI's have no slash."""
        return "/" not in provider_id

    async def create(self, messages: Sequence[Message], *, read: ReadBlob | None = None) -> str:
        """Keeps `Transcript.create`; twenty items a call. Reasoning that the provider takes no more is left out."""
        items, bare = _items(messages, made_by(self.client.base_url)), _items(messages)
        made: list[str] = []
        try:
            return await self._created(items, read, made)
        except TextLLMError as refusal:
            is_refusal = refusal.report is not None and refusal.report.status in _REFUSES
            if len(items) == len(bare) or not is_refusal:
                raise
        for transcript_id in made:
            await self.erase(transcript_id)
        return await self._created(bare, read, [])

    async def _created(self, items: Sequence[Mapping[str, object]], read: ReadBlob | None, made: list[str]) -> str:
        """A new conversation of these items; `made` is told its id as soon as it has one."""
        first, *others = _batches(items)
        with hearing(asked := Asked.of(self.client.base_url, "/conversations")):
            body = await self._post("/conversations", {"items": first} if first else {}, read)
            try:
                transcript_id = word(decoded(_created, body).id, "")
            except msgspec.DecodeError:
                transcript_id = ""
            if not transcript_id:
                raise _no_conversation(body, asked)
            made.append(transcript_id)
            for batch in others:
                await self._post(f"{_path(transcript_id)}/items", {"items": batch}, read)
        return transcript_id

    async def add(self, transcript_id: str, turn: Sequence[Message], *, read: ReadBlob | None = None) -> bool:
        """Keeps `Transcript.add`; looks again before each try, since a reply that is still written may be added.

        One that is added between a look and the try stands there twice; OpenAI adds none whose reader has left.
        """
        path, failures = f"{_path(transcript_id)}/items", 0
        left, in_words = _batches(_items(turn)), _batches(_items([_in_words(message) for message in turn]))
        with hearing(Asked.of(self.client.base_url, path)):
            while left:
                if ends_with(await self._newest(path), turn):
                    return turn[-1].role == "assistant"
                try:
                    await whole(await post(self.client, path, {"items": left[0]}, ONCE, read=read))
                    del left[0], in_words[0]
                except TextLLMError as refusal:
                    failures += 1
                    if surely_did_not_run(refusal):
                        if failures >= self.retries.tries:
                            raise
                        is_busy = isinstance(refusal, ConversationBusyError)
                        await asyncio.sleep(self.retries.wait(failures, busy=is_busy))
                    elif left[0] != in_words[0] and _is_of_files(refusal):
                        left = list(in_words)
                    else:
                        raise
        return True

    async def _newest(self, path: str) -> Sequence[Message]:
        """The last messages, oldest first."""
        body = await get(self.client, f"{path}?limit={_NEWEST}&order=desc", self.retries)
        if body is None:
            raise ConversationLostError
        newest = (_message(item, _time(None), nameless="") for item in decoded(_page, body).items)
        return [message for message in newest if message is not None][::-1]

    async def messages(self, transcript_id: str) -> Sequence[Message]:
        """Keeps `Transcript.messages`; a hundred items a call."""
        with hearing(Asked.of(self.client.base_url, _path(transcript_id))):
            created_at = _time(decoded(_conversation, await self._get(_path(transcript_id))).created_at)
            messages: list[Message] = []
            after: str | None = None
            read: set[str] = set()
            while True:
                params = {"limit": _PAGE, "order": "asc"} | ({"after": after} if after else {})
                page = decoded(_page, await self._get(f"{_path(transcript_id)}/items", params))
                goes_on, after = page.has_more is True, page.last
                if goes_on and (after is None or after in read):
                    raise ProviderError("The provider lists the conversation's items without an end.")
                if after in read:  # the same page again, from a server that knows of no second one
                    return messages
                for item in page.items:
                    if (message := _message(item, created_at, nameless=f"item_{len(messages)}")) is not None:
                        messages.append(message)
                if not goes_on and (after is None or len(page.items) < _PAGE):  # some servers never say that it goes on
                    return messages
                read.add(after or "")

    async def erase(self, transcript_id: str) -> int:
        """Keeps `Transcript.erase`; a call an item, since they would outlive their conversation."""
        path = _path(transcript_id)
        with hearing(Asked.of(self.client.base_url, path)):
            left = await self._erase_items(path)
            return left + (await self._delete(path) is None)

    async def _erase_items(self, path: str) -> int:
        """Delete all that are listed; how many are left, at least, because the server has no route to delete them."""
        last, found = None, 0
        while ids := await self._items(path):
            if ids[0] == last:
                if not found:  # of none it knew: that is how many servers answer where they have no route
                    return len(ids)
                raise ProviderError("The provider still lists an item that it has deleted.")
            last, found = ids[0], 0
            for item_id in ids:
                if (was_there := await self._delete(f"{path}/items/{quote(item_id, safe='')}")) is None:
                    return len(ids)
                found += was_there
        return 0

    async def _delete(self, path: str) -> bool | None:
        """As `Client.delete`; None where the server has no route for that."""
        try:
            return await self.client.delete(path)
        except ModelError as failure:
            if _has_route(failure):
                raise
            return None

    async def _items(self, path: str) -> list[str]:
        """The first that are listed, by id; none where the server tells of no items."""
        try:
            body = await self.client.get(f"{path}/items", {"limit": _PAGE, "order": "asc"})
        except ModelError as failure:
            if _has_route(failure):
                raise
            return []
        if body is None:
            return []
        try:
            return decoded(_page, body).ids
        except msgspec.DecodeError:
            if isinstance(anything(body), dict | list):
                return []
            raise

    async def erase_reply(self, provider_response_id: str) -> int:
        """Keeps `Transcript.erase_reply`."""
        path, left = f"/responses/{quote(provider_response_id, safe='')}", 0
        with hearing(Asked.of(self.client.base_url, path)):
            if (body := await self.client.get(path)) is None:
                return 0
            if (transcript_id := decoded(_stored_response, body).transcript_id) is not None:
                left = await self.erase(transcript_id)
            return left + (await self._delete(path) is None)

    async def _post(self, path: str, body: Mapping[str, object], read: ReadBlob | None) -> bytes:
        return await whole(await post(self.client, path, body, self.retries, read=read))

    async def _get(self, path: str, params: Mapping[str, object] | None = None) -> bytes:
        body = await self.client.get(path, params)
        if body is None:
            raise ConversationLostError
        return body


def _items(messages: Sequence[Message], by: str | None = None) -> list[dict[str, object]]:
    return [item for message in messages for item in input_items(message, by)]


def _batches(items: Sequence[Mapping[str, object]]) -> list[list[Mapping[str, object]]]:
    """The items in as many calls as they need, one at least; what was thought goes with what follows it."""
    batches: list[list[Mapping[str, object]]] = [[]]
    for item in items:
        if len(batches[-1]) == _BATCH:
            whole = batches[-1]
            batches.append([])
            while len(whole) > 1 and whole[-1].get("type") == "reasoning":
                batches[-1].insert(0, whole.pop())
        batches[-1].append(item)
    return batches


def _is_of_files(refusal: TextLLMError) -> bool:
    """Whether it may be for the files among the items that they cannot be added."""
    if isinstance(refusal, StorageUnavailableError | StoredFileNotFoundError):
        return True
    return refusal.report is not None and refusal.report.status in _REFUSES_FILES


def _in_words(message: Message) -> Message:
    """The message with a note in the place of each file, set off from what else it says."""
    if not message.has_shown_parts:
        return message
    return replace(message, content=tuple(_note(part) for part in message.content))


def _note(part: ContentPart) -> ContentPart:
    if isinstance(part, InputLink):
        return InputText(f"\n\n[The file at {part.url} was shown here.]")
    if isinstance(part, InputImage) or (isinstance(part, InputFile) and part.extracted is None):
        return InputText(f"\n\n[The file {part.name} was shown here.]")
    return part


def _no_conversation(body: bytes, asked: Asked) -> TextLLMError:
    """What an answer of 200 means that tells of no conversation: an error in it, or a server that answers so always."""
    fault = fault_of(anything(body))
    if fault.meaning() in ("other", "route"):
        return nothing_there(asked)
    return told_in_stream(fault, asked, has_begun=False)


def _has_route(failure: ModelError) -> bool:
    """A server without such routes has nothing but the conversation."""
    return failure.report is None or failure.report.status not in _NO_ROUTE


def _path(transcript_id: str) -> str:
    return f"/conversations/{quote(transcript_id, safe='')}"


def _time(seconds: object) -> datetime:
    """When the conversation was made; where the provider does not say so, the beginning of time."""
    known = seconds if isinstance(seconds, int | float) and 0 <= seconds < _YEAR_9999 else 0
    return datetime.fromtimestamp(known, UTC)


def _message(item: _Item, created_at: datetime, *, nameless: str) -> Message | None:
    """The message that an item is; reasoning, tool calls and system messages are none."""
    if item.type != "message" or item.role not in ("user", "assistant"):
        return None
    role: MessageRole = "user" if item.role == "user" else "assistant"
    given = item.content if isinstance(item.content, list) else [item.content]
    return Message(
        id=word(item.id, nameless),
        role=role,
        content=tuple(part for each in given if (part := _part(each, role)) is not None),
        created_at=created_at,
        status="incomplete" if item.status == "incomplete" else "completed",
    )


def _part(part: object, role: MessageRole) -> ContentPart | None:
    """What a part says, of whichever kind its text is called; some servers have a plain text in its place."""
    match part:
        case {"type": "refusal", "refusal": str(text)}:
            return Refusal(well_formed(text))
        case str(text) | {"type": "input_text" | "output_text" | "text", "text": str(text)}:
            return InputText(well_formed(text)) if role == "user" else OutputText(well_formed(text))
    return None
