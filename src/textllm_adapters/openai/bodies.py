"""What is sent: messages with their files, and bodies whose files are read while they are on their way."""

from binascii import b2a_base64
from collections.abc import AsyncGenerator, AsyncIterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from itertools import zip_longest
from secrets import token_hex
from typing import cast

import msgspec

from textllm_adapters.openai.approvals import approval_items, server_items
from textllm_adapters.openai.functions import call_item, result_items
from textllm_adapters.openai.reasoning import is_said, items_before
from textllm_core.errors import InvalidRequestError, StorageUnavailableError, TextLLMError
from textllm_core.records.hosted import ITEMS, Approval, HostedItem
from textllm_core.records.messages import Message
from textllm_core.records.model import ReadBlob
from textllm_core.records.parts import InputFile, InputImage, InputLink, OutputText, Refusal, words_of
from textllm_core.records.tools import ToolCall


class DataURL:
    """A place in a body that takes the bytes of a stored file, as a data URL. Of no type that JSON has a form for."""

    def __init__(self, part: InputImage | InputFile) -> None:
        self.part = part


def input_items(message: Message, by: str | None = None) -> list[dict[str, object]]:
    """A message as items of the Responses and the Conversations API: what it says, its calls, or its results.

    What MCP servers did stands before it and behind it, as far as the message has that.

    Its text is one string, in the form that OpenAI and all compatible servers take, for earlier replies too: with a
    type, without parts, id and status. The parts of a reply would need an id, which only the provider gives.

    Args:
        by: whose reasoning goes before its calls, and before its text where it has none, as `made_by` has it; None:
            nobody's.
    """
    calls, results = message.tool_calls, result_items(message)
    said: list[dict[str, object]] = []
    aside = len(calls) + len(results) + sum(isinstance(part, HostedItem | Approval) for part in message.content)
    if not aside == len(message.content) > 0:
        has_files = any(isinstance(part, InputImage | InputFile | InputLink) for part in message.content)
        content = _input_parts(message) if has_files else message.text
        said = [{"type": "message", "role": message.role, "content": content}]
    if calls:
        said = _with_calls(said, calls, by)
    elif said and by is not None and by.count("/") > 1:  # with a conversation at the provider it is kept there
        said = _with_thoughts(said, message, by)
    thought_of = {item.get("id") for item in said if item.get("type") in ITEMS}
    before, behind = server_items(message, besides=thought_of)
    if calls:
        before, behind = [*before, *behind], []
    return [*results, *approval_items(message), *before, *said, *behind]


def _with_thoughts(said: list[dict[str, object]], message: Message, by: str) -> list[dict[str, object]]:
    """What a reply says, behind its reasoning. Its own id stays away: OpenAI looks for it, and has kept nothing."""
    for part in message.content:
        if isinstance(part, OutputText | Refusal):
            before, _ = items_before(part, by)
            thoughts = [item for item in before if item.get("encrypted_content") or item.get("type") in ITEMS]
            if any(item.get("encrypted_content") for item in thoughts):
                return [*thoughts, *said]
    return said


def _with_calls(said: list[dict[str, object]], calls: Sequence[ToolCall], by: str | None) -> list[dict[str, object]]:
    """What a reply says and its calls; its reasoning where it stood, which may be before what it says."""
    items: list[dict[str, object]] = []
    for call in calls:
        before, with_it = items_before(call, by)
        for item in before:
            if is_said(item):
                items += said
                said = []
            else:
                items.append(item)
        if said and not any(map(is_said, before)):
            items = [*said, *items]
            said = []
        items.append(call_item(call) | with_it)
    return items


def _input_parts(message: Message) -> list[dict[str, object]]:
    parts: list[dict[str, object]] = []
    for part in message.content:
        match part:
            case InputImage():
                parts.append({"type": "input_image", "detail": part.detail, "image_url": DataURL(part)})
            case InputLink(kind="image"):
                parts.append({"type": "input_image", "detail": part.detail, "image_url": part.url})
            case InputLink():
                parts.append({"type": "input_file", "file_url": part.url})
            case InputFile(extracted=None):
                # The API tells by the name what a file is, and only PDF files go as they are.
                name = part.name if part.name.lower().endswith(".pdf") else f"{part.name}.pdf"
                parts.append({"type": "input_file", "filename": name, "file_data": DataURL(part)})
            case _ if (words := words_of(part)) is not None:
                parts.append({"type": "input_text", "text": words})
    return parts


def chat_content(message: Message) -> object:
    """A message's content in the Chat Completions API: parts only where it has images, which not every server takes.

    Raises:
        InvalidRequestError: a file without extracted text, for which this API has no portable form.
    """
    text = message.text_for_model
    if not message.has_shown_parts:
        return text
    return [*([{"type": "text", "text": text}] if text else []), *_chat_images(message)]


def _chat_images(message: Message) -> Iterator[dict[str, object]]:
    for part in message.content:
        match part:
            case InputFile(extracted=None) | InputLink(kind="file"):
                raise InvalidRequestError.of(
                    "file", "this API takes no files as they are; their text must be extracted"
                )
            case InputImage() | InputLink():
                url = part.url if isinstance(part, InputLink) else DataURL(part)
                # "original" is of the Responses API alone.
                detail = {} if part.detail == "auto" else {"detail": "low" if part.detail == "low" else "high"}
                yield {"type": "image_url", "image_url": {"url": url, **detail}}


class Body:
    """A body of a request, which can be sent any number of times.

    Args:
        texts: its JSON in pieces; between two of them comes a file, in base64.
        files: one less than the texts.
        read: the bytes of a file, by its key; None where there are none.

    Attributes:
        failure: what kept the last try from reading a file; the server then never had the whole body.
    """

    def __init__(self, texts: list[bytes], files: list[InputImage | InputFile], read: ReadBlob | None) -> None:
        self._texts = texts
        self._files = files
        self._read = read
        self.failure: TextLLMError | None = None

    @property
    def content(self) -> bytes | AsyncIterable[bytes]:
        """For the HTTP client: all bytes, or where there are files an iterable that begins anew each time."""
        return self if self._files else self._texts[0]

    @property
    def headers(self) -> Mapping[str, str]:
        """States the length where the client cannot know it; servers need it, to refuse what is too much at once."""
        if not self._files:
            return {}
        length = sum(map(len, self._texts)) + sum((file.size + 2) // 3 * 4 for file in self._files)
        return {"Content-Length": str(length)}

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        self.failure = None
        try:
            for text, file in zip_longest(self._texts, self._files):
                yield text
                if file is not None:
                    async with aclosing(self._base64(file)) as pieces:
                        async for piece in pieces:
                            yield piece
        except TextLLMError as failure:
            self.failure = failure
            raise

    async def _base64(self, file: InputImage | InputFile) -> AsyncGenerator[bytes, None]:
        assert self._read is not None
        size, rest = 0, b""
        pieces = self._read(file.key)
        async for piece in pieces:
            size += len(piece)
            joined = rest + piece
            whole = len(joined) // 3 * 3  # of three bytes each, which need no padding
            rest = joined[whole:]
            yield b2a_base64(memoryview(joined)[:whole], newline=False)
        if size != file.size:
            raise StorageUnavailableError("A stored file is not what was stored.", storage="file storage")
        yield b2a_base64(rest, newline=False)


def encoded(body: Mapping[str, object], read: ReadBlob | None) -> Body:
    """`body` as JSON, with a file for each `DataURL` in it."""
    files: list[InputImage | InputFile] = []
    place = ""

    def data_url(value: object) -> str:
        nonlocal place
        place = place or token_hex(16)  # nobody can know it, so no text has it
        part = cast("DataURL", value).part
        files.append(part)
        return f"data:{part.media_type};base64,{place}"

    content = msgspec.json.encode(body, enc_hook=data_url)
    if files and read is None:
        raise ValueError("a message has files, and nothing to read them with")
    return Body(content.split(place.encode()) if files else [content], files, read)
