"""The real small model in this process. What it says may be wrong: tests look at how it says it."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec.structs import replace
from tests.servers.embedded_model import cached_model

from textllm_adapters.embedded.llm import EmbeddedLLM, open_embedded
from textllm_core.errors import ConfigurationError, ContextTooLongError, InvalidRequestError, ProviderError
from textllm_core.records.messages import Message, MessageRole, TextDelta
from textllm_core.records.model import ModelEnded, ModelEvent, ModelRequest, ModelStarted
from textllm_core.records.parts import InputFile, InputImage, InputText, OutputText
from textllm_core.records.sampling import Sampling

PATIENCE_S = 120
COUNT_FOREVER = "Count from one to one thousand in words, and write every number."


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def llm() -> AsyncIterator[EmbeddedLLM]:
    """One for all tests: to load it takes longer than to ask it."""
    path = await asyncio.to_thread(cached_model)
    async with open_embedded(path) as llm:
        yield llm


def message(text: str, role: MessageRole = "user") -> Message:
    content = InputText(text) if role == "user" else OutputText(text)
    return Message(id="msg_1", role=role, content=(content,), created_at=datetime(2026, 1, 1, tzinfo=UTC))


def request(*messages: Message, max_output_tokens: int = 32, temperature: float | None = None) -> ModelRequest:
    return ModelRequest(
        model="any",
        messages=messages,
        instructions="You are a helpful assistant. Answer briefly.",
        max_output_tokens=max_output_tokens,
        safety_identifier="user",
        cache_key="conv",
        temperature=temperature,
    )


async def ended(llm: EmbeddedLLM, request: ModelRequest) -> ModelEnded:
    async with aclosing(llm.stream(request)) as events:
        last = [event async for event in events][-1]
    assert isinstance(last, ModelEnded)
    return last


def model_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("textllm-model")}


async def test_a_reply_streams_in_pieces_and_is_counted(llm: EmbeddedLLM) -> None:
    events: list[ModelEvent] = [event async for event in llm.stream(request(message("What is the capital of France?")))]
    started, *deltas, end = events
    assert started == ModelStarted(provider_response_id=None, model="SmolLM2-135M-Instruct.Q4_1")
    pieces = [event.text for event in deltas if isinstance(event, TextDelta)]
    assert len(pieces) == len(deltas) > 1
    assert all(pieces)
    assert isinstance(end, ModelEnded)
    assert end.text == "".join(pieces)
    assert end.text.strip()
    assert (end.status, end.finish_reason) == ("completed", "stop")
    assert end.usage is not None
    assert end.usage.input_tokens > 10
    assert 1 < end.usage.output_tokens <= 32


async def test_the_same_question_gets_the_same_answer(llm: EmbeddedLLM) -> None:
    question = request(message("What is the capital of France?"))
    assert (await ended(llm, question)).text == (await ended(llm, question)).text


async def test_a_reply_cut_at_its_length_is_incomplete(llm: EmbeddedLLM) -> None:
    end = await ended(llm, request(message(COUNT_FOREVER), max_output_tokens=4))
    assert (end.status, end.finish_reason) == ("incomplete", "length")
    assert end.usage is not None
    assert end.usage.output_tokens == 4


async def test_instructions_and_history_are_read_by_the_model(llm: EmbeddedLLM) -> None:
    alone = await ended(llm, request(message("And now?"), max_output_tokens=1))
    later = await ended(
        llm, request(message("Hello"), message("Hi!", "assistant"), message("And now?"), max_output_tokens=1)
    )
    assert alone.usage is not None
    assert later.usage is not None
    assert later.usage.input_tokens > alone.usage.input_tokens


async def test_the_text_of_a_document_is_read_by_the_model(llm: EmbeddedLLM) -> None:
    note = InputFile(key="k", media_type="text/plain", size=9, name="a.txt", extracted="Tea is at five. " * 20)
    plain = message("When?")
    alone = await ended(llm, request(plain, max_output_tokens=1))
    with_note = await ended(llm, request(replace(plain, content=(*plain.content, note)), max_output_tokens=1))
    assert alone.usage is not None
    assert with_note.usage is not None
    assert with_note.usage.input_tokens > alone.usage.input_tokens + 100


@pytest.mark.parametrize(
    "part",
    [
        InputImage(key="k", media_type="image/png", size=9, name="a.png"),
        InputFile(key="k", media_type="application/pdf", size=9, name="a.pdf"),
    ],
)
async def test_images_and_files_as_they_are_are_refused(llm: EmbeddedLLM, part: InputImage | InputFile) -> None:
    plain = message("When?")
    with pytest.raises(InvalidRequestError, match="reads text alone"):
        await ended(llm, request(replace(plain, content=(*plain.content, part))))
    assert not llm.reads_images
    assert not llm.reads_files


@pytest.mark.parametrize("text", ["", "\ud800", "\udcff and text", "a\x00b", "😀" * 50])
async def test_any_text_is_answered(llm: EmbeddedLLM, text: str) -> None:
    assert (await ended(llm, request(message(text), max_output_tokens=4))).text


async def test_four_replies_at_once_all_end(llm: EmbeddedLLM) -> None:
    ends = await asyncio.gather(*(ended(llm, request(message(f"Say {n}."), max_output_tokens=8)) for n in range(4)))
    assert all(end.text for end in ends)


async def test_a_reply_that_nobody_reads_waits_and_then_goes_on(llm: EmbeddedLLM) -> None:
    asked = request(message(COUNT_FOREVER), max_output_tokens=150, temperature=1.0)
    async with aclosing(llm.stream(asked)) as events:
        await anext(events)
        await asyncio.sleep(2)
        rest = [event async for event in events]
    assert isinstance(rest[-1], ModelEnded)
    assert rest[-1].text == "".join(event.text for event in rest if isinstance(event, TextDelta))


async def test_leaving_a_reply_makes_room_for_others(llm: EmbeddedLLM) -> None:
    for _ in range(4):  # more than run at once
        async with aclosing(llm.stream(request(message(COUNT_FOREVER), max_output_tokens=4000))) as events:
            assert isinstance(await anext(events), ModelStarted)
    end = await asyncio.wait_for(ended(llm, request(message("Hello"), max_output_tokens=4)), PATIENCE_S)
    assert end.text


async def test_cancelling_a_reader_makes_room_for_others(llm: EmbeddedLLM) -> None:
    readers = [
        asyncio.create_task(ended(llm, request(message(COUNT_FOREVER), max_output_tokens=4000))) for _ in range(4)
    ]
    await asyncio.sleep(0.5)
    for reader in readers:
        reader.cancel()
    assert all(
        isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(*readers, return_exceptions=True)
    )
    end = await asyncio.wait_for(ended(llm, request(message("Hello"), max_output_tokens=4)), PATIENCE_S)
    assert end.text


async def test_a_long_conversation_loses_its_oldest_messages_and_goes_on(llm: EmbeddedLLM) -> None:
    old = [message("apple pear plum " * 900), message("I see.", "assistant")] * 2
    new = [message("My fruit is a plum."), message("I see.", "assistant")] * 3
    end = await ended(llm, request(*old, *new, message("Which fruit?"), max_output_tokens=4))
    assert end.text
    assert end.usage is not None
    assert 50 < end.usage.input_tokens < 1000


async def test_it_takes_no_verbosity(llm: EmbeddedLLM) -> None:
    asked = replace(request(message("Hello")), sampling=Sampling(verbosity="low"))
    with pytest.raises(InvalidRequestError) as refused:
        [event async for event in llm.stream(asked)]
    assert refused.value.errors[0][0] == "verbosity"


async def test_a_turn_too_long_for_the_context_is_refused(llm: EmbeddedLLM) -> None:
    with pytest.raises(ContextTooLongError, match=r"it makes \d{4,} tokens, and 4096 are allowed; send less"):
        await ended(llm, request(message("Hello"), message("Hi!", "assistant"), message("apple pear plum " * 3000)))


async def test_closing_the_model_ends_open_replies_and_their_threads() -> None:
    before = model_threads()
    async with open_embedded(await asyncio.to_thread(cached_model)) as llm:
        events = llm.stream(request(message(COUNT_FOREVER), max_output_tokens=4000))
        await anext(events)
        assert model_threads() - before
    assert model_threads() <= before
    with pytest.raises(ProviderError):
        [event async for event in events]


async def test_nothing_is_written_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    async with open_embedded(await asyncio.to_thread(cached_model)) as llm:
        await ended(llm, request(message("Hello"), max_output_tokens=4))
    assert capfd.readouterr() == ("", "")


async def test_a_missing_model_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"TEXTLLM_LOCAL_MODEL"):
        async with open_embedded(tmp_path / "missing.gguf"):
            pass


@pytest.mark.parametrize("length", [0, 3, 4, 1000, 2_000_000, 50_000_000])
async def test_a_model_cut_short_is_a_configuration_error(
    tmp_path: Path, length: int, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cut.gguf"
    with (await asyncio.to_thread(cached_model)).open("rb") as whole:
        path.write_bytes(whole.read(length))
    with pytest.raises(ConfigurationError, match=r"TEXTLLM_LOCAL_MODEL"):
        async with open_embedded(path):
            pass
    assert capfd.readouterr() == ("", "")
    path.unlink()


async def test_a_file_of_another_kind_is_a_configuration_error(tmp_path: Path) -> None:
    path = tmp_path / "notes.gguf"
    path.write_text("not a model")
    with pytest.raises(ConfigurationError, match="not a GGUF model file"):
        async with open_embedded(path):
            pass
