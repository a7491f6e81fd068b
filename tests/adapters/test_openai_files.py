"""How images and files travel to OpenAI: their parts, their bytes, and how little memory that takes."""

import asyncio
import base64
import gc
import hashlib
import re
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from unittest.mock import ANY

import pytest
from msgspec.structs import replace
from tests.contracts.model_fixtures import QUICK
from tests.servers.openai import OpenAIStandIn
from tests.servers.openai_script import Fault

from textllm_adapters.openai.bodies import input_items
from textllm_adapters.openai.chat_completions import ChatCompletionsLLM
from textllm_adapters.openai.client import Client, open_client
from textllm_adapters.openai.conversations import OpenAITranscript
from textllm_adapters.openai.responses import ResponsesLLM
from textllm_adapters.testing.models import NOON, assistant, first_delta, hear, request, user
from textllm_adapters.testing.stored_files import GIF, PDF, PNG, STORED, asked, image, pdf, reading
from textllm_core.errors import InvalidRequestError, ProviderError, StorageUnavailableError, UnsupportedMediaTypeError
from textllm_core.ports.llm import LLM
from textllm_core.records.messages import Message
from textllm_core.records.parts import InputFile, InputImage, InputLink, InputText

MIB = 1024 * 1024
PNG_PART = {
    "type": "input_image",
    "detail": "auto",
    "image_url": f"data:image/png;base64,{base64.b64encode(PNG).decode()}",
}
PDF_PART = {
    "type": "input_file",
    "filename": "three.pdf",
    "file_data": f"data:application/pdf;base64,{base64.b64encode(PDF).decode()}",
}
NOTE = InputFile(key="k", media_type="text/plain", size=11, name='a "note".txt', extracted="Tea at five")


@pytest.fixture
async def client(provider: OpenAIStandIn) -> AsyncIterator[Client]:
    async with open_client("sk-test", provider.base_url) as client:
        yield client


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("name", "sent"), [("a.pdf", "a.pdf"), ("A.PDF", "A.PDF"), ("a.txt", "a.txt.pdf"), ("a", "a.pdf")]
)
def test_a_pdf_is_sent_under_a_name_that_says_so(name: str, sent: str) -> None:
    turn = Message(id="msg_1", role="user", content=(replace(pdf(), name=name),), created_at=NOON)
    assert input_items(turn)[0]["content"] == [PDF_PART | {"filename": sent, "file_data": ANY}]


async def test_the_responses_api_takes_images_files_and_texts_as_parts(provider: OpenAIStandIn, client: Client) -> None:
    turn = Message(
        id="msg_1",
        role="user",
        content=(InputText("Well?"), image("LLM/one.png"), pdf(), NOTE),
        created_at=NOON,
    )
    await hear(ResponsesLLM(client, QUICK).stream(request("Hello", assistant("Hi."), turn, read=reading(STORED))))
    [recorded] = provider.requests
    assert recorded.body["input"] == [
        {"type": "message", "role": "user", "content": "Hello"},
        {"type": "message", "role": "assistant", "content": "Hi."},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Well?"},
                PNG_PART,
                PDF_PART,
                {"type": "input_text", "text": 'File a "note".txt:\n\nTea at five'},
            ],
        },
    ]
    assert recorded.files == (digest(PNG), digest(PDF))
    assert "transfer-encoding" not in recorded.headers


async def test_addresses_are_passed_on_and_how_closely_to_look(provider: OpenAIStandIn, client: Client) -> None:
    closely = replace(image("LLM/one.png"), detail="high")
    there = InputLink(kind="image", url="https://example.com/a.png", detail="low")
    document = InputLink(kind="file", url="https://example.com/a.pdf")
    turn = Message(id="msg_1", role="user", content=(InputText("Well?"), closely, there, document), created_at=NOON)
    await hear(ResponsesLLM(client, QUICK).stream(request(turn, read=reading(STORED))))
    assert provider.requests[0].body["input"][0]["content"][1:] == [
        PNG_PART | {"detail": "high"},
        {"type": "input_image", "detail": "low", "image_url": "https://example.com/a.png"},
        {"type": "input_file", "file_url": "https://example.com/a.pdf"},
    ]
    turn = replace(turn, content=(closely, there))
    await hear(ChatCompletionsLLM(client, QUICK).stream(request(turn, read=reading(STORED))))
    assert provider.requests[1].body["messages"][0]["content"] == [
        {"type": "image_url", "image_url": {"url": PNG_PART["image_url"], "detail": "high"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
    ]
    heard = await hear(ChatCompletionsLLM(client, QUICK).stream(request(replace(turn, content=(document,)))))
    assert isinstance(heard.error, InvalidRequestError)


async def test_a_conversation_is_made_with_images_and_files_as_parts(provider: OpenAIStandIn, client: Client) -> None:
    messages = [asked("Look", image("LLM/one.png"), pdf()), assistant("Nice.")]
    await OpenAITranscript(client, QUICK).create(messages, read=reading(STORED))
    assert provider.requests[0].body["items"] == [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Look"}, PNG_PART, PDF_PART]},
        {"type": "message", "role": "assistant", "content": "Nice."},
    ]


async def test_chat_completions_take_images_behind_the_text(provider: OpenAIStandIn, client: Client) -> None:
    turn = Message(id="msg_1", role="user", content=(InputText("Well?"), image("LLM/one.png"), NOTE), created_at=NOON)
    said = request(user("Hi"), assistant("Hello"), turn, read=reading(STORED))
    await hear(ChatCompletionsLLM(client, QUICK).stream(said))
    assert provider.requests[0].body["messages"] == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": 'Well?\n\nFile a "note".txt:\n\nTea at five'},
                {"type": "image_url", "image_url": {"url": PNG_PART["image_url"]}},
            ],
        },
    ]


async def test_chat_completions_send_extracted_text_in_the_form_that_every_server_takes(
    provider: OpenAIStandIn, client: Client
) -> None:
    turn = Message(id="msg_1", role="user", content=(InputText("Well?"), NOTE), created_at=NOON)
    await hear(ChatCompletionsLLM(client, QUICK).stream(request(turn)))
    assert provider.requests[0].body["messages"] == [
        {"role": "user", "content": 'Well?\n\nFile a "note".txt:\n\nTea at five'}
    ]


async def test_chat_completions_take_no_file_as_it_is(provider: OpenAIStandIn, client: Client) -> None:
    llm = ChatCompletionsLLM(client, QUICK)
    heard = await hear(llm.stream(request(asked("Well?", pdf()), read=reading(STORED))))
    assert isinstance(heard.error, InvalidRequestError)
    assert not llm.reads_files
    assert provider.requests == []


@pytest.mark.parametrize("kind", [ResponsesLLM, ChatCompletionsLLM])
async def test_a_further_try_sends_the_images_again(
    provider: OpenAIStandIn, client: Client, kind: type[ResponsesLLM | ChatCompletionsLLM]
) -> None:
    provider.script(Fault.http(429, retry_after_s=0.01), Fault.http(503, retry_after_s=0.01))
    turn = asked("Well?", image("LLM/two.gif"), image("LLM/one.png"))
    heard = await hear(kind(client, QUICK).stream(request(turn, read=reading(STORED))))
    assert heard.ended.status == "completed"
    assert [recorded.files for recorded in provider.requests] == [(digest(GIF), digest(PNG))] * 3


async def test_a_file_that_has_changed_is_not_sent(provider: OpenAIStandIn, client: Client) -> None:
    for changed in (PNG[:-1], PNG + b"!", b""):
        turn = asked("Well?", image("LLM/one.png"))
        heard = await hear(ResponsesLLM(client, QUICK).stream(request(turn, read=reading({"LLM/one.png": changed}))))
        assert isinstance(heard.error, StorageUnavailableError)
    assert provider.bills == []


@pytest.mark.parametrize("kind", [ResponsesLLM, ChatCompletionsLLM])
async def test_an_image_that_the_provider_cannot_read_is_the_turn_s_fault(
    client: Client, kind: type[ResponsesLLM | ChatCompletionsLLM]
) -> None:
    turn = asked("Well?", InputImage(key="k", media_type="image/png", size=5, name="one.png"))
    heard = await hear(kind(client, QUICK).stream(request(turn, read=reading({"k": b"hello"}))))
    assert heard.events == []
    assert isinstance(heard.error, UnsupportedMediaTypeError)


async def test_a_document_that_the_provider_cannot_read_is_the_turn_s_fault(client: Client) -> None:
    turn = asked("Well?", InputFile(key="k", media_type="application/pdf", size=5, name="a.pdf"))
    heard = await hear(ResponsesLLM(client, QUICK).stream(request(turn, read=reading({"k": b"hello"}))))
    assert isinstance(heard.error, UnsupportedMediaTypeError)


async def test_messages_with_files_and_nothing_to_read_them_with_are_a_defect(
    provider: OpenAIStandIn, client: Client
) -> None:
    heard = await hear(ResponsesLLM(client, QUICK).stream(request(asked("Well?", pdf()))))
    assert isinstance(heard.error, ValueError)
    assert provider.requests == []


class Listener:
    """A server that forgets what it is sent, says one word, and then waits."""

    FIRST = b'data: {"type":"response.output_text.delta","delta":"Tea"}\n\n'
    CHUNK = b'data: {"choices":[{"delta":{"content":"Tea"}}]}\n\n'

    def __init__(self) -> None:
        self.received = 0
        self.closed = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        stated = re.search(rb"(?i)content-length: (\d+)", head)
        assert stated is not None
        while self.received < int(stated[1]):
            self.received += len(await reader.read(65536))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        writer.write(self.CHUNK if b"/chat/completions" in head else self.FIRST)
        await closed(reader, writer)
        self.closed.set()


async def closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Wait until the client leaves, in whatever way it does."""
    with suppress(ConnectionError):
        while await reader.read(65536):
            pass
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def large(_key: str) -> AsyncIterator[bytes]:
    for _ in range(12):
        yield bytes(MIB)


@pytest.mark.parametrize("kind", [ResponsesLLM, ChatCompletionsLLM])
async def test_images_take_little_memory_on_their_way_and_none_afterwards(
    kind: type[ResponsesLLM | ChatCompletionsLLM],
) -> None:
    listener = Listener()
    server = await asyncio.start_server(listener.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    images = [InputImage(key=str(n), media_type="image/png", size=12 * MIB, name="one.png") for n in range(4)]
    async with server, open_client("sk-test", f"http://127.0.0.1:{port}/v1") as client:
        llm: LLM = kind(client, QUICK)
        stream = llm.stream(request(asked("Well?", *images), read=large))
        gc.collect()
        tracemalloc.start()
        try:
            assert await first_delta(stream) == "Tea"
            gc.collect()
            kept, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        await stream.aclose()
        await listener.closed.wait()
    assert listener.received > 64 * MIB
    assert most < 12 * MIB
    assert kept < 2 * MIB


async def test_a_server_that_answers_before_it_has_read_all_is_heard() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"error":{"message":"No.","type":"invalid_request_error","code":"too_much","param":null}}'
        head = f"HTTP/1.1 413 Too Large\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await closed(reader, writer)
        finished.set()

    finished = asyncio.Event()
    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    parts: Any = [InputImage(key="k", media_type="image/png", size=12 * MIB, name="one.png")]
    async with server, open_client("sk-test", f"http://127.0.0.1:{port}/v1") as client:
        heard = await hear(ResponsesLLM(client, QUICK).stream(request(asked("Well?", *parts), read=large)))
        await finished.wait()
    assert isinstance(heard.error, ProviderError)
    assert "413, too_much" in str(heard.error)
    assert not heard.error.may_have_run
