"""Files on their way to a model: what may be sent, and how many at once."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textllm_adapters.memory.blob_store import MemoryBlobStore
from textllm_adapters.memory.llm import ScriptedLLM
from textllm_core.chat.attachments import MOST_BYTES, Attachments
from textllm_core.errors import StoredFileNotFoundError
from textllm_core.records.messages import Message
from textllm_core.records.parts import InputFile, InputImage, InputText

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Sized(MemoryBlobStore):
    """Claims to hold every key, in the size that it ends in."""

    async def size(self, key: str) -> int:
        return int(key.rpartition("/")[2])


def message(*parts: InputText | InputImage | InputFile) -> Message:
    return Message(id="msg_1", role="user", content=parts, created_at=NOON)


def image(size: int) -> InputImage:
    return InputImage(key=f"LLM/one/{size}", media_type="image/png", size=size, name="one.png")


async def test_messages_without_files_are_sent_as_they_are() -> None:
    messages = (message(InputText("Hello")), message(InputText("And now?")))
    assert await Attachments(MemoryBlobStore()).sendable(messages, ScriptedLLM()) == messages


async def test_a_document_whose_text_is_sent_needs_its_file_no_more() -> None:
    note = InputFile(key="LLM/gone.txt", media_type="text/plain", size=3, name="gone.txt", extracted="Tea")
    messages = (message(InputText("When?"), note),)
    assert await Attachments(MemoryBlobStore()).sendable(messages, ScriptedLLM()) == messages


async def test_what_the_model_does_not_read_is_named_instead() -> None:
    document = InputFile(key="LLM/a/3", media_type="application/pdf", size=3, name="a.pdf")
    llm = ScriptedLLM(reads_images=False, reads_files=False)
    [told] = await Attachments(Sized()).sendable((message(InputText("Look"), image(3), document),), llm)
    assert told.stored_parts == ()
    assert "one.png is an image" in told.text_for_model
    assert "a.pdf was sent as it is" in told.text_for_model


@given(st.lists(st.integers(1, MOST_BYTES), max_size=20))
def test_the_newest_files_are_sent_as_far_as_there_is_room(sizes: list[int]) -> None:
    messages = tuple(message(InputText("Look"), image(size)) for size in sizes)
    sent = asyncio.run(Attachments(Sized()).sendable(messages, ScriptedLLM()))
    kept = [part.size for told in sent for part in told.stored_parts]
    assert len(sent) == len(sizes)
    assert sum(kept) <= MOST_BYTES
    assert not sizes or sent[-1] == messages[-1]


async def test_bytes_come_as_they_are_stored() -> None:
    blobs = MemoryBlobStore()

    async def content() -> AsyncIterator[bytes]:
        yield bytes(range(256)) * 10_000

    await blobs.put("LLM/one.png", content(), max_bytes=3_000_000)
    attachments = Attachments(blobs)
    assert b"".join([piece async for piece in attachments.read("LLM/one.png")]) == bytes(range(256)) * 10_000
    with pytest.raises(StoredFileNotFoundError):
        _ = [piece async for piece in attachments.read("LLM/two.png")]


async def test_only_so_many_files_are_in_memory_at_once() -> None:
    open_now, most = 0, 0

    class Slow(MemoryBlobStore):
        async def get(self, key: str, *, first: int = 0, last: int | None = None) -> AsyncGenerator[bytes, None]:  # noqa: ARG002
            nonlocal open_now, most
            open_now += 1
            most = max(most, open_now)
            await asyncio.sleep(0)
            yield b"piece"
            open_now -= 1

    attachments = Attachments(Slow())

    async def read() -> bytes:
        return b"".join([piece async for piece in attachments.read("key")])

    assert await asyncio.gather(*(read() for _ in range(300))) == [b"piece"] * 300
    assert most == 64
