"""What every model keeps of the port `LLM`, and every transcript of `Transcript`, where messages have files."""

from collections.abc import AsyncIterator

import pytest
from tests.contracts.file_fixtures import GIF, PDF, PNG, STORED, asked, image, pdf, reading, seen
from tests.contracts.model_fixtures import MODELS, STATEFUL, ModelUnderTest, assistant, hear, request

from textllm_core.errors import StorageUnavailableError, StoredFileNotFoundError
from textllm_core.records.messages import InputFile


@pytest.fixture(params=sorted(MODELS))
async def model(request: pytest.FixtureRequest) -> AsyncIterator[ModelUnderTest]:
    async with MODELS[request.param]() as model:
        yield model


@pytest.fixture(params=sorted(STATEFUL))
async def stateful_model(request: pytest.FixtureRequest) -> AsyncIterator[ModelUnderTest]:
    async with STATEFUL[request.param]() as model:
        yield model


@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 1000, 1024 * 1024])
async def test_images_reach_the_model_byte_for_byte_and_in_order(model: ModelUnderTest, piece_bytes: int) -> None:
    turn = asked("Well?", image("LLM/two.gif"), image("LLM/one.png"))
    heard = await hear(model.llm.stream(request(turn, read=reading(STORED, piece_bytes=piece_bytes))))
    assert heard.ended.text == f"[0] You said: Well? {seen(GIF, PNG)}"


async def test_images_of_earlier_messages_are_sent_again(model: ModelUnderTest) -> None:
    earlier = asked("Look", image("LLM/one.png"))
    heard = await hear(model.llm.stream(request(earlier, assistant("Nice."), "And now?", read=reading(STORED))))
    assert heard.ended.text == f"[2] You said: And now? {seen(PNG)}"


async def test_images_are_counted_as_input(model: ModelUnderTest) -> None:
    plain = (await hear(model.llm.stream(request("Well?")))).ended.usage
    with_image = asked("Well?", image("LLM/one.png"))
    counted = (await hear(model.llm.stream(request(with_image, read=reading(STORED))))).ended.usage
    assert plain is not None
    assert counted is not None
    assert counted.input_tokens > plain.input_tokens


async def test_extracted_text_is_said_under_the_name_of_its_file(model: ModelUnderTest) -> None:
    note = InputFile(key="LLM/gone.txt", media_type="text/plain", size=9, name="gone.txt", extracted="Tea at five.")
    heard = await hear(model.llm.stream(request(asked("Well?", note))))
    assert "File gone.txt:\n\nTea at five." in heard.ended.text
    assert "Well?" in heard.ended.text


async def test_a_text_that_looks_like_a_file_stays_a_text(model: ModelUnderTest) -> None:
    text = "data:image/png;base64,aGVsbG8="
    heard = await hear(model.llm.stream(request(asked(text, image("LLM/one.png")), read=reading(STORED))))
    assert heard.ended.text == f"[0] You said: {text} {seen(PNG)}"


async def test_a_file_that_is_gone_ends_the_call_and_leaves_the_model_ready(model: ModelUnderTest) -> None:
    turn = asked("Well?", image("LLM/two.gif"), image("LLM/one.png"))
    heard = await hear(model.llm.stream(request(turn, read=reading({"LLM/two.gif": GIF}))))
    assert heard.events == []
    assert isinstance(heard.error, StoredFileNotFoundError)
    assert (await hear(model.llm.stream(request("Again")))).ended.text == "[0] You said: Again"


async def test_a_storage_that_fails_in_the_middle_of_a_file_ends_the_call(model: ModelUnderTest) -> None:
    async def read(_key: str) -> AsyncIterator[bytes]:
        yield PNG[:5000]
        raise StorageUnavailableError

    heard = await hear(model.llm.stream(request(asked("Well?", image("LLM/one.png")), read=read)))
    assert heard.events == []
    assert isinstance(heard.error, StorageUnavailableError)


async def test_a_conversation_keeps_knowing_its_files(stateful_model: ModelUnderTest) -> None:
    model = stateful_model
    made_with = [asked("Look", image("LLM/one.png")), assistant("Nice.")]
    transcript_id = await model.transcript.create(made_with, read=reading(STORED))
    turn = asked("And this?", pdf())
    first = await hear(model.llm.stream(request(turn, transcript_id=transcript_id, read=reading(STORED))))
    second = await hear(model.llm.stream(request("Which?", transcript_id=transcript_id)))
    assert first.ended.text == f"[2] You said: And this? {seen(PNG, PDF)}"
    assert second.ended.text == f"[4] You said: Which? {seen(PNG, PDF)}"


async def test_a_transcript_is_made_of_any_number_of_messages_with_files(stateful_model: ModelUnderTest) -> None:
    model = stateful_model
    made_with = [asked(f"Look {n}", image("LLM/two.gif")) for n in range(45)]
    transcript_id = await model.transcript.create(made_with, read=reading(STORED))
    heard = await hear(model.llm.stream(request("How many?", transcript_id=transcript_id)))
    assert heard.ended.text == f"[45] You said: How many? {seen(*[GIF] * 45)}"


async def test_a_transcript_is_not_made_of_files_that_are_gone(stateful_model: ModelUnderTest) -> None:
    with pytest.raises(StoredFileNotFoundError):
        await stateful_model.transcript.create([asked("Look", image("LLM/one.png"))], read=reading({}))


async def test_a_file_as_it_is_reaches_the_models_that_read_files(stateful_model: ModelUnderTest) -> None:
    assert stateful_model.llm.reads_files
    heard = await hear(stateful_model.llm.stream(request(asked("Well?", pdf()), read=reading(STORED))))
    assert heard.ended.text == f"[0] You said: Well? {seen(PDF)}"
